"""Memory is bounded by the window, not by the song."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.conftest import RATE

# Peak resident memory in MB, after the model was loaded and after a song was split.
CODE = """
import resource, sys
from stemplug import Separator, split
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
separator = Separator(threads=2)
separator.runner.infer_once()
loaded = peak()
split(sys.argv[1], sys.argv[2], separator=separator)
print(loaded, peak())
"""


def memory(folder: Path, minutes: float) -> tuple[float, float]:
    song = folder / f"{minutes}.flac"
    noise = np.random.default_rng(0).normal(0, 0.05, (60 * RATE // 4, 2)).astype(np.float32)
    with soundfile.SoundFile(song, "w", RATE, 2, "PCM_16") as file:
        for _ in range(round(4 * minutes)):
            file.write(noise)
    done = subprocess.run([sys.executable, "-c", CODE, song, folder / song.stem], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded, peak = map(float, done.stdout.split())
    return loaded, peak


def least(folder: Path, minutes: float) -> tuple[float, float]:
    """The lower of two peaks: whether both lanes are at their highest at once is chance, and 100 MB."""
    runs = [folder / f"{minutes}-{number}" for number in range(2)]
    for run in runs:
        run.mkdir()
    return min((memory(run, minutes) for run in runs), key=lambda found: found[1])


def test_a_longer_song_takes_no_more_memory(tmp_path: Path) -> None:
    loaded, short = least(tmp_path, 3)
    _, long = least(tmp_path, 9)
    assert short - loaded < 1000
    assert long - short < 100


SEPARATORS = """
import numpy as np
import resource
from pathlib import Path
from stemplug import Separator
def now(): return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6
def used(model):
    separator = Separator(model, threads=1)
    separator.separate(np.random.default_rng(0).normal(0, 0.1, (2, 60 * 44100)).astype(np.float32), 44100)
    return now()
print(used("spleeter-2stems"), used("stemplug-4s"), now())
"""


def test_networks_share_memory_and_give_it_back() -> None:
    """The one that runs second computes in what the first one took; without the separator it is free again."""
    done = subprocess.run([sys.executable, "-c", SEPARATORS], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    one, two, none = map(float, done.stdout.split())
    print(f"{one:.0f} MB with one network, {two:.0f} MB with two, {none:.0f} MB after")
    assert two - one < 250
    assert none < two / 2


RENDERS = """
import resource, sys
from pathlib import Path
import numpy as np
from stemplug import Board, Separator, StemSplit
from pedalboard import Gain, Reverb
{setup}
def now(): return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6
separator = Separator({model!r}, threads=2)
song = np.random.default_rng(0).normal(0, 0.1, (2, 22050)).astype(np.float32)
{render}
for number in range(1100):
    if number == 100:
        before = now()
    render()
print(now(), now() - before)
"""
BOARD = (
    "",
    """
def render():
    board = Board([StemSplit(separator=separator, vocals=[Reverb()], rest=Gain(1)), Gain(1)])
    board.split(song, 44100)
    board(song, 44100, reset=False)
    board.flush()
""",
)
GRAPH = (
    "import dawdreamer; from stemplug.dawdreamer import SplitGraph",
    """
engine = dawdreamer.RenderEngine(44100, 512)
playback = engine.make_playback_processor("song", song)
master = engine.make_add_processor("master", [1.0, 1.0])
def render():
    graph = SplitGraph(engine)
    graph.add(playback)
    graph.split("split", "song", separator=separator)
    graph.add(master, ["split.vocals", "split.drums"])
    graph.render(0.5)
    graph.stems("split"), graph.get_audio("master")
""",
)


@pytest.mark.parametrize("kind", [BOARD, GRAPH], ids=["Board", "SplitGraph"])
def test_a_thousand_renders_do_not_grow(passthrough_folder: Path, kind: tuple[str, str]) -> None:
    script = RENDERS.format(setup=kind[0], model=str(passthrough_folder), render=kind[1])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    total, grown = map(float, done.stdout.split())
    assert 50 < total < 1000 and grown < 50
