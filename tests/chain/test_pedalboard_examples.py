"""What pedalboard documents, written anew: it runs alike after changing the import alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from stemplug.audio import Audio
from tests.conftest import RATE

IMPORT = "from pedalboard import Pedalboard"
EXAMPLES = {
    "a file in blocks": """
from pedalboard import Pedalboard
from pedalboard import Chorus, Reverb
from pedalboard.io import AudioFile

board = Pedalboard([Chorus(), Reverb(room_size=0.25)])
with AudioFile("song.wav") as f:
    with AudioFile("out.wav", "w", f.samplerate, f.num_channels) as o:
        while f.tell() < f.frames:
            chunk = f.read(f.samplerate)
            effected = board(chunk, f.samplerate, reset=False)
            o.write(effected)
""",
    "a guitar board": """
from pedalboard import Pedalboard
from pedalboard import Chorus, Compressor, Convolution, Gain, LadderFilter, Limiter, Phaser, Reverb
from pedalboard.io import AudioFile

samplerate = 44100.0
with AudioFile("song.wav").resampled_to(samplerate) as f:
    audio = f.read(f.frames)

board = Pedalboard([
    Compressor(threshold_db=-50, ratio=25),
    Gain(gain_db=30),
    Chorus(),
    LadderFilter(mode=LadderFilter.Mode.HPF12, cutoff_hz=900),
    Phaser(),
    Convolution("song.wav", 1.0),
    Reverb(room_size=0.25),
])
board.append(Compressor(threshold_db=-25, ratio=10))
board.append(Gain(gain_db=10))
board.append(Limiter())
board[0].threshold_db = -40
effected = board(audio, samplerate)
with AudioFile("out.wav", "w", samplerate, effected.shape[0]) as f:
    f.write(effected)
""",
    "effects in parallel": """
from pedalboard import Pedalboard
from pedalboard import Compressor, Delay, Distortion, Gain, Mix, PitchShift, Reverb
from pedalboard.io import AudioFile

passthrough = Gain(gain_db=0)
one = Pedalboard([Delay(delay_seconds=0.25, mix=1.0), PitchShift(semitones=7), Gain(gain_db=-3)])
two = Pedalboard([Delay(delay_seconds=0.5, mix=1.0), PitchShift(semitones=12), Gain(gain_db=-6)])
original = Pedalboard([Distortion(), Mix([passthrough, one, two]), Reverb()])
board = Pedalboard([Compressor(), Mix([original, Pedalboard([Gain(-10)])])])
with AudioFile("song.wav") as f:
    audio, rate = f.read(f.frames), f.samplerate
with AudioFile("out.wav", "w", rate, 2) as o:
    o.write(board(audio, rate))
""",
    "a parameter that moves": """
from pedalboard import Pedalboard
from pedalboard import Compressor, LowpassFilter
from pedalboard.io import AudioFile

board = Pedalboard([Compressor(), LowpassFilter()])
with AudioFile("song.wav") as af:
    with AudioFile("out.wav", "w", af.samplerate, af.num_channels) as o:
        step = int(0.01 * af.samplerate)
        for i in range(0, af.frames, step):
            chunk = af.read(step)
            board[1].cutoff_frequency_hz = 1000 + 5 * (i // step)
            o.write(board.process(chunk, af.samplerate, reset=False))
""",
    "lists": """
from pedalboard import Pedalboard
from pedalboard import Gain, Invert, Plugin, Reverb
from pedalboard.io import AudioFile

board = Pedalboard()
board.append(Reverb())
board.insert(0, Gain(-6))
last: Plugin = board[-1]
assert isinstance(last, Reverb) and last in board and len(board) == 2
board[-1] = Invert()
board.remove(board[0])
board.reset()
names = [type(plugin).__name__ for plugin in board]
assert names == ["Invert"] and repr(board).startswith("<")
with AudioFile("song.wav") as f:
    audio, rate = f.read(f.frames), f.samplerate
with AudioFile("out.wav", "w", rate, 2) as o:
    o.write(board.process(audio, sample_rate=rate, buffer_size=512, reset=True))
""",
    "plain arrays": """
import numpy as np
from pedalboard import Pedalboard
from pedalboard import Bitcrush, Clipping, NoiseGate
from pedalboard.io import AudioFile

board = Pedalboard([NoiseGate(threshold_db=-30, ratio=1.5, release_ms=250), Clipping(), Bitcrush()])
interleaved = np.stack([np.sin(np.arange(44100) / 20), np.cos(np.arange(44100) / 30)], axis=1)
effected = board(interleaved, 44100)
assert effected.shape == (44100, 2)
with AudioFile("out.wav", "w", 44100, 2) as o:
    o.write(effected.T)
""",
}


@pytest.fixture
def folder(tmp_path: Path, song: Audio, monkeypatch: pytest.MonkeyPatch) -> Path:
    soundfile.write(tmp_path / "song.wav", song[:, 30_000:120_000].T, RATE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def result(code: str) -> Audio:
    exec(compile(code, "example.py", "exec"), {})
    return soundfile.read("out.wav")[0]


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_give_the_same_audio(folder: Path, name: str) -> None:
    code = EXAMPLES[name]
    expected = result(code)
    found = result(code.replace(IMPORT, "from stemplug import Board as Pedalboard"))
    assert np.abs(expected).max() > 0.1
    np.testing.assert_array_equal(found, expected)


def test_examples_are_typed(folder: Path) -> None:
    paths = []
    for number, code in enumerate(EXAMPLES.values()):
        path = folder / f"example_{number}.py"
        path.write_text(code.replace(IMPORT, "from stemplug import Board as Pedalboard"))
        paths.append(path)
    for number, wrong in enumerate(["Pedalboard(3)", 'Pedalboard([])("x", 44100)', "Pedalboard([]).flush(1)"]):
        path = folder / f"wrong_{number}.py"
        path.write_text(f"from stemplug import Board as Pedalboard\n{wrong}\n")
        paths.append(path)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--ignore-missing-imports", *paths],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert "Found 3 errors in 3 files" in done.stdout, done.stdout
    assert "example_" not in done.stdout, done.stdout
