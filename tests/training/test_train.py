"""The network, its losses, and runs that stop and go on."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: the extra [train]")
pytest.importorskip("matplotlib", reason="needs matplotlib: the extra [train]")
import network  # noqa: E402
import train  # noqa: E402
from network import Unet  # noqa: E402
from torch import Tensor  # noqa: E402


@pytest.fixture
def truth() -> Tensor:
    """Spectra of drums, bass and other, (2, 3, 2, 8, 16); the second clip has no bass."""
    torch.manual_seed(0)
    spectra = torch.randn(2, 3, 2, 8, 16, dtype=torch.complex64)
    spectra[1, 1] = 0
    return spectra


def one_at_a_time(truth: Tensor) -> tuple[Tensor, Tensor]:
    """Spectra of which each bin belongs to one stem alone, and the masks that part them."""
    masks = torch.nn.functional.one_hot(truth.abs().argmax(dim=1), 3).movedim(-1, 1).float()
    return truth * masks, masks


def test_masks_sum_to_one() -> None:
    torch.manual_seed(0)
    masks = Unet(3)(torch.rand(2, 2, 64, 128))
    assert masks.shape == (2, 3, 2, 64, 128) and masks.min() >= 0
    assert torch.allclose(masks.sum(dim=1), torch.ones(2, 2, 64, 128))


def test_it_starts_from_spleeter_with_equal_shares(checkpoints: Path) -> None:
    weights = train.load(checkpoints / train.CHECKPOINTS["accompaniment"])
    made = Unet(3)
    made.start_from({name: torch.from_numpy(value) for name, value in weights.items()})
    state = made.state_dict()
    assert {name for name in state if name not in weights} == {"masks.weight", "masks.bias"}
    left_out = {name for name in weights if name not in state and not name.startswith(("down6_act", "up6", "up7"))}
    assert all(name.endswith(("running_mean", "running_var", "num_batches_tracked")) for name in left_out)
    assert all(np.array_equal(state[name], weights[name]) for name in state if name in weights)
    assert torch.allclose(made(torch.rand(1, 2, 64, 64)), torch.tensor(1 / 3))


def test_perfect_masks_have_no_error(truth: Tensor) -> None:
    parted, masks = one_at_a_time(truth)
    ratio, distance = train.losses(masks, parted)
    assert distance == pytest.approx(0, abs=1e-6) and ratio > 20
    found = train.sdr(masks, parted)
    assert found[0].min() > 60 and found[1, 1].isnan() and not found[1, [0, 2]].isnan().any()


def test_masks_of_nothing_have_the_error_of_silence(truth: Tensor) -> None:
    ratio, _ = train.losses(torch.zeros(truth.shape), truth)
    assert ratio == pytest.approx(0, abs=1e-5)
    assert train.sdr(torch.zeros(truth.shape), truth)[0].tolist() == pytest.approx([0, 0, 0], abs=1e-5)


def test_worse_masks_cost_more(truth: Tensor) -> None:
    parted, masks = one_at_a_time(truth)
    errors = [train.losses(masks * (1 - share) + share / 3, parted) for share in (0.1, 0.5, 1)]
    assert errors[0][0] > errors[1][0] > errors[2][0] and errors[0][1] < errors[1][1] < errors[2][1]


def test_spectra_are_those_of_numpy() -> None:
    audio = torch.randn(1, 3, 2, train.FFT + 2 * train.HOP)
    found = train.spectra(audio)
    assert found.shape == (1, 3, 2, 3, train.BINS)
    window = np.hanning(train.FFT + 1)[:-1]
    expected = np.fft.rfft(audio[0, 1, 1, train.HOP : train.HOP + train.FFT].numpy() * window)[: train.BINS]
    assert np.allclose(found[0, 1, 1, 1], expected, atol=1e-3)


def test_some_of_a_voice_is_left_in_other() -> None:
    stems = torch.randn(200, 4, 2, 50)
    kept = train.heard(stems, torch.Generator().manual_seed(0))
    assert torch.equal(kept[:, :2], stems[:, :2])
    gain = ((kept[:, 2] - stems[:, 2]) * stems[:, 3]).sum(dim=(1, 2)) / stems[:, 3].square().sum(dim=(1, 2))
    leaks = gain[gain > 1e-4]
    assert 0.4 < len(leaks) / 200 < 0.6
    low, high = (10 ** (level / 20) for level in train.LEAK_DB)
    assert low * 0.99 <= leaks.min() and leaks.max() <= high * 1.01


@pytest.fixture
def small_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network of few channels in place of Spleeter's."""
    monkeypatch.setattr(network, "WIDTHS", (2, 2, 4, 4, 4, 4))
    rng = np.random.default_rng(0)
    weights = {
        name: rng.normal(0, 0.1, value.shape).astype(np.float32)
        for name, value in Unet(3).state_dict().items()
        if not name.startswith("masks")
    }
    monkeypatch.setattr(train, "load", lambda path: weights)


def options(library: Path, run: Path, **changes: object) -> argparse.Namespace:
    """What the command line gives, for a small run."""
    values = {"steps": 4, "minutes": np.inf, "batch": 1, "frames": 64, "rate": 1e-3, "warm_up": 2, "decay": 0.9}
    values |= {
        "weight_decay": 1e-4,
        "every": 2,
        "validation": 1,
        "workers": 0,
        "device": "cpu",
        "compile": False,
        "seed": 3,
    }
    return argparse.Namespace(library=library, checkpoints=run, run=run, **{**values, **changes})


@pytest.mark.usefixtures("small_network")
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not(small_library: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train.UnetRun(options(small_library, whole)).train()
    for _ in range(3):  # a step each
        train.UnetRun(options(small_library, parts, minutes=0)).train()
    train.UnetRun(options(small_library, parts)).train()
    expected, found = (torch.load(run / "last.pt", weights_only=True) for run in (whole, parts))
    assert expected["step"] == found["step"] == 4
    for kind in ("network", "weights"):
        assert all(torch.equal(value, found[kind][name]) for name, value in expected[kind].items()), kind
    rows = [json.loads(line) for line in (parts / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert (parts / "curve.png").stat().st_size > 1000


@pytest.mark.usefixtures("small_network")
def test_a_finished_run_does_nothing_more(small_library: Path, tmp_path: Path) -> None:
    train.UnetRun(options(small_library, tmp_path / "run", steps=1)).train()
    before = (tmp_path / "run" / "last.pt").read_bytes()
    train.UnetRun(options(small_library, tmp_path / "run", steps=1)).train()
    assert (tmp_path / "run" / "last.pt").read_bytes() == before


@pytest.mark.usefixtures("small_network")
def test_training_lowers_the_loss(small_library: Path, tmp_path: Path) -> None:
    run = train.UnetRun(options(small_library, tmp_path / "run", steps=30, rate=1e-2))
    torch.manual_seed(0)
    loudness = torch.tensor([0.3, 0.01, 0.01, 0.01])[:, None, None]
    stems = torch.randn(1, 4, 2, train.samples(64)) * loudness
    losses = []
    for run.step in range(30):
        losses.append(run._update(stems))
    assert losses[-1] < losses[0] - 0.3
