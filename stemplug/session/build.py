"""Stages of a session: made with its time base, and with errors that name their place in the file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from stemplug.session import nodes
from stemplug.session.nodes import Build, Curve, Timebase
from stemplug.session.source import Source
from stemplug.session.stages import Stage
from stemplug.yaml_file import Place, dotted_place

Sound: TypeAlias = Stage | None
"""None is silence."""
Work: TypeAlias = Callable[[Sequence[Any]], Any]


class Builder:
    """Makes stages for one session."""

    def __init__(self, source: Source, time: Timebase) -> None:
        self.source, self.time = source, time

    def stage(self, place: Place, settings: list[Any], inputs: Sequence[Stage], work: Work) -> Stage:
        """A stage; what it raises is told as wrong at ``place``. The first of ``settings`` says what is done."""

        def told(audio: Sequence[Any]) -> Any:
            with self.source.at(place):
                return work(audio)

        time = [self.time.sample_rate, self.time.frames, self.time.tempo]
        return Stage(f"{dotted_place(place)}: {settings[0]}", [*settings, time], tuple(inputs), told)

    def graph(self, place: Place, settings: list[Any], inputs: Sequence[Stage], build: Build) -> Stage:
        """A stage that is a graph."""
        return self.stage(place, settings, inputs, lambda audio: nodes.in_graph(self.time, audio, build))

    def check(self, place: Place, build: Build, inputs: int) -> None:
        """Try a build, so that its faults are found before anything is rendered."""
        with self.source.at(place):
            build(*nodes.engine_and_graph(self.time), [f"input {number}" for number in range(inputs)])

    def silence(self) -> Stage:
        """A stage of nothing."""
        return self.stage(("master",), ["silence"], [], lambda audio: nodes.silence(self.time))

    def sum(self, place: Place, sounds: Sequence[tuple[Sound, float]]) -> Sound:
        """The sum of sounds, each with a gain in dB."""
        heard = [(sound, gain) for sound, gain in sounds if sound]
        gains = [gain for _, gain in heard]
        if not heard or gains == [0.0]:
            return heard[0][0] if heard else None
        return self.graph(place, ["sum", gains], [sound for sound, _ in heard], nodes.add(gains))

    def fader(self, place: Place, sound: Sound, gain: Curve, pan: Curve) -> Sound:
        """Gain and pan; no stage where they do nothing."""
        for key, points in (("gain_db", gain), ("pan", pan)):
            if any(one[0] >= two[0] for one, two in zip(points, points[1:], strict=False)):
                self.source.fail((*place, key), "the times of its points do not rise. Put them in order.")
        if sound is None or all(value == 0 for _, value in [*gain, *pan]):
            return sound
        return self.graph(place, ["fader", gain, pan], [sound], nodes.fader(gain, pan, self.time))

    def faust_code(self, code: str, place: Place) -> str:
        """Code that the session may run."""
        if not self.source.trust:
            with self.source.at(place):
                nodes.check_faust(code)
        return code

    def plugin(
        self, place: Place, key: str, path: str, preset: str | None, parameters: Mapping[str, float]
    ) -> tuple[Callable[[Any], Any], list[Any]]:
        """What makes a VST3 plugin in an engine, and what decides its sound. ``key`` is the field of its path."""
        if not self.source.trust:
            advice = "Use --trust if you know who wrote it."
            self.source.fail((*place, key), f"a plugin is native code, which a session may not run. {advice}")
        files: list[Path | None] = [self.source.input_at((*place, key), path, folder=True), None]
        if preset is not None:
            files[1] = self.source.input_at((*place, "preset"), preset)
        bundle, state = files
        assert bundle
        hashes = [self.source.inputs[file] for file in files if file]
        return lambda engine: nodes.plugin(engine, bundle, state, parameters), [hashes, dict(parameters)]
