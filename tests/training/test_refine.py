"""Clips of what a refiner hears, and runs on them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: the extra [train]")
pytest.importorskip("onnx", reason="needs onnx: the extra [train]")
pytest.importorskip("matplotlib", reason="needs matplotlib: the extra [train]")
import network  # noqa: E402
import refine  # noqa: E402
import train  # noqa: E402
import validate  # noqa: E402
from network import EDGES, LOW, Refiner, Unet, banded  # noqa: E402

from tests.conftest import RATE  # noqa: E402
from tests.training.conftest import WriteSong  # noqa: E402

Options = Callable[..., argparse.Namespace]


@pytest.fixture
def options(small_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Options:
    """What the command line gives, for a small run on a network of few channels and clips of 64 frames."""
    monkeypatch.setattr(network, "WIDTHS", (2, 2, 4, 4, 4, 4))
    for name, value in {"FRAMES": 64, "FILE": 2, "TOGETHER": 1, "SECONDS": 2 * 64 * train.HOP / 44100}.items():
        monkeypatch.setattr(refine, name, value)
    monkeypatch.setattr(refine, "_kept", {})
    torch.manual_seed(0)
    torch.save({"weights": Unet(3).state_dict()}, tmp_path / "unet.pt")

    def make(run: str, **changes: object) -> argparse.Namespace:
        values = {"steps": 4, "minutes": np.inf, "batch": 2, "rate": 1e-3, "weight_decay": 1e-2, "warm_up": 2}
        values |= {"decay": 0.9, "every": 2, "validation": 2, "device": "cpu", "seed": 3, "hours": 0.002, "jobs": 1}
        paths = {"library": small_library, "checkpoint": tmp_path / "unet.pt", "run": tmp_path / run}
        return argparse.Namespace(**paths, **{**values, **changes})

    return make


def prepare(args: argparse.Namespace) -> None:
    """As `refine.prepare`, in this process."""
    (args.run / "clips").mkdir(parents=True, exist_ok=True)
    for split, count in {"valid": 1, "train": 2}.items():
        for number in range(count):
            refine.write_clips(args.library, split, args.checkpoint, args.seed, args.run / "clips", number)


def test_bands_are_root_mean_squares_from_the_low_bins_up() -> None:
    magnitude = torch.zeros(3, 1024)
    magnitude[:, EDGES[5] : EDGES[6]] = 2
    found = banded(magnitude)
    assert found.shape == (3, len(EDGES) - 1) and EDGES[0] == LOW and EDGES[-1] == 1024
    assert torch.allclose(found[:, 5], torch.tensor(2.0)) and found.sum() == pytest.approx(6)


def test_masks_sum_to_one_and_begin_with_those_of_the_unet() -> None:
    torch.manual_seed(0)
    masks = torch.softmax(torch.randn(2, 3, 2, 10, LOW), dim=1)
    low, bands = torch.randn(2, 2, 10, LOW, dtype=torch.complex64), torch.rand(2, 4, 2, 10, len(EDGES) - 1)
    refiner = Refiner(3, 16).eval()
    assert torch.allclose(refiner(low, masks, bands), masks, atol=2e-3)
    refiner.last.bias.data.normal_()
    found = refiner(low, masks, bands)
    assert torch.allclose(found.sum(dim=1), torch.ones(2, 2, 10, LOW)) and (found - masks).abs().mean() > 0.01


def test_it_hears_no_further_than_its_reach() -> None:
    torch.manual_seed(0)
    frames = 2 * network.REACH + 20
    refiner = Refiner(3, 16).eval()
    refiner.last.weight.data.normal_()
    masks = torch.softmax(torch.randn(1, 3, 2, frames, LOW), dim=1)
    low, bands = torch.randn(1, 2, frames, LOW, dtype=torch.complex64), torch.rand(1, 4, 2, frames, len(EDGES) - 1)
    before = refiner(low, masks, bands)
    low[:, :, :2], bands[..., :2, :] = 0, 9  # a frame's phase goes on from the frame before
    changed = (refiner(low, masks, bands) - before).abs().amax(dim=(0, 1, 2, 4))
    assert changed[: network.REACH // 2].min() > 0 and changed[network.REACH + 3 :].max() == 0


def test_clips_are_what_the_networks_hear(options: Options) -> None:
    args = options("run")
    prepare(args)
    run = refine.RefinerRun(args)
    assert len(run.train_clips) == 4 and len(run.valid_clips) == 2
    truth, masks, bands = run.valid_clips.batch(range(2), torch.device("cpu"))
    assert truth.shape == (2, 3, 2, 64, LOW) and masks.shape == truth.shape and bands.shape[1:] == (4, 2, 64, 40)
    mixer = refine.Mixer(refine.Library.read(args.library, "valid"), refine.samples(64), 1, train.HELD_OUT)
    expected = train.spectra(torch.from_numpy(mixer(1)[:3]))
    assert torch.allclose(truth[1], expected[..., :LOW], rtol=2e-3, atol=1e-3)
    whole = banded(expected.sum(dim=0).abs())
    assert torch.allclose(bands[1, 0], whole, rtol=2e-3, atol=1e-3)
    assert torch.allclose(masks.sum(dim=1), torch.ones(2, 2, 64, LOW), atol=2e-3)


def test_clips_that_exist_are_kept(options: Options) -> None:
    args = options("run")
    prepare(args)
    times = {path: path.stat().st_mtime_ns for path in (args.run / "clips").iterdir()}
    assert len(times) == 3
    refine.prepare(args)  # nothing is left to do
    assert {path: path.stat().st_mtime_ns for path in (args.run / "clips").iterdir()} == times


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not(options: Options) -> None:
    whole, parts = options("whole"), options("parts", minutes=0)
    for args in (whole, parts):
        prepare(args)
    refine.RefinerRun(whole).train()
    for _ in range(4):  # a step each
        refine.RefinerRun(parts).train()
    expected, found = (torch.load(args.run / "last.pt", weights_only=True) for args in (whole, parts))
    assert expected["step"] == found["step"] == 4
    for kind in ("network", "weights"):
        assert all(torch.equal(value, found[kind][name]) for name, value in expected[kind].items()), kind


def test_training_lowers_the_loss(options: Options) -> None:
    args = options("run", steps=40, rate=3e-3)
    prepare(args)
    run = refine.RefinerRun(args)
    batch = next(iter(run.batches()))
    losses = []
    for run.step in range(40):
        losses.append(run._update(batch))
    assert losses[-1] < losses[0] - 0.1


def test_held_out_songs_are_scored_by_how_strange_their_sounds_are(
    options: Options, write_song: WriteSong, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    args = options("run", steps=2)
    prepare(args)
    refine.RefinerRun(args).train()
    rng = np.random.default_rng(4)
    stems = {name: rng.normal(0, 0.1, (2, 4 * RATE)).astype(np.float32).clip(-1, 1) for name in ("bass", "other")}
    write_song("strange", stems, split="valid", sound="strange")
    write_song("recorded", stems, split="valid", sound="recorded")
    monkeypatch.setattr(validate, "FRAMES", 64)
    paths = [str(args.library), str(args.checkpoint), "--refiner", str(args.run / "last.pt")]
    monkeypatch.setattr("sys.argv", ["validate.py", *paths])
    validate.main()
    head, _, *rows = capsys.readouterr().out.splitlines()[-7:]
    kinds = ("recorded", "seen", "unseen")
    assert [cell.strip().split(" (")[0] for cell in head.split("|")[2:-1]] == [
        *(f"bass, {kind}" for kind in kinds),
        "drums, seen",
        *(f"other, {kind}" for kind in kinds),
    ]
    values = {row.split("|")[1].strip(): [float(cell) for cell in row.split("|")[2:-1]] for row in rows}
    assert list(values) == ["U-Net", *(f"refined, {belief:g}" for belief in validate.BELIEFS)]
    # a refiner of two steps has hardly anything to say, and the less the less it is believed
    strayed = [np.abs(np.subtract(row, values["U-Net"])).max() for row in list(values.values())[1:]]
    assert strayed == sorted(strayed) and strayed[-1] < 2
