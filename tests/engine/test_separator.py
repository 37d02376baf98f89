"""A Separator beyond its contracts: files piece by piece, failures, shared models."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import stemplug
from stemplug import Cancelled, ModelError, OptionError, Separator
from stemplug.audio import Audio
from stemplug.engine.separator import FileSeparation
from tests.conftest import RATE, write_passthrough


@pytest.fixture
def pieces(passthrough: Separator, wav: Path) -> Iterator[FileSeparation]:
    with passthrough.separate_file(wav) as opened:
        yield opened


def reading() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "stemplug-read"]


def test_pieces_join_to_the_whole(passthrough: Separator, wav: Path) -> None:
    whole = passthrough.separate_file(wav).read()
    with passthrough.separate_file(wav) as pieces:
        parts = list(pieces)
    assert len(parts) > 3 and whole.frames == RATE
    assert np.array_equal(np.concatenate([part["drums"] for part in parts], axis=1), whole["drums"])


def test_stopping_half_way_ends_the_thread_that_decodes(pieces: FileSeparation) -> None:
    for _ in pieces:
        break
    pieces.close()
    assert not reading()


def test_a_kept_exception_keeps_no_thread(passthrough: Separator, wav: Path) -> None:
    cancel = threading.Event()
    with pytest.raises(Cancelled) as caught, passthrough.separate_file(wav, cancel=cancel) as pieces:
        for _ in pieces:
            cancel.set()
    assert caught.value and not reading()


def test_a_song_is_read_once(pieces: FileSeparation) -> None:
    list(pieces)
    for again in (lambda: list(pieces), pieces.sha256):
        with pytest.raises(OptionError, match="open it again"):
            again()


def test_closing_under_an_iterator_is_told(pieces: FileSeparation) -> None:
    iterator = iter(pieces)
    next(iterator)
    pieces.close()
    with pytest.raises(OptionError, match="closed while it was read"):
        next(iterator)


def test_a_stream_that_lost_a_window_gives_no_more(
    passthrough_folder: Path, song: Audio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What followed would be out of place, and nothing would show it."""
    separator = Separator(passthrough_folder, threads=1)
    run, calls = type(separator.runner).__call__, []

    def failing(self: object, *arguments: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise ModelError("out of memory")
        return run(self, *arguments)

    monkeypatch.setattr(type(separator.runner), "__call__", failing)
    stream = separator.stream(RATE)
    stream.push(song[:, :1000])
    with pytest.raises(ModelError, match="out of memory"):
        stream.push(np.tile(song, 1 + 3 * separator.runner.geometry.window // song.shape[1]))
    for more in (lambda: stream.push(song), stream.flush):
        with pytest.raises(OptionError, match="has failed"):
            more()


def test_any_buffer_may_be_reused(passthrough: Separator, song: Audio) -> None:
    buffer = np.empty((2, 4096), np.float32)
    stream, pieces = passthrough.stream(RATE), []
    for start in range(0, 20 * 4096, 4096):
        buffer[:] = song[:, start : start + 4096]
        pieces.append(stream.push(memoryview(buffer))["vocals"])
    pieces.append(stream.flush()["vocals"])
    assert np.abs(np.concatenate(pieces, axis=1) - 0.5 * song[:, : 20 * 4096]).max() < 1e-6


def test_separate_takes_a_model_by_name_or_folder(tmp_path: Path, song: Audio, monkeypatch: pytest.MonkeyPatch) -> None:
    write_passthrough(tmp_path / "passthrough")
    monkeypatch.chdir(tmp_path)
    for model in (Path("passthrough"), tmp_path / "passthrough", str(tmp_path / "passthrough")):
        assert "drums" in stemplug.separate(song[:, :999], RATE, model=model)


@pytest.mark.parametrize(("rate", "channels"), [(RATE, 1), (RATE, 2), (22050, 1)])
@pytest.mark.parametrize("song_channels", [1, 2])
def test_songs_and_models_may_differ_in_rate_and_channels(
    tmp_path: Path, song: Audio, rate: int, channels: int, song_channels: int
) -> None:
    separator = Separator(write_passthrough(tmp_path / "model", rate, channels), threads=1)
    mixture = song[:song_channels, 50_000:90_000]
    stems = separator.separate(mixture, RATE)
    assert np.abs(stems.sum() - mixture).max() <= 1e-6
    assert np.abs(stems["vocals"] - 0.5 * mixture).max() < (1e-6 if rate == RATE else 0.2)


@pytest.mark.parametrize(("model", "bounds"), [("spleeter-2stems", (80, 120, 247)), ("stemplug-live", (27, 27, 62))])
def test_live_is_early_and_says_how_early(model: str, bounds: tuple[int, ...]) -> None:
    """Bounds of the design in milliseconds, at the rates of hosts; the plugin adds its own."""
    latencies = {name: Separator(model, "live", latency=name) for name in ("low", "balanced", "high")}
    for rate in (44100, 48000, 96000):
        milliseconds = [1000 * each.stream(rate).latency_samples / rate for each in latencies.values()]
        assert milliseconds == sorted(milliseconds)
        assert all(np.array(milliseconds) <= bounds)
    assert Separator(model, "live").latency == "balanced" and latencies["low"].threads == 1


def test_latencies_that_are_not_there_are_told(passthrough_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        OptionError, match="latency 'low' with profile 'offline': only the profile 'live' has latencies"
    ):
        Separator(passthrough_folder, latency="low")
    with pytest.raises(
        ModelError, match="passthrough: Unknown latency 'balance'. Choices: balanced, low. Did you mean"
    ):
        Separator(passthrough_folder, "live", latency="balance")
    manifest = (passthrough_folder / "manifest.toml").read_text()
    (tmp_path / "manifest.toml").write_text(manifest[: manifest.index("[profiles.live")])
    with pytest.raises(ModelError, match="Unknown profile 'live'. Choices: offline"):
        Separator(tmp_path, "live")
    (tmp_path / "manifest.toml").write_text(manifest[: manifest.index("[profiles.live")] + "[profiles.live]\nhop = 3\n")
    with pytest.raises(ModelError, match="profiles: 'live' is no table of latencies"):
        Separator(tmp_path, "live")
