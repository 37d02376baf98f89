"""What stages do: clips, instruments, effects, splits, faders, sums; all but clips and pedalboard on a `SplitGraph`.

A stage has an engine of its own: DawDreamer 0.9 compiles no Faust after an engine's first render. Between stages sound
is stereo, float32, aligned to the sample and of the session's length.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stemplug.audio import Audio, AudioReader, Resampler
from stemplug.errors import OptionError, SessionError, unknown

if TYPE_CHECKING:
    from stemplug.dawdreamer import SplitGraph

BLOCK = 512
CHANNELS = 2
PRELUDE_LINES = 3
"""Lines that DawDreamer puts before Faust code."""

Build = Callable[[Any, "SplitGraph", list[str]], str]
"""Adds to an engine and its graph what is heard behind the named inputs, and returns the name of the result."""


@dataclass(frozen=True)
class Timebase:
    """What all stages share: Hz, the session's length, quarter notes a minute."""

    sample_rate: int
    frames: int
    tempo: float


def _dawdreamer() -> Any:
    try:
        import dawdreamer
    except ImportError:
        raise SessionError("sessions need DawDreamer. Install it: pip install 'stemplug[session]'") from None
    return dawdreamer


def engine_and_graph(time: Timebase) -> tuple[Any, SplitGraph]:
    """A fresh engine; raises `SessionError` where DawDreamer is missing."""
    engine = _dawdreamer().RenderEngine(time.sample_rate, BLOCK)
    from stemplug.dawdreamer import SplitGraph

    engine.set_bpm(time.tempo)
    return engine, SplitGraph(engine)


def in_graph(time: Timebase, inputs: Sequence[Audio], build: Build) -> Audio:
    """Render what ``build`` adds to a graph that plays ``inputs``; mono becomes stereo."""
    engine, graph = engine_and_graph(time)
    names = [f"input {number}" for number in range(len(inputs))]
    for name, audio in zip(names, inputs, strict=True):
        graph.add(engine.make_playback_processor(name, np.array(audio, np.float32)))
    result = build(engine, graph, names)
    graph.render(time.frames / time.sample_rate)
    audio = graph.get_audio(result)
    if len(audio) > CHANNELS:
        raise SessionError(f"it gives {len(audio)} channels; expected 1 or 2.")
    return np.repeat(audio, CHANNELS, axis=0) if len(audio) == 1 else audio


def clip(path: Path, time: Timebase, *, start: float, seconds: float | None) -> Audio:
    """A part of a file at the session's rate, stereo, as long as it is and at most as long as the session."""
    end = None if seconds is None else start + seconds
    with AudioReader(path, start or None, end) as reader:
        resampler = Resampler(reader.info.sample_rate, time.sample_rate, reader.info.channels)
        pieces = [resampler.push(block) for block in reader.blocks()]
        pieces.append(resampler.push(np.zeros((reader.info.channels, 0), np.float32), last=True))
    audio = np.concatenate(pieces, axis=1)
    return np.repeat(audio, CHANNELS, axis=0) if len(audio) == 1 else audio


def placed(
    audio: Audio, time: Timebase, *, at: float, length: float | None, gain_db: float, fade_in: float, fade_out: float
) -> Audio:
    """``audio`` in a session of silence, from ``at`` seconds on, at most ``length`` seconds, with straight fades."""
    begin = round(at * time.sample_rate)
    room = max(0, time.frames - begin)
    audio = audio[:, : room if length is None else min(room, round(length * time.sample_rate))]
    gain = np.full(audio.shape[1], 10 ** (gain_db / 20), np.float32)
    for seconds, part in ((fade_in, gain), (fade_out, gain[::-1])):
        frames = min(len(part), round(seconds * time.sample_rate))
        part[:frames] *= np.arange(frames, dtype=np.float32) / max(1, frames)
    result = np.zeros((CHANNELS, time.frames), np.float32)
    result[:, begin : begin + audio.shape[1]] = audio * gain
    return result


def silence(time: Timebase) -> Audio:
    """Nothing, as long as the session."""
    return np.zeros((CHANNELS, time.frames), np.float32)


def add(gains_db: Sequence[float]) -> Build:
    """Sum the inputs, each with its gain."""
    gains = [10 ** (gain / 20) for gain in gains_db]

    def build(engine: Any, graph: SplitGraph, names: list[str]) -> str:
        graph.add(engine.make_add_processor("sum", gains), names)
        return "sum"

    return build


Curve = Sequence[tuple[float, float]]
"""Seconds and value; straight lines between, the first and last value before and after."""


def fader(gain_db: Curve, pan: Curve, time: Timebase) -> Build:
    """Gain and balance: the side that is turned away from is turned down, the other stays."""

    def curve(points: Curve) -> Any:
        at, values = zip(*points, strict=True)
        return np.interp(np.arange(time.frames) / time.sample_rate, at, values)

    def build(engine: Any, graph: SplitGraph, names: list[str]) -> str:
        gain, balance = 10 ** (curve(gain_db) / 20), curve(pan)
        sides = [gain * np.clip(1 - balance, 0, 1), gain * np.clip(1 + balance, 0, 1)]
        graph.add(engine.make_playback_processor("curve", np.array(sides, np.float32)))
        graph.add(compiled(engine, "fader", "process(l, r, a, b) = l * a, r * b;"), [*names, "curve"])
        return "fader"

    return build


def separated(time: Timebase, audio: Audio, model: str) -> Audio:
    """The stems of a split, one under the other, in the model's order."""
    engine, graph = engine_and_graph(time)
    graph.add(engine.make_playback_processor("input", np.array(audio, np.float32)))
    graph.split("split", "input", model=model)
    graph.render(time.frames / time.sample_rate)
    return np.concatenate(list(graph.stems("split").values()))


