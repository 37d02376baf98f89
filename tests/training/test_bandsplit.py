"""Clips of what the band-split network hears, and runs on them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: the extra [train]")
pytest.importorskip("onnx", reason="needs onnx: the extra [train]")
pytest.importorskip("matplotlib", reason="needs matplotlib: the extra [train]")
import bandsplit  # noqa: E402
import network  # noqa: E402
import train  # noqa: E402
import validate  # noqa: E402
from network import EDGES, LOW, SIZES, BandSplit, Unet, banded  # noqa: E402

from tests.conftest import RATE  # noqa: E402
from tests.training.conftest import WriteSong  # noqa: E402

Options = Callable[..., argparse.Namespace]


@pytest.fixture
def options(small_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Options]:
    """What the command line gives, for a small run on clips of 64 frames."""
    for name, value in {"FRAMES": 64, "FILE": 2, "VOICES": 1, "SECONDS": 2 * 64 * train.HOP / 44100}.items():
        monkeypatch.setattr(bandsplit, name, value)

    def make(run: str, **changes: object) -> argparse.Namespace:
        values = {"steps": 4, "minutes": np.inf, "batch": 2, "rate": 1e-3, "weight_decay": 1e-2, "warm_up": 2}
        values |= {"decay": 0.9, "every": 2, "validation": 2, "device": "cpu", "seed": 3, "hours": 0.002, "jobs": 1}
        return argparse.Namespace(library=small_library, run=tmp_path / run, **{**values, **changes})

    yield make
    bandsplit.mixer_of.cache_clear()


def prepare(args: argparse.Namespace) -> None:
    """As `bandsplit.prepare`, in this process."""
    (args.run / "clips").mkdir(parents=True, exist_ok=True)
    for split, count in {"valid": 1, "train": 2}.items():
        for number in range(count):
            bandsplit.write_clips(args.library, split, args.seed, args.run / "clips", number)


def heard(frames: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise, as a network hears it: the spectrum below, and how loud it is above."""
    return torch.randn(1, 2, frames, LOW, dtype=torch.complex64), torch.rand(1, 2, frames, len(EDGES) - 1)


def test_bands_are_root_mean_squares_from_the_low_bins_up() -> None:
    magnitude = torch.zeros(3, 1024)
    magnitude[:, EDGES[5] : EDGES[6]] = 2
    found = banded(magnitude)
    assert found.shape == (3, len(EDGES) - 1) and EDGES[0] == LOW == sum(SIZES) and EDGES[-1] == 1024
    assert torch.allclose(found[:, 5], torch.tensor(2.0)) and found.sum() == pytest.approx(6)


def test_masks_sum_to_one() -> None:
    torch.manual_seed(0)
    found = BandSplit(3, 16).eval()(*heard(20))
    assert found.shape == (1, 3, 2, 20, LOW) and found.std() > 0.01
    assert torch.allclose(found.sum(dim=1), torch.ones(1, 2, 20, LOW))


