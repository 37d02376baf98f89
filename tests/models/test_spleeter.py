"""The Spleeter runner: what the network sees, and what becomes of sound that it does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stemplug import Separator
from stemplug.audio import Audio
from stemplug.engine import installed_models
from stemplug.models.masks import Spectrum
from stemplug.models.spleeter import extend_mask
from tests.conftest import RATE


@pytest.fixture
def seen(spleeter: Separator, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, tuple[bool, bool]]]:
    """Frames that the network was run on, and which sides were context."""
    calls = []
    run = type(spleeter.runner).network

    def network(self: object, magnitude: Audio, spectrum: Spectrum, context: tuple[bool, bool], *rest: object) -> Audio:
        calls.append((magnitude.shape[1], context))
        return run(self, magnitude, spectrum, context, *rest)

    monkeypatch.setattr(type(spleeter.runner), "network", network)
    return calls


def test_silence_is_not_inferred(spleeter: Separator, seen: list[object]) -> None:
    spleeter.separate(np.zeros((2, 3 * RATE), np.float32), RATE)
    assert not seen


def test_a_short_song_is_inferred_without_the_silence_around_it(
    spleeter: Separator, seen: list[object], song: Audio
) -> None:
    spleeter.separate(song[:, 60_000 : 60_000 + 2 * RATE], RATE)
    assert seen == [(128, (False, False))]  # 2 s are 87 frames, the network wants a multiple of 64


def test_within_a_long_song_both_sides_are_context(spleeter: Separator, seen: list[object], song: Audio) -> None:
    hop = spleeter.runner.geometry.hop
    spleeter.separate(np.tile(song[:, 30_000:], 40)[:, : 4 * hop], RATE)
    assert sorted(seen)[-1] == (spleeter.manifest.profiles["offline"]["frames"], (True, True))
    assert sum(context == (False, True) for _, context in seen) == 1  # the start


@pytest.mark.parametrize("strides", [34, 40])
def test_what_follows_a_long_pause_comes_out_as_if_it_stood_alone(
    spleeter: Separator, song: Audio, strides: int
) -> None:
    """Windows that begin or end in silence are shortened: what sounds must still come out at its place."""
    stride = 64 * 1024  # so that the pause does not move the song on the grid; it outlasts a window and its context
    part = song[:, 60_000 : 60_000 + 2 * stride]
    mixture = np.concatenate([part, np.zeros((2, strides * stride), np.float32), part], axis=1)
    alone, stems = spleeter.separate(part, RATE), spleeter.separate(mixture, RATE)
    for name, stem in alone.items():
        assert np.abs(stems[name][:, : part.shape[1]] - stem).max() <= 1e-6
        assert np.abs(stems[name][:, -part.shape[1] :] - stem).max() <= 1e-6


@pytest.fixture(scope="module", params=["low", "balanced", "high"])
def live(request: pytest.FixtureRequest) -> Separator:
    return Separator("spleeter-2stems", "live", latency=request.param)


def test_live_what_masks_do_not_need_is_left_out(live: Separator, spleeter: Separator, song: Audio) -> None:
    """Of the decoder, with other constants in the graph: the masks of the newest frames are bit for bit the same."""
    profile = live.manifest.profiles["live"][live.latency]
    used = profile["hop"] + profile["right"] + profile["guessed"]
    noise = np.random.default_rng(0).normal(0, 9, (2, 64, profile["bins"])).astype(np.float32)
    whole = spleeter.runner.network(np.abs(noise), noise, (False, False))
    newest = live.runner.network(np.abs(noise), noise, (True, False))
    assert used <= newest.shape[2] <= used + 8
    assert np.array_equal(newest[:, :, -used:], whole[:, :, -used:])


def test_live_what_is_not_masked_comes_out_as_it_was(
    live: Separator, song: Audio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though frames that would reach beyond a window are missing."""
    run = type(live.runner).network

    def network(self: object, magnitude: Audio, spectrum: Spectrum, context: tuple[bool, bool]) -> Audio:
        return np.ones_like(run(self, magnitude, spectrum, context))

    monkeypatch.setattr(type(live.runner), "network", network)
    monkeypatch.setattr("stemplug.models.spleeter.extend_mask", lambda masks, bins: np.ones((*masks.shape[:-1], bins)))
    assert np.abs(live.separate(song, RATE)["vocals"] - song).max() < 1e-6


def test_live_stems_lie_where_they_do_offline(live: Separator, spleeter: Separator, song: Audio) -> None:
    vocals, offline = live.separate(song, RATE)["vocals"], spleeter.separate(song, RATE)["vocals"]
    best = max(range(-3, 4), key=lambda lag: float(np.sum(np.roll(vocals, lag, axis=1) * offline)))
    assert best == 0 and np.linalg.norm(vocals - offline) < 0.6 * np.linalg.norm(offline)


def test_the_mask_goes_on_above_the_networks_band() -> None:
    masks = np.zeros((1, 3, 1024), np.float32)
    masks[:, 1, 557:] = 0.8
    extended = extend_mask(masks, 2049)
    assert extended.shape == (1, 3, 2049) and np.array_equal(extended[..., :1024], masks)
    assert not extended[:, [0, 2], 1024:].any()
    assert extended[0, 1, 1024] == pytest.approx(0.8) and extended[0, 1, -1] == pytest.approx(0.4)
    assert (np.diff(extended[0, 1, 1024:]) < 0).all()


def test_vocals_reach_above_11_khz(spleeter: Separator, song: Audio) -> None:
    def high(audio: Audio) -> float:
        spectrum = np.abs(np.fft.rfft(audio[0]))
        return float(np.sum(spectrum[len(spectrum) * 11 // 22 :] ** 2))

    stems = spleeter.separate(song, RATE)
    assert 1e-4 < high(stems["vocals"]) / high(song) < 1


def test_a_sound_in_the_last_frames_of_a_window_is_no_special_case(spleeter: Separator, tmp_path: Path) -> None:
    """With a context that is a multiple of the stride, all but the last inner frame can be silence."""
    folder = tmp_path / "spleeter-2stems"
    folder.mkdir()
    source = installed_models()[0].path
    manifest = (source / "manifest.toml").read_text()
    (folder / "manifest.toml").write_text(manifest.replace("right = 190", "right = 192"))
    (folder / "model.onnx").write_bytes((source / "model.onnx").read_bytes())
    separator = Separator(folder, threads=2)
    hop = separator.runner.geometry.hop
    for offset in range(-4096, 4096, 512):
        mixture = np.zeros((2, hop + 3 * RATE), np.float32)
        mixture[:, hop + offset :] = np.sin(np.arange(mixture.shape[1] - hop - offset) * 0.05) * 0.5
        stems = separator.separate(mixture, RATE)
        assert np.abs(stems.sum() - mixture).max() <= 1e-6
