"""``stemplug chain``: a song through a saved board."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from stemplug import Board, Cancelled, Mute, Separator, StemSplit, run_chain
from stemplug.audio import Audio
from stemplug.tracks.wav import WavWriter
from tests.cli.test_bad_files import check_message, limited
from tests.conftest import RATE, Command, files_below, write_passthrough

CHAIN = "chain: [{StemSplit: {model: passthrough, vocals: {Gain: {gain_db: 6}}, rest: Mute}}, {Gain: {gain_db: 0}}]"


@pytest.fixture
def board(tmp_path: Path) -> Path:
    path = tmp_path / "board.yaml"
    path.write_text(CHAIN)
    return path


def read(path: Path) -> Audio:
    return soundfile.read(path, dtype="float32", always_2d=True)[0].T


def test_a_song_goes_through_a_chain(command: Command, board: Path, wav: Path, tmp_path: Path) -> None:
    done = command("chain", board, wav, "-o", tmp_path / "new" / "out.wav", "--stems", tmp_path / "stems")
    assert done.returncode == 0, done.stderr
    paths = [Path(line) for line in done.stdout.splitlines()]
    assert paths == [tmp_path / "new" / "out.wav", tmp_path / "stems" / "vocals.wav", tmp_path / "stems" / "rest.wav"]
    expected = read(wav) * 0.5 * 10 ** (6 / 20)
    assert np.abs(read(paths[0]) - expected).max() < 1e-6
    assert np.abs(read(paths[1]) - expected).max() < 1e-6 and not read(paths[2]).any()
    assert soundfile.info(paths[0]).subtype == "PCM_24"
    report = json.loads((tmp_path / "stems" / "song.stems.json").read_text())
    assert report["chain"][0]["StemSplit"]["rest"] == ["Mute"] and report["song"]["frames"] == RATE


def test_json_and_other_formats(command: Command, board: Path, wav: Path, tmp_path: Path) -> None:
    done = command("chain", board, wav, "-o", "out.flac", "--bit-depth", "16", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["path"] == "out.flac" and soundfile.info(tmp_path / "out.flac").subtype == "PCM_16"


def test_a_song_takes_little_memory_as_it_is_streamed(passthrough: Separator, song: Audio, tmp_path: Path) -> None:
    """The board never gets more than a piece at a time."""
    soundfile.write(tmp_path / "song.wav", np.tile(song, 10).T, RATE, subtype="FLOAT")
    longest = 0

    def watch(audio: Audio, sample_rate: float) -> Audio:
        nonlocal longest
        longest = max(longest, audio.shape[1])
        return audio

    board = Board([watch, StemSplit(separator=passthrough, vocals=Mute())])
    seen: list[float] = []
    run_chain(
        board, tmp_path / "song.wav", tmp_path / "out.wav", progress=lambda fraction, stage: seen.append(fraction)
    )
    assert longest <= 1 << 18 and seen == sorted(seen) and seen[-1] == 1
    assert np.abs(read(tmp_path / "out.wav") - 0.5 * np.tile(song, 10)).max() < 1e-6


def test_samples_beyond_full_scale_are_told(command: Command, wav: Path, tmp_path: Path) -> None:
    (tmp_path / "loud.yaml").write_text("chain: [{Gain: {gain_db: 40}}]")
    done = command("chain", tmp_path / "loud.yaml", wav, "-o", "out.wav")
    assert done.returncode == 0 and "samples lay beyond full scale" in done.stderr and "Limiter" in done.stderr
    done = command("chain", tmp_path / "loud.yaml", wav, "-o", "float.wav", "--bit-depth", "32f")
    assert "beyond" not in done.stderr and np.abs(read(tmp_path / "float.wav")).max() > 1


CASES: dict[str, tuple[list[str], int, str]] = {
    "no chain": (["missing.yaml", "song.wav", "-o", "out.wav"], 3, "missing.yaml: no such file"),
    "no song": (["board.yaml", "missing.wav", "-o", "out.wav"], 3, "missing.wav"),
    "wrong suffix": (["board.yaml", "song.wav", "-o", "out.xyz"], 2, "ends in .wav, .flac, .ogg, .mp3"),
    "no suffix": (["board.yaml", "song.wav", "-o", "out"], 2, "ends in .wav"),
    "wrong depth": (["board.yaml", "song.wav", "-o", "out.wav", "--bit-depth", "12"], 2, "Unknown bit depth '12'"),
    "the song itself": (["board.yaml", "song.wav", "-o", "./song.wav", "--overwrite"], 2, "is the song itself"),
    "exists": (["board.yaml", "song.wav", "-o", "there.wav"], 2, "'there.wav' exists. Use --overwrite"),
    "stems exist": (["board.yaml", "song.wav", "-o", "out.wav", "--stems", "full"], 2, "vocals.wav' exists"),
    "a folder": (["board.yaml", "song.wav", "-o", "folder.wav"], 2, "is a folder"),
    "below a file": (["board.yaml", "song.wav", "-o", "there.wav/out.wav"], 6, "cannot write"),
    "a stem's name": (
        ["board.yaml", "song.wav", "-o", "d/vocals.wav", "--stems", "d"],
        2,
        "the file of a stem as well",
    ),
    "the report's name": (["board.yaml", "song.wav", "-o", "d/rest.wav", "--stems", "./d/"], 2, "the file of a stem"),
    "one path": (
        ["board.yaml", "song.wav", "-o", "a.wav", "--stems", "a.wav"],
        2,
        "to be a file, and 'a.wav' a folder",
    ),
    "stems inside": (
        ["board.yaml", "song.wav", "-o", "a.wav", "--stems", "a.wav/b"],
        2,
        "Choose another for the stems",
    ),
    "stems in a file": (["board.yaml", "song.wav", "-o", "a.wav", "--stems", "there.wav"], 2, "--stems takes a folder"),
    "no split": (["plain.yaml", "song.wav", "-o", "out.wav", "--stems", "stems"], 2, "the board has none in series"),
    "unknown model": (["model.yaml", "song.wav", "-o", "out.wav"], 3, "line 1: .*Unknown model 'nix'"),
    "unknown plugin": (["plugin.yaml", "song.wav", "-o", "out.wav"], 3, "Unknown stage 'Reverv'.*'Reverb'"),
    "no audio": (["board.yaml", "board.yaml", "-o", "out.wav"], 3, "board.yaml"),
    "no output": (["board.yaml", "song.wav"], 2, "--output"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_leaves_nothing(command: Command, board: Path, wav: Path, tmp_path: Path, case: str) -> None:
    (tmp_path / "there.wav").write_text("kept")
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "vocals.wav").write_text("kept")
    (tmp_path / "plain.yaml").write_text("chain: [Gain]")
    (tmp_path / "model.yaml").write_text("chain: [{StemSplit: {model: nix}}]")
    (tmp_path / "plugin.yaml").write_text("chain: [Reverv]")
    before = {path: path.read_bytes() for path in files_below(tmp_path) if path.is_file()}
    arguments, code, reason = CASES[case]
    done = command("chain", *arguments)
    assert done.returncode == code, done.stderr
    assert re.search(reason, done.stderr, re.DOTALL) and "Traceback" not in done.stderr and len(done.stderr) < 1500
    assert {path: path.read_bytes() for path in files_below(tmp_path) if path.is_file()} == before


def test_cancelling_leaves_nothing(passthrough: Separator, wav: Path, tmp_path: Path) -> None:
    cancel = threading.Event()
    cancel.set()
    board = Board([StemSplit(separator=passthrough)])
    before = files_below(tmp_path)
    with pytest.raises(Cancelled):
        run_chain(board, wav, tmp_path / "new" / "out.wav", stems=tmp_path / "stems", cancel=cancel)
    assert files_below(tmp_path) == before
    run_chain(board, wav, tmp_path / "out.wav")
    assert np.abs(read(tmp_path / "out.wav") - read(wav)).max() < 1e-6


@pytest.fixture
def running(board: Path, song: Audio, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """The command at work, with some of its output written already."""
    long = tmp_path / "long.wav"
    with soundfile.SoundFile(long, "w", RATE, 2, "PCM_16") as file:
        for _ in range(400):
            file.write(song.T)
    board.write_text(CHAIN.replace("[{StemSplit", "[Reverb, Reverb, {StemSplit"))
    command = [sys.executable, "-m", "stemplug", "chain", board, long, "-o", "out/mix.wav", "--stems", "out/stems"]
    models = {**os.environ, "STEMPLUG_MODELS": str(_models(tmp_path))}
    process = subprocess.Popen(command, cwd=tmp_path, env=models, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while sum(path.stat().st_size for path in tmp_path.glob("out/**/.stemplug-*/*")) < 1 << 20:
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.02)
    yield process
    process.kill()
    process.wait()


def _models(folder: Path) -> Path:
    write_passthrough(folder / "models" / "passthrough")
    return folder / "models"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_nothing(running: subprocess.Popen[str], tmp_path: Path, number: int, code: int) -> None:
    running.send_signal(number)
    _, told = running.communicate(timeout=60)
    assert running.returncode == code and "nothing half-written was left" in told and "Traceback" not in told
    assert not (tmp_path / "out").exists()


def test_a_signal_while_the_mix_is_written_leaves_nothing(
    passthrough: Separator, wav: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it strikes: folders are removed from the inside out."""

    def interrupt(self: WavWriter, audio: Audio) -> None:
        if audio.any():  # the mix is written first
            raise KeyboardInterrupt

    before = files_below(tmp_path)
    monkeypatch.setattr(WavWriter, "write", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_chain(
            Board([StemSplit(separator=passthrough)]),
            wav,
            tmp_path / "out" / "mix.wav",
            stems=tmp_path / "out" / "stems",
        )
    assert files_below(tmp_path) == before


def test_after_a_kill_the_next_run_clears_up(
    running: subprocess.Popen[str], command: Command, wav: Path, board: Path, tmp_path: Path
) -> None:
    running.kill()
    running.communicate()
    assert not (tmp_path / "out" / "mix.wav").exists()
    wav.rename(tmp_path / "long.wav")
    done = command("chain", board, "long.wav", "-o", "out/mix.wav", "--stems", "out/stems")
    assert done.returncode == 0, done.stderr
    names = {path.name for path in files_below(tmp_path / "out")}
    assert names == {"mix.wav", "stems", "vocals.wav", "rest.wav", "long.stems.json"}


def test_a_full_disk_is_told(board: Path, tmp_path: Path, wav: Path, passthrough_folder: Path) -> None:
    limit = "import resource, signal; resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))"
    before = files_below(tmp_path)
    env = {**os.environ, "STEMPLUG_MODELS": str(passthrough_folder.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    done = limited(limit, "chain", board, wav, "-o", tmp_path / "new" / "out.wav", env=env)
    assert done.returncode == 6
    check_message(done.stderr[done.stderr.index("stemplug: ") :], "cannot write", "file too large")
    assert files_below(tmp_path) == before
