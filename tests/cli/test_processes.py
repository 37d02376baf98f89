"""Signals, kills, closed pipes, rival runs and too little memory: nothing half-written is left."""

from __future__ import annotations

import os
import random
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from stemplug.cli.program import INPUT, INTERRUPTED, OUTPUT, TERMINATED
from tests.audio.test_fuzz import encoded
from tests.cli.test_bad_files import check_message, contents, limited
from tests.conftest import RATE

MODEL = 4  # the exit code
SECONDS = 1200


@pytest.fixture(scope="module")
def long_song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty minutes of quiet noise, which take the default model some ten seconds or more."""
    path = tmp_path_factory.mktemp("long") / "long.wav"
    noise = np.random.default_rng(0).normal(0, 0.01, (RATE * 20, 2)).astype(np.float32)
    with soundfile.SoundFile(path, "w", RATE, 2, "PCM_16") as file:
        for _ in range(SECONDS // 20):
            file.write(noise)
    return path


class Split:
    """``stemplug split`` in the background, in a session of its own."""

    def __init__(self, song: Path, output: Path, *options: object, **process: Any) -> None:
        self.output = output
        command = [sys.executable, "-m", "stemplug", "split", song, "-o", output, *options]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **process}
        self.process = subprocess.Popen(list(map(str, command)), start_new_session=True, **pipes)

    def wait_for_audio(self, size: int = 1 << 20) -> Split:
        """Wait until so many bytes of stems are written."""
        until = time.monotonic() + 60
        while sum(path.stat().st_size for path in self.output.glob(".stemplug-*/*")) < size:
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < until
            time.sleep(0.02)
        return self

    def end(self, timeout: float = 60) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=timeout)
        return self.process.returncode, out or "", err or ""


@pytest.fixture
def start() -> Iterator[Any]:
    """Start a `Split`; whatever still runs at the end of the test is killed."""
    started: list[Split] = []

    def begin(*arguments: Any, **process: Any) -> Split:
        started.append(Split(*arguments, **process))
        return started[-1]

    yield begin
    for split in started:
        split.process.kill()
        split.process.communicate()


def song_of(seconds: int, folder: Path) -> Path:
    path = folder / "song.wav"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.01, (seconds * RATE, 2)), RATE)
    return path


@pytest.mark.parametrize(
    ("number", "code", "mention", "format"),
    [(signal.SIGINT, INTERRUPTED, "cancelled", "wav"), (signal.SIGTERM, TERMINATED, "SIGTERM", "flac")],
)
def test_a_signal_ends_a_split_soon_and_leaves_nothing(
    tmp_path: Path, long_song: Path, start: Any, number: int, code: int, mention: str, format: str
) -> None:
    split = start(long_song, tmp_path / "out", "--format", format).wait_for_audio()
    split.process.send_signal(number)
    begin = time.monotonic()
    found, out, err = split.end()
    assert (found, out) == (code, "")
    assert time.monotonic() - begin < 5
    assert "nothing half-written was left" in check_message(err, mention)
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_at_any_moment_leaves_nothing(
    tmp_path: Path, start: Any, number: int, passthrough_folder: Path
) -> None:
    """From the first import to the last rename. Before Python itself has started, the signal's own exit is right."""
    song, chance = song_of(20, tmp_path), random.Random(int(number))
    for _ in range(6):
        output = tmp_path / "out"
        split = start(song, output, "--model", passthrough_folder)
        time.sleep(chance.uniform(0.05, 0.7))
        split.process.send_signal(number)
        code, out, err = split.end()
        assert code in (0, 128 + number, -number), err
        assert code < 0 or "Traceback" not in err, err
        if code == 0 or out:
            assert len(list((output / "song").iterdir())) == 4
            assert not list(output.glob(".*"))
            for path in (output / "song").iterdir():
                path.unlink()
            (output / "song").rmdir()
            output.rmdir()
        else:
            assert contents(tmp_path).keys() == {str(song)}, err


