"""From a session to stages: who is heard where, in which order, and in what variant of the mix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from stemplug.engine import model_info
from stemplug.errors import OptionError, unknown
from stemplug.session import nodes
from stemplug.session.build import Builder, Sound
from stemplug.session.clips import Clips
from stemplug.session.effects import Effects
from stemplug.session.nodes import CHANNELS, Curve, Timebase
from stemplug.session.schema import MASTER, VOCALS, Bus, Deliverable, GainPoint, PanPoint, Routed, Split, Strip, Track
from stemplug.session.source import Source
from stemplug.session.stages import Stage
from stemplug.yaml_file import Place

MAX_SECONDS = 2 * 3600

Variant: TypeAlias = Literal["mix", "instrumental", "acappella"]


@dataclass(frozen=True)
class Output:
    """A file to be made: its name below the output folder without suffix, what it holds, and in which form."""

    name: str
    stage: Stage
    deliverable: Deliverable


class Planner:
    """The stages of a session, for one of its songs.

    Attributes
    ----------
    time:
        The session's time base.
    models:
        Names of the models, and their digests.

    Raises `SessionError`, naming file, line and field, for what cannot be rendered.
    """

    def __init__(self, source: Source, song: str | None = None) -> None:
        self._source, self._session = source, source.session
        self._clips = Clips(source, song)
        self.models: dict[str, str] = {}
        self._strips: dict[str, tuple[Bus, Place]] = {}
        for kind, strips in (("tracks", self._session.tracks), ("buses", self._session.buses)):
            for name, strip in strips.items():
                if name in self._strips or name == MASTER:
                    source.fail((kind, name), f"the name '{name}' is taken. Choose another.")
                self._strips[name] = strip, (kind, name)
        self._check_routes()
        self._sounds: dict[tuple[str, Variant], dict[str, Sound]] = {}
        self._stems_of: dict[tuple[str, Variant], dict[str, Sound]] = {}
        self._under_way: list[str] = []
        self.time = Timebase(self._session.sample_rate, self._frames(), self._session.tempo)
        self._builder = Builder(source, self.time)
        self._effects = Effects(self._builder, self._side_chain)

    def outputs(self, only: Sequence[str] = ()) -> list[Output]:
        """The files of the deliverables, or of those that are named."""
        known = self._session.deliverables
        for name in only:
            if name not in known:
                raise OptionError(f"--only: {unknown('deliverable', name, known)}")
        return [output for name in known if not only or name in only for output in self._outputs(name, known[name])]

    def _outputs(self, name: str, deliverable: Deliverable) -> Iterator[Output]:
        place: Place = ("deliverables", name)
        if deliverable.of == "stems":
            if deliverable.loudness:
                reason = "stems sum to what goes into the master, so they keep their level. Take it out."
                self._source.fail((*place, "loudness"), reason)
            for strip, sound in self._stems():
                yield Output(f"{name}/{strip}", sound or self._builder.silence(), deliverable)
            return
        if deliverable.of != "mix" and not self._has_vocals():
            needs = "needs vocals: a split with the stem vocals, or a track with role: vocals."
            self._source.fail((*place, "of"), f"'{deliverable.of}' {needs}")
        yield Output(name, self._master(deliverable.of), deliverable)

    def _stems(self) -> Iterator[tuple[str, Sound]]:
        """What goes into the master, strip by strip and stem by stem."""
        for name, (strip, _) in self._strips.items():
            if strip.output == MASTER:
                yield from self._parts(name, "mix").items()

    def _has_vocals(self) -> bool:
        splits = [(strip.split, place) for strip, place in self._strips.values() if strip.split]
        roles = [track.role for track in self._session.tracks.values()]
        return VOCALS in roles or any(VOCALS in self._model(split, (*place, "split"))[1] for split, place in splits)

    def _frames(self) -> int:
        session = self._session
        ends = [
            self._clips.end(track, clip, ("tracks", name, "clips", index))
            for name, track in session.tracks.items()
            for index, clip in enumerate(track.clips)
        ]
        seconds = session.seconds(session.length) if session.length is not None else max(ends) + session.tail
        if not 0 < seconds <= MAX_SECONDS:
            limits = f"expected more than 0 and at most {MAX_SECONDS} s"
            self._source.fail(("length",), f"the session is {seconds:g} s long; {limits}.")
        return max(1, round(seconds * session.sample_rate))

    def _check_routes(self) -> None:
        buses = self._session.buses
        for name, (strip, place) in self._strips.items():
            if strip.output not in (MASTER, *buses):
                self._source.fail((*place, "output"), unknown("bus", strip.output, [MASTER, *buses]))
            self._check_sends(strip, place)
            if not strip.split:
                continue
            self._model(strip.split, (*place, "split"))
            for stem, branch in strip.split.stems.items():
                self._check_sends(branch, (*place, "split", "stems", stem))
            if isinstance(strip, Track) and "role" in strip.model_fields_set:
                reason = f"'{name}' has a split, whose stems say what is vocals. Take it out."
                self._source.fail((*place, "role"), reason)

    def _check_sends(self, strip: Routed, place: Place) -> None:
        for bus in strip.sends:
            if bus not in self._session.buses:
                self._source.fail((*place, "sends", bus), unknown("bus", bus, self._session.buses))

    def _model(self, split: Split, place: Place) -> tuple[str, tuple[str, ...]]:
        """The model of a split, by name or checked path, and its stems."""
        model = split.model
        if "/" in model or "\\" in model or model.startswith("."):
            model = str(self._source.file_at((*place, "model"), model, folder=True))
        with self._source.at((*place, "model")):
            info = model_info(model)
            self.models[info.name] = info.digest
        for stem in split.stems:
            if stem not in info.stems:
                self._source.fail((*place, "stems", stem), unknown("stem", stem, info.stems))
        return model, info.stems

    # What is heard.

    def _parts(self, name: str, variant: Variant) -> dict[str, Sound]:
        """What a strip gives behind its fader: by its name, or where it is split by "NAME.STEM"."""
        if (name, variant) not in self._sounds:
            strip, place = self._strips[name]
            if name in self._under_way:
                ring = [*self._under_way[self._under_way.index(name) :], name]
                self._source.fail(place, f"'{name}' hears itself: {' -> '.join(ring)}. Take one of the routes out.")
            self._under_way.append(name)
            self._sounds[name, variant] = self._make_parts(name, strip, place, variant)
            self._under_way.pop()
        return self._sounds[name, variant]

    def _make_parts(self, name: str, strip: Bus, place: Place, variant: Variant) -> dict[str, Sound]:
        if strip.split:
            stems = self._stems_of[name, variant] = self._split(name, strip, strip.split, place, variant)
            return {f"{name}.{stem}": self._faded(sound, strip, place) for stem, sound in stems.items()}
        if strip.mute or (isinstance(strip, Track) and _left_out(strip.role == VOCALS, variant)):
            return {name: None}
        sound = self._processed(self._source_of(name, strip, place, variant), strip, place)
        return {name: self._faded(sound, strip, place)}

    def _split(self, name: str, strip: Bus, split: Split, place: Place, variant: Variant) -> dict[str, Sound]:
        """The stems of a strip, each behind its own effects and fader.

        What is split is the mix's, in every variant: its stems are what the variant is made of.
        """
        inner: Place = (*place, "split")
        model, stems = self._model(split, inner)
        whole = None if strip.mute else self._processed(self._source_of(name, strip, place, "mix"), strip, place)
        if whole is None:
            return dict.fromkeys(stems)
        settings = ["split", model_info(model).digest]
        taken = self._builder.stage(inner, settings, [whole], lambda audio: nodes.separated(self.time, audio[0], model))
        return {
            stem: self._branch(taken, index, stem, split.stems.get(stem, Routed()), (*inner, "stems", stem), variant)
            for index, stem in enumerate(stems)
        }

    def _branch(self, split: Stage, index: int, stem: str, strip: Routed, place: Place, variant: Variant) -> Sound:
        if strip.mute or _left_out(stem == VOCALS, variant):
            return None
        rows = slice(CHANNELS * index, CHANNELS * (index + 1))
        sound = self._builder.stage(place, ["stem", index], [split], lambda audio: audio[0][rows])
        return self._faded(self._processed(sound, strip, place), strip, place)

    def _source_of(self, name: str, strip: Bus, place: Place, variant: Variant) -> Sound:
        """What a strip hears: its clips, or what is sent to it."""
        if isinstance(strip, Track):
            clips = [self._clips.stage(self._builder, strip, index, place) for index in range(len(strip.clips))]
            return self._builder.sum(place, [(clip, 0.0) for clip in clips])
        return self._builder.sum(place, list(self._sent_to(name, variant)))

    def _sent_to(self, bus: str, variant: Variant) -> Iterator[tuple[Sound, float]]:
        """What a bus or the master hears, with gains in dB."""
        for name, (strip, _) in self._strips.items():
            gains = [0.0] if strip.output == bus else []
            for gain in [*gains, *([strip.sends[bus]] if bus in strip.sends else [])]:
                yield from ((sound, gain) for sound in self._parts(name, variant).values())
            for stem, branch in strip.split.stems.items() if strip.split else ():
                if bus in branch.sends:
                    self._parts(name, variant)
                    yield self._stems_of[name, variant][stem], branch.sends[bus]

    def _master(self, variant: Variant) -> Stage:
        strip, place = self._session.master, (MASTER,)
        total = self._builder.sum(place, list(self._sent_to(MASTER, variant))) or self._builder.silence()
        sound = None if strip.mute else self._faded(self._processed(total, strip, place), strip, place)
        return sound or self._builder.silence()

    def _processed(self, sound: Sound, strip: Strip, place: Place) -> Sound:
        return self._effects.behind(sound, strip.effects, (*place, "effects")) if sound else None

    def _faded(self, sound: Sound, strip: Strip, place: Place) -> Sound:
        return self._builder.fader(place, sound, self._curve(strip.gain_db), self._curve(strip.pan))

    def _curve(self, value: float | list[GainPoint] | list[PanPoint]) -> Curve:
        if not isinstance(value, list):
            return [(0.0, float(value))]
        return [
            (self._session.seconds(point.at), float(point.db if isinstance(point, GainPoint) else point.pan))
            for point in value
        ]

    def _side_chain(self, name: str, place: Place) -> Stage:
        """What an effect listens to: a strip, or one of its stems, as in the mix."""
        parts = list(self._strips)
        for strip_name, (strip, inner) in self._strips.items():
            if strip.split:
                parts += [f"{strip_name}.{stem}" for stem in self._model(strip.split, (*inner, "split"))[1]]
        if name not in parts:
            self._source.fail(place, unknown("strip", name, parts))
        heard = self._parts(name.partition(".")[0], "mix")
        sounds = [heard.get(name)] if "." in name else list(heard.values())
        return self._builder.sum(place, [(sound, 0.0) for sound in sounds]) or self._builder.silence()


def _left_out(vocals: bool, variant: Variant) -> bool:
    return variant == ("instrumental" if vocals else "acappella")