def compiled(engine: Any, name: str, code: str, voices: int = 0) -> Any:
    """A Faust processor; raises `OptionError` with the compiler's message."""
    processor = engine.make_faust_processor(name)
    if voices:
        processor.num_voices = voices
    processor.set_dsp_string(code)
    try:
        processor.compile()
    except RuntimeError as error:
        raise _refused(str(error)) from None
    return processor


def _refused(fault: str) -> OptionError:
    """What the compiler said, in a line."""
    text = re.sub(r"^.*?dawdreamer:(\d+) : ERROR : ", _faust_line, fault.strip(), flags=re.DOTALL)
    return OptionError(f"Faust: {text.splitlines()[0].strip(' .')}. Correct the code.")


def _faust_line(match: re.Match[str]) -> str:
    return f"line {max(1, int(match[1]) - PRELUDE_LINES)} of the code: "


def check_faust(code: str) -> None:
    """Raise `OptionError` for code that reaches out of Faust (other files, functions of the process), or kills it."""
    found = re.search(r"\b(ffunction|fvariable|fconstant|soundfile|component|library)\b", code)
    if found:
        raise OptionError(f"Faust: '{found[1]}' reaches files or native code; --trust allows it.")
    known = {path.name for path in (Path(_dawdreamer().__file__).parent / "faustlibraries").glob("*.lib")}
    for name in filter(os.path.lexists, sorted(known)):  # Faust would take it for its own
        raise OptionError(f"Faust: a file '{name}' lies in the working folder. Run StemPlug from another folder.")
    for imported in re.finditer(r"\bimport\b\s*(?:\(\s*\"([^\"]*)\"\s*\))?", code):
        if imported[1] not in known:
            raise OptionError(f"Faust: {unknown('library', imported[1] or imported[0], known)} --trust allows others.")
    fault = _fault(code)
    if fault is None:
        reason = f"the code crashes the compiler, or keeps it busy for more than {TRIAL_SECONDS} s"
        raise OptionError(f"Faust: {reason}. Make it smaller; --trust compiles it nevertheless.")
    if fault:
        raise _refused(fault)


TRIAL_SECONDS = 20
TRIAL = """
import contextlib, sys
with contextlib.suppress(ImportError, ValueError, OSError):
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
import dawdreamer
engine = dawdreamer.RenderEngine(44100, 512)  # it must outlive its processors
processor = engine.make_faust_processor("trial")
processor.set_dsp_string(sys.stdin.read())
try:
    processor.compile()
except RuntimeError as error:
    print(error)
"""


@lru_cache(maxsize=256)
def _fault(code: str) -> str | None:
    """What the compiler says against the code, tried in a process of its own: in ours it cannot be interrupted.

    None if it crashes, takes too long, or needs more than 4 GB.
    """
    try:
        trial = subprocess.run(
            [sys.executable, "-P", "-c", TRIAL],
            input=code.encode(),
            capture_output=True,
            timeout=TRIAL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None
    return trial.stdout.decode(errors="replace") if trial.returncode == 0 else None


def faust(code: str, side_chain: bool) -> Build:
    """An effect in Faust: two inputs, or with a side chain four; two outputs."""

    def build(engine: Any, graph: SplitGraph, names: list[str]) -> str:
        effect = compiled(engine, "effect", code)
        channels = effect.get_num_input_channels(), effect.get_num_output_channels()
        wanted = (2 * CHANNELS if side_chain else CHANNELS), CHANNELS
        if channels != wanted:
            raise OptionError(
                f"Faust: the code has {channels[0]} inputs and {channels[1]} outputs; expected {wanted[0]} and "
                f"{wanted[1]}{', the last two inputs for the side chain' if side_chain else ''}."
            )
        graph.add(effect, names)
        return "effect"

    return build


NoteTimes = Sequence[tuple[int, int, float, float]]
"""MIDI note, velocity, start and length in seconds."""


def instrument(make: Callable[[Any], Any], midi: Path | None, notes: NoteTimes) -> Build:
    """An instrument that plays a MIDI file and notes."""

    def build(engine: Any, graph: SplitGraph, names: list[str]) -> str:
        player = make(engine)
        if midi and not (player.load_midi(str(midi)) and player.n_midi_events):
            raise OptionError(f"'{midi.name}' is no MIDI file, or has no notes.")
        for note, velocity, at, length in notes:
            player.add_midi_note(note, velocity, at, length)
        graph.add(player, partial_inputs=True)
        return str(player.get_name())

    return build


def plugin(engine: Any, path: Path, preset: Path | None, parameters: Mapping[str, float]) -> Any:
    """A VST3 plugin; raises `OptionError` for what it does not know."""
    try:
        processor = engine.make_plugin_processor("plugin", str(path))
    except RuntimeError as error:
        raise OptionError(f"'{path.name}' cannot be loaded ({str(error).splitlines()[0].strip(' .')}).") from None
    if preset and not processor.load_vst3_preset(str(preset)):
        raise OptionError(f"'{preset.name}' is no preset of this plugin.")
    known = {each["name"]: each["index"] for each in processor.get_parameters_description()}
    for name, value in parameters.items():
        if name not in known:
            raise OptionError(unknown("parameter", name, known))
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise OptionError(f"parameter '{name}' {value!r}; expected a number from 0 to 1.")
        processor.set_parameter(known[name], float(value))
    return processor


def effect(make: Callable[[Any], Any]) -> Build:
    """What ``make`` makes, as an effect."""

    def build(engine: Any, graph: SplitGraph, names: list[str]) -> str:
        processor = make(engine)
        graph.add(processor, names)
        return str(processor.get_name())

    return build