LATE = """
import atexit, os, sys
from stemplug.cli import main
atexit.register(os.kill, os.getpid(), int(sys.argv.pop()))
main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_after_all_is_done_changes_nothing(number: int) -> None:
    """While Python ends there is nothing left to tidy up, and nobody to catch what a signal would raise."""
    command = [sys.executable, "-c", LATE, "--version", str(int(number))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("stemplug ")


def test_a_second_signal_does_not_spoil_the_first(tmp_path: Path, long_song: Path, start: Any) -> None:
    split = start(long_song, tmp_path / "out").wait_for_audio()
    for _ in range(5):
        split.process.send_signal(signal.SIGINT)
        time.sleep(0.01)
    code, _, err = split.end()
    assert code == INTERRUPTED
    check_message(err, "cancelled")
    assert contents(tmp_path) == {}


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path, start: Any, passthrough_folder: Path) -> None:
    """As with ``stemplug split ... | head -0``: all stems are written, in silence."""
    song = song_of(1, tmp_path)
    split = start(song, tmp_path / "out", "--model", passthrough_folder)
    split.process.stdout.close()
    err = split.process.stderr.read()
    assert split.process.wait(30) == OUTPUT
    assert "Traceback" not in err and "internal error" not in err and "Broken" not in err
    assert len(list((tmp_path / "out" / "song").iterdir())) == 4


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&-", ">/dev/full"])
def test_closed_streams_do_not_matter_to_the_stems(tmp_path: Path, passthrough_folder: Path, closed: str) -> None:
    song = song_of(1, tmp_path)
    arguments = [sys.executable, "-m", "stemplug", "split", song, "-o", tmp_path / "out", "--model", passthrough_folder]
    line = f"exec {shlex.join(map(str, arguments))} {closed}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60)
    assert done.returncode == (OUTPUT if "full" in closed else 0), done.stderr
    assert "Traceback" not in done.stderr and "internal error" not in done.stderr, done.stderr
    assert len(done.stdout.splitlines()) == (0 if ">&-" in closed.split() or "full" in closed else 3)
    assert len(list((tmp_path / "out" / "song").iterdir())) == 4
    assert not list((tmp_path / "out").glob(".*"))


def test_what_libraries_print_does_not_get_into_the_stems(tmp_path: Path, passthrough_folder: Path) -> None:
    """With stderr closed, the next file to be opened gets its number, to which the MP3 library writes warnings."""
    (tmp_path / "song.mp3").write_bytes(encoded("mp3") + bytes(4000))
    line = f"exec {sys.executable} -m stemplug split song.mp3 -o out --model {passthrough_folder} --overwrite"
    found = []
    for closed in ("", "2>&-", "<&- >&- 2>&-"):
        subprocess.run(["bash", "-c", f"{line} {closed}"], cwd=tmp_path, capture_output=True, timeout=60)
        tracks = sorted((tmp_path / "out" / "song").glob("*.wav"))
        found.append([soundfile.read(track)[0].tobytes() for track in tracks])
    assert len(found[0]) == 3 and found[0] == found[1] == found[2]


def test_after_a_kill_at_any_moment_the_next_run_succeeds(tmp_path: Path, start: Any, passthrough_folder: Path) -> None:
    song, chance = song_of(20, tmp_path), random.Random(0)
    output = tmp_path / "out"
    output.mkdir()
    (output / "mine.txt").write_text("kept")
    for _ in range(2):
        options = ["--model", passthrough_folder, "--overwrite"]
        for _ in range(4):
            split = start(song, output, *options)
            time.sleep(chance.uniform(0.2, 0.7))
            split.process.send_signal(signal.SIGKILL)
            split.end()
        code, out, err = start(song, output, *options).end()
        assert code == 0, err
        assert len(out.splitlines()) == 3
        assert sorted(path.name for path in output.iterdir()) == ["mine.txt", "song"]
        assert len(list((output / "song").iterdir())) == 4
        assert all(soundfile.info(line).frames == 20 * RATE for line in out.splitlines())


def test_two_runs_on_one_output_do_not_mix(tmp_path: Path, start: Any, passthrough_folder: Path) -> None:
    song = song_of(150, tmp_path)
    first = start(song, tmp_path / "out", "--model", passthrough_folder, "--format", "flac").wait_for_audio(1)
    second = start(song, tmp_path / "out", "--model", passthrough_folder, "--format", "flac")
    code, out, err = second.end()
    assert (code, out) == (OUTPUT, "")
    check_message(err, "another run is writing", str(tmp_path / "out" / "song"), "Wait for it")
    code, out, err = first.end()
    assert code == 0 and len(out.splitlines()) == 3, err
    assert len(list((tmp_path / "out" / "song").iterdir())) == 4
    assert not list((tmp_path / "out").glob(".*"))


def test_two_runs_on_two_songs_may_share_an_output(tmp_path: Path, start: Any, passthrough_folder: Path) -> None:
    songs = [song_of(5, tmp_path).rename(tmp_path / f"{name}.wav") for name in "abcd"]
    runs = [start(song, tmp_path / "new" / "out", "--model", passthrough_folder) for song in songs]
    for run in runs:
        code, _, err = run.end()
        assert code == 0, err
    assert sorted(path.name for path in (tmp_path / "new" / "out").iterdir()) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("megabytes", [300, 400, 650, 800, 1000])
def test_too_little_memory_is_told(tmp_path: Path, megabytes: int) -> None:
    """From what does not suffice to load the model to what may suffice for all, which depends on the machine."""
    song = song_of(20, tmp_path)
    before = contents(tmp_path)
    limit = f"import resource\nresource.setrlimit(resource.RLIMIT_AS, ({megabytes << 20},) * 2)\n"
    env = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    done = limited(limit, "split", song, "-o", tmp_path / "out", "--threads", "2", env=env)
    if done.returncode == 0:
        assert len(done.stdout.splitlines()) == 4
        return
    assert done.returncode in (INPUT, MODEL), (done.returncode, done.stderr)
    check_message(done.stderr, "memory")
    assert contents(tmp_path) == before
