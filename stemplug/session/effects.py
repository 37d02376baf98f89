"""The effects of a strip as stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from stemplug.chain import Board
from stemplug.chain.saved import NAMES
from stemplug.errors import unknown
from stemplug.session import nodes
from stemplug.session.build import Builder
from stemplug.session.stages import Stage
from stemplug.yaml_file import Place

FAUST, VST3, SPLIT = "Faust", "VST3", "StemSplit"
EFFECTS = sorted({*NAMES, FAUST} - {SPLIT})


class Effects:
    """Makes the stages of lists of effects.

    ``side_chain`` gives what a strip of a name sounds like, asked for at a place.
    """

    def __init__(self, builder: Builder, side_chain: Callable[[str, Place], Stage]) -> None:
        self._builder, self._source, self._side_chain = builder, builder.source, side_chain

    def behind(self, sound: Stage, effects: Sequence[Any], place: Place) -> Stage:
        """Effects one after the other; those of pedalboard that follow each other are one stage."""
        run: list[tuple[Place, Any]] = []
        for index, effect in enumerate(effects):
            inner: Place = (*place, index)
            name, settings = (
                next(iter(effect.items())) if isinstance(effect, dict) and len(effect) == 1 else (effect, None)
            )
            if name not in (FAUST, VST3):
                run.append((inner, effect))
                continue
            sound = self._board(sound, run, place)
            run = []
            make = self._faust if name == FAUST else self._vst3
            sound = make(sound, settings, (*inner, name))
        return self._board(sound, run, place)

    def _board(self, sound: Stage, run: Sequence[tuple[Place, Any]], place: Place) -> Stage:
        stages, files = [], list[str]()
        for inner, effect in run:
            localized = self._localized(effect, inner, files)
            with self._source.at(inner):
                Board.from_dict({"chain": [localized]})
            stages.append(localized)
        if not stages:
            return sound

        def work(audio: Sequence[Any]) -> Any:
            return Board.from_dict({"chain": stages})(audio[0], self._builder.time.sample_rate)

        effects = [effect for _, effect in run]
        return self._builder.stage(place, ["pedalboard", effects, files], [sound], work)

    def _localized(self, effect: Any, place: Place, files: list[str]) -> Any:
        """An effect whose files are those of the session; their hashes go to ``files``."""
        stage = isinstance(place[-1], int)  # in the list of effects, or in that of a container
        if isinstance(effect, list):
            return [self._localized(each, (*place, index), files) for index, each in enumerate(effect)]
        if not isinstance(effect, dict):
            if isinstance(effect, str) and stage:
                self._check_name(effect, place)
            return effect
        result = {}
        for key, value in effect.items():
            inner: Place = (*place, key)
            if stage:
                self._check_name(key, inner)
            if key == "impulse_response_filename" and isinstance(value, str):
                path = self._source.input_at(inner, value)
                files.append(self._source.inputs[path])
                result[key] = str(path)
            else:
                result[key] = self._localized(value, inner, files)
        return result

    def _check_name(self, name: str, place: Place) -> None:
        if name == SPLIT:
            advice = "A bus can split what tracks give."
            self._source.fail(place, f"a strip is split by its field 'split', behind its effects. {advice}")
        if name in (FAUST, VST3):
            self._source.fail(place, f"{name} stands inside another effect. Put it into the list of effects itself.")
        if name not in EFFECTS:
            self._source.fail(place, unknown("effect", name, EFFECTS))

    def _settings(self, data: Any, place: Place, needed: str, allowed: Sequence[str]) -> dict[str, Any]:
        """The settings of an effect of ours: known keys, texts."""
        if not isinstance(data, dict):
            self._source.fail(place, f"expected settings: {', '.join(allowed)}.")
        for key, value in data.items():
            if key not in allowed:
                self._source.fail((*place, key), unknown("setting", key, allowed))
            if not isinstance(value, dict if key == "parameters" else str):
                self._source.fail((*place, key), f"expected {'names and values' if key == 'parameters' else 'a text'}.")
        if needed not in data:
            self._source.fail(place, f"the setting '{needed}' is missing.")
        return data

    def _faust(self, sound: Stage, data: Any, place: Place) -> Stage:
        settings = self._settings(data, place, "code", ("code", "side_chain"))
        code = self._builder.faust_code(settings["code"], (*place, "code"))
        inputs = [sound]
        if "side_chain" in settings:
            inputs.append(self._side_chain(settings["side_chain"], (*place, "side_chain")))
        build = nodes.faust(code, len(inputs) > 1)
        self._builder.check((*place, "code"), build, len(inputs))
        return self._builder.graph(place, ["faust", code], inputs, build)

    def _vst3(self, sound: Stage, data: Any, place: Place) -> Stage:
        settings = self._settings(data, place, "path", ("path", "preset", "parameters"))
        make, used = self._builder.plugin(
            place, "path", settings["path"], settings.get("preset"), settings.get("parameters", {})
        )
        build = nodes.effect(make)
        self._builder.check(place, build, 1)
        return self._builder.graph(place, ["vst3", used], [sound], build)
