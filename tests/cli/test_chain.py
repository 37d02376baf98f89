"""``stemplug chain``: a song through a saved board."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from stemplug import Board, Cancelled, Mute, Separator, StemSplit, run_chain
from stemplug.audio import Audio
from tests.conftest import RATE, Command, files_below

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
    "no split": (["plain.yaml", "song.wav", "-o", "out.wav", "--stems", "stems"], 2, "no StemSplits"),
    "unknown model": (["model.yaml", "song.wav", "-o", "out.wav"], 3, "line 1: .*Unknown model 'nix'"),
    "unknown plugin": (["plugin.yaml", "song.wav", "-o", "out.wav"], 3, "Unknown stage 'Reverv'.*'Reverb'"),
    "no audio": (["board.yaml", "board.yaml", "-o", "out.wav"], 3, "board.yaml"),
    "no output": (["board.yaml", "song.wav"], 2, "--output"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_leaves_nothing(command: Command, board: Path, wav: Path, tmp_path: Path, case: str) -> None:
    import re

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