def test_it_hears_no_further_than_its_reach() -> None:
    torch.manual_seed(0)
    made = BandSplit(3, 16).eval()
    low, above = heard(2 * network.REACH + 20)
    before = made(low, above)
    low[:, :, :2], above[..., :2, :] = 0, 9  # a frame's phase goes on from the frame before
    changed = (made(low, above) - before).abs().amax(dim=(0, 1, 2, 4))
    assert changed[: network.REACH // 2].min() > 0 and changed[network.REACH + 3 :].max() == 0


def test_it_hears_how_phases_go_on_but_not_where_they_start() -> None:
    torch.manual_seed(0)
    made = BandSplit(3, 16).eval()
    low, above = heard(20)
    before = made(low, above)
    assert torch.allclose(made(low * np.exp(1j), above), before, atol=1e-4)
    others = torch.polar(low.abs(), 6 * torch.rand(low.shape))
    assert (made(others, above) - before).abs().mean() > 1e-3


def test_all_bands_hear_each_other_and_what_is_above() -> None:
    torch.manual_seed(0)
    made = BandSplit(3, 16).eval()
    low, above = heard(20)
    before = made(low, above)
    louder, brighter = low.clone(), above.clone()
    louder[..., :2] *= 9
    brighter[..., -1] *= 9
    for found in (made(louder, above), made(low, brighter)):
        assert (found - before).abs().amax(dim=(0, 1, 2, 3)).min() > 0


@pytest.mark.parametrize("able", [True, False])
def test_it_is_trained_in_bfloat16_only_where_the_device_computes_in_it(
    able: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(network.BFLOAT16, "cpu", able)
    made, seen = BandSplit(3, 16), set()
    made.along[0].wide.register_forward_hook(lambda _module, _inputs, found: seen.add(found.dtype))
    made.train()(*heard(20))
    assert seen == {torch.bfloat16 if able else torch.float32}
    seen.clear()
    made.eval()(*heard(20))
    assert seen == {torch.float32}


def test_clips_are_what_the_network_hears(options: Options) -> None:
    args = options("run")
    prepare(args)
    run = bandsplit.BandSplitRun(args)
    assert len(run.train_clips) == 4 and len(run.valid_clips) == 2
    truth, above = run.valid_clips.batch(range(2), torch.device("cpu"))
    assert truth.shape == (2, 3, 2, 64, LOW) and above.shape == (2, 2, 64, 40)
    mixer = bandsplit.Mixer(bandsplit.Library.read(args.library, "valid"), bandsplit.samples(64), 1, train.HELD_OUT)
    expected = train.spectra(torch.from_numpy(mixer(1)[:3]))
    assert torch.allclose(truth[1], expected[..., :LOW], rtol=2e-3, atol=1e-3)
    assert torch.allclose(above[1], banded(expected.sum(dim=0).abs()), rtol=2e-3, atol=1e-3)


def test_clips_that_exist_are_kept(options: Options) -> None:
    args = options("run")
    prepare(args)
    times = {path: path.stat().st_mtime_ns for path in (args.run / "clips").iterdir()}
    assert len(times) == 3
    bandsplit.prepare(args)  # nothing is left to do
    assert {path: path.stat().st_mtime_ns for path in (args.run / "clips").iterdir()} == times


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not(options: Options) -> None:
    whole, parts = options("whole"), options("parts", minutes=0)
    for args in (whole, parts):
        prepare(args)
    bandsplit.BandSplitRun(whole).train()
    for _ in range(4):  # a step each
        bandsplit.BandSplitRun(parts).train()
    expected, found = (torch.load(args.run / "last.pt", weights_only=True) for args in (whole, parts))
    assert expected["step"] == found["step"] == 4
    for kind in ("network", "weights"):
        assert all(torch.equal(value, found[kind][name]) for name, value in expected[kind].items()), kind


def test_training_lowers_the_loss(options: Options) -> None:
    args = options("run", steps=40, rate=3e-3)
    prepare(args)
    run = bandsplit.BandSplitRun(args)
    batch = next(iter(run.batches()))
    losses = []
    for run.step in range(40):
        losses.append(run._update(batch))
    assert losses[-1] < losses[0] - 0.1


def test_held_out_songs_are_scored_by_how_strange_their_sounds_are(
    options: Options,
    write_song: WriteSong,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    args = options("run", steps=2)
    prepare(args)
    bandsplit.BandSplitRun(args).train()
    monkeypatch.setattr(network, "WIDTHS", (2, 2, 4, 4, 4, 4))
    torch.manual_seed(0)
    torch.save({"weights": Unet(3).state_dict()}, tmp_path / "unet.pt")
    rng = np.random.default_rng(4)
    stems = {name: rng.normal(0, 0.1, (2, 4 * RATE)).astype(np.float32).clip(-1, 1) for name in ("bass", "other")}
    write_song("strange", stems, split="valid", sound="strange")
    write_song("recorded", stems, split="valid", sound="recorded")
    monkeypatch.setattr(validate, "FRAMES", 64)
    paths = [str(args.library), str(tmp_path / "unet.pt"), "--bands", str(args.run / "last.pt")]
    monkeypatch.setattr("sys.argv", ["validate.py", *paths])
    validate.main()
    head, _, *rows = capsys.readouterr().out.splitlines()[-6:]
    kinds = ("recorded", "seen", "unseen")
    assert [cell.strip().split(" (")[0] for cell in head.split("|")[2:-1]] == [
        *(f"bass, {kind}" for kind in kinds),
        "drums, seen",
        *(f"other, {kind}" for kind in kinds),
    ]
    values = {row.split("|")[1].strip(): [float(cell) for cell in row.split("|")[2:-1]] for row in rows}
    assert list(values) == ["U-Net", *(f"band-split, {share:g}" for share in validate.SHARES)]
    # the further from the U-Net's masks the larger the share of the others
    strayed = [np.abs(np.subtract(row, values["U-Net"])).max() for row in list(values.values())[1:]]
    assert strayed == sorted(strayed) and strayed[0] > 0
