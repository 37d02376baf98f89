"""The clips of tracks: when they end, and as stages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stemplug.audio import AudioReader
from stemplug.session import nodes
from stemplug.session.build import Builder
from stemplug.session.schema import SONG, Clip, Instrument, Track
from stemplug.session.source import Source
from stemplug.session.stages import Stage
from stemplug.yaml_file import Place


class Clips:
    """The clips of a session, for one of its songs."""

    def __init__(self, source: Source, song: str | None) -> None:
        self._source, self._song, self._seconds = source, song, source.session.seconds

    def end(self, track: Track, clip: Clip, place: Place) -> float:
        """When a clip ends, in seconds; checks what it is."""
        given = [key for key in ("file", "midi", "notes") if getattr(clip, key)]
        if len(given) != 1:
            self._source.fail(place, f"a clip has one of file, midi and notes; found {' and '.join(given) or 'none'}.")
        if given == ["file"] and track.instrument:
            self._source.fail(
                (*place, "file"), "an instrument plays midi and notes. Give the audio a track of its own."
            )
        if given != ["file"] and not track.instrument:
            self._source.fail((*place, given[0]), "midi and notes need the track's instrument.")
        begin, length = self._seconds(clip.at), None if clip.length is None else self._seconds(clip.length)
        if length is not None and length * self._source.session.sample_rate < 1:
            self._source.fail((*place, "length"), f"found {length:g} s; expected a frame at least.")
        if clip.midi:
            self._source.input_at((*place, "midi"), clip.midi)
        if clip.file:  # looked at whether it is heard or not: what a session names is never written over
            duration = self._duration(self._file(clip.file, place), clip.start, place)
            return begin + (duration if length is None else length)
        if length is not None:
            return begin + length
        if clip.midi:
            self._source.fail(
                (*place, "length"), "a clip of a MIDI file needs a length, so that the session has an end."
            )
        return begin + max(self._seconds(note.at) + self._seconds(note.length) for note in clip.notes)

    def stage(self, builder: Builder, track: Track, index: int, place: Place) -> Stage:
        """A clip in its place, in a session of silence."""
        clip, place = track.clips[index], (*place, "clips", index)
        length = None if clip.length is None else self._seconds(clip.length)
        options = {"at": self._seconds(clip.at), "length": length, "gain_db": clip.gain_db}
        options |= {"fade_in": clip.fade_in, "fade_out": clip.fade_out}

        def placed(audio: Any) -> Any:
            return nodes.placed(audio, builder.time, **options)  # type: ignore[arg-type]

        if track.instrument:
            played = self._played(builder, track.instrument, clip, place)
            return builder.stage(place, ["clip", options], [played], lambda audio: placed(audio[0]))
        assert clip.file
        path = self._file(clip.file, place)

        def read(audio: Sequence[Any]) -> Any:
            return placed(nodes.clip(path, builder.time, start=clip.start, seconds=length))

        return builder.stage(place, ["clip", self._source.inputs[path], clip.start, options], [], read)

    def _file(self, name: str, place: Place) -> Path:
        place = (*place, "file")
        if name == SONG and not self._song:
            self._source.fail(place, f"{SONG} stands for each of the session's songs; the field 'songs' is missing.")
        return self._source.input_at(place, self._song if name == SONG and self._song else name)

    def _duration(self, path: Path, start: float, place: Place) -> float:
        with self._source.at((*place, "file")), AudioReader(path, start or None) as reader:
            info = reader.info
            frames = info.frames if info.exact else sum(block.shape[1] for block in reader.blocks())
            return frames / info.sample_rate

    def _played(self, builder: Builder, instrument: Instrument, clip: Clip, place: Place) -> Stage:
        """A clip's notes, played from the session's start on."""
        where: Place = (*place[:2], "instrument")
        notes = [(each.note, each.velocity, self._seconds(each.at), self._seconds(each.length)) for each in clip.notes]
        midi = self._source.input_at((*place, "midi"), clip.midi) if clip.midi else None
        if (instrument.faust is None) == (instrument.vst3 is None):
            self._source.fail(where, "an instrument is either faust or vst3.")
        if instrument.vst3 is not None:
            make, used = builder.plugin(where, "vst3", instrument.vst3, instrument.preset, instrument.parameters)
        elif instrument.parameters or instrument.preset:
            self._source.fail(
                where, "parameters and preset are those of a vst3 instrument. Write numbers into the code."
            )
        else:
            assert instrument.faust is not None
            code, used = builder.faust_code(instrument.faust, (*where, "faust")), [instrument.faust, instrument.voices]

            def make(engine: Any) -> Any:
                return nodes.compiled(engine, "instrument", code, instrument.voices)

        build = nodes.instrument(make, midi, notes)
        builder.check(where, build, 0)
        return builder.graph(where, ["instrument", used, notes, midi and self._source.inputs[midi]], [], build)
