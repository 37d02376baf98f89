"""The causal network: deaf to the future, and frame by frame the same as all at once."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: the extra [train]")
pytest.importorskip("onnx", reason="needs onnx: the extra [train]")
pytest.importorskip("matplotlib", reason="needs matplotlib: the extra [train]")
import causal  # noqa: E402
import export_live  # noqa: E402
import train  # noqa: E402
import train_live  # noqa: E402
from causal import BINS, HOP, PERIOD, CausalUnet  # noqa: E402
from network import Unet  # noqa: E402
from torch import Tensor  # noqa: E402

from stemplug import Separator  # noqa: E402
from stemplug.audio import Audio  # noqa: E402
from tests.conftest import RATE  # noqa: E402

MANIFEST = Path(__file__).parents[2] / "models" / "stemplug-live" / "manifest.toml"


@pytest.fixture(scope="module")
def network() -> CausalUnet:
    """Of random weights, all of which matter."""
    torch.manual_seed(0)
    made = CausalUnet()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return made.eval()


def magnitudes(frames: int) -> Tensor:
    return torch.rand(1, 2, frames, BINS, generator=torch.Generator().manual_seed(1)) * 20


def test_masks_sum_to_one(network: CausalUnet) -> None:
    masks = network(magnitudes(2 * PERIOD))
    assert masks.shape == (1, 4, 2, 2 * PERIOD, BINS) and masks.min() >= 0
    assert torch.allclose(masks.sum(dim=1), torch.tensor(1.0), atol=1e-5)


@pytest.mark.parametrize("frame", [0, 1, 7, 17, 30])
def test_a_mask_depends_on_its_frame_and_those_before(network: CausalUnet, frame: int) -> None:
    before = network(magnitudes(2 * PERIOD))
    changed = magnitudes(2 * PERIOD)
    changed[:, :, frame] *= 3
    after = network(changed)
    assert torch.equal(after[:, :, :, :frame], before[:, :, :, :frame])
    assert not torch.allclose(after[:, :, :, frame], before[:, :, :, frame], atol=1e-4)


def test_it_starts_from_spleeter_with_equal_shares(checkpoints: Path) -> None:
    weights = train.load(checkpoints / train.CHECKPOINTS["vocals"])
    made = CausalUnet()
    made.start_from({name: torch.from_numpy(value) for name, value in weights.items()})
    assert {name for name in made.state_dict() if name not in weights} == {"masks.weight", "masks.bias"}
    assert torch.allclose(made(magnitudes(PERIOD)), torch.tensor(0.25))


def test_a_steady_sound_is_heard_as_spleeter_hears_it(checkpoints: Path) -> None:
    """Long after it began, in each level on the way down."""
    weights = train.load(checkpoints / train.CHECKPOINTS["vocals"])
    tensors = {name: torch.from_numpy(value) for name, value in weights.items()}
    made, spleeter = CausalUnet(), Unet(4)
    made.start_from(tensors)
    spleeter.start_from(tensors)
    steady = magnitudes(1)[..., :512].repeat(1, 1, 640, 1)
    mine = theirs = steady
    for level in range(1, 6):
        mine, theirs = (
            getattr(network, f"down{level}_act")(getattr(network, f"down{level}_conv")(x))
            for network, x in ((made, mine), (spleeter, theirs))
        )
        middle = theirs[:, :, theirs.shape[2] // 2]
        assert torch.allclose(mine[:, :, -1], middle, atol=1e-4 * float(middle.detach().abs().max()))
        mine = mine[:, :, ::2]


def test_the_windows_give_back_what_they_take() -> None:
    analysis, synthesis = causal.windows()
    both = analysis[-2 * HOP :] * synthesis
    assert np.allclose(both[:HOP] + both[HOP:], 1, atol=1e-3)


def test_frame_by_frame_it_computes_the_same(network: CausalUnet) -> None:
    assert export_live.parity(network, export_live.build(network, np.float32)) <= -90


def test_the_runner_separates_as_the_network_does(network: CausalUnet, tmp_path: Path, song: Audio) -> None:
    """The engine's windows, transform and overlaps against one pass in PyTorch over all frames."""
    torch.save({"weights": network.state_dict()}, tmp_path / "last.pt")
    content = export_live.build(export_live.load(tmp_path / "last.pt"), np.float32).SerializeToString()
    (tmp_path / "model.onnx").write_bytes(content)
    manifest = "\n".join(
        line for line in MANIFEST.read_text().splitlines() if not line.startswith(("sha256", "reference_level"))
    )
    digest = hashlib.sha256(content).hexdigest()
    manifest = manifest.replace('path = "model.onnx"', f'path = "model.onnx"\nsha256 = "{digest}"').split("[metrics]")[
        0
    ]
    (tmp_path / "manifest.toml").write_text(manifest)
    frames = 8 * PERIOD
    audio = song[:, 60_000 : 60_000 + frames * HOP]
    found = Separator(tmp_path, "live").separate(audio, RATE)
    analysis, synthesis = causal.windows()
    padded = np.pad(audio, ((0, 0), (causal.FFT - 2 * HOP, 2 * HOP)))
    spectrum = causal.spectra(torch.from_numpy(padded))[:, :frames]
    with torch.no_grad():
        masks = network(spectrum.abs()[np.newaxis])[0, 1]  # of the bass
    expected = np.zeros((2, padded.shape[1]))
    for frame, piece in enumerate(
        np.fft.irfft(np.pad((spectrum * masks).numpy(), ((0, 0), (0, 0), (0, 2049 - BINS)))).swapaxes(0, 1)
    ):
        at = frame * HOP + causal.FFT
        expected[:, at - 2 * HOP : at] += piece[:, -2 * HOP :] * synthesis
    expected = expected[:, causal.FFT - 2 * HOP :][:, : audio.shape[1]]
    inner = slice(2 * HOP, -2 * HOP)  # at its ends a stream has no frame to fade from, or to
    low = slice(0, round((audio.shape[1] - 4 * HOP) * 7000 / RATE))  # above its band the runner continues the masks
    true, error = (np.fft.rfft(x[:, inner])[:, low] for x in (expected, found["bass"] - expected))
    assert np.linalg.norm(error) <= 3e-3 * np.linalg.norm(true)


def test_a_run_goes_on_as_if_it_had_not_stopped(small_library: Path, checkpoints: Path, tmp_path: Path) -> None:
    def options(run: str, minutes: float = np.inf) -> argparse.Namespace:
        values = {"steps": 2, "minutes": minutes, "batch": 1, "rate": 1e-3, "weight_decay": 1e-2, "warm_up": 1}
        values |= {"decay": 0.9, "every": 1, "validation": 1, "device": "cpu", "seed": 3, "frames": PERIOD}
        values |= {"workers": 0, "compile": False, "wait": 1, "start": None}
        return argparse.Namespace(library=small_library, checkpoints=checkpoints, run=tmp_path / run, **values)

    train_live.LiveRun(options("whole")).train()
    train_live.LiveRun(options("parts", 0)).train()
    train_live.LiveRun(options("parts")).train()
    whole, parts = (torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("whole", "parts"))
    assert whole["step"] == parts["step"] == 2
    assert all(torch.allclose(parts["weights"][name], value, atol=1e-6) for name, value in whole["weights"].items())
    assert '"vocals"' in (tmp_path / "whole" / "log.jsonl").read_text()


def test_parity_that_is_lost_is_noticed(network: CausalUnet) -> None:
    model = export_live.build(network, np.float32)
    other = CausalUnet().eval()
    assert export_live.parity(other, model) > -20
