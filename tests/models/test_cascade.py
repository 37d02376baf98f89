"""A model that works on what another one leaves: found by name, of the version it was made for, and as exact."""

from __future__ import annotations

import hashlib
import sys
import threading
from functools import partial
from pathlib import Path
from types import ModuleType
from unittest.mock import Mock

import numpy as np
import pytest
from onnx import helper

from stemplug import Separator, Stems
from stemplug.audio import Audio
from stemplug.engine import installed_models, model_info, stream
from stemplug.errors import ModelError
from stemplug.models import Handover
from stemplug.models.masks import Graph
from tests.conftest import RATE
from tests.contracts.test_separator import assert_consistent, decibels
from tests.models.test_bad_models import LIVE, SPLEETER, network, refused, write_model

FOUR = 'stems = ["vocals", "drums", "bass", "other"]\nresidual = "other"'
TWO = 'stems = ["vocals", "accompaniment"]\nresidual = "accompaniment"'
SECOND = SPLEETER.replace('"small"', '"four"').replace(TWO, FOUR)


def masks(shares: list[float]) -> bytes:
    """A network that gives each stem, left and right, a constant share."""
    nodes = [helper.make_node("Mul", ["magnitude", "zero"], ["nothing"])]
    nodes.insert(0, helper.make_node("Constant", [], ["zero"], value_float=0.0))
    for i, share in enumerate(shares):
        nodes.append(helper.make_node("Constant", [], [f"share{i}"], value_float=share))
        nodes.append(helper.make_node("Add", ["nothing", f"share{i}"], [f"mask{i}"]))
    nodes.append(helper.make_node("Concat", [f"mask{i}" for i in range(len(shares))], ["mask"], axis=1))
    return network(outputs=[("mask", 1, [1, 2 * len(shares), "frames", 64])], nodes=nodes)


def after(manifest: str, name: str, sha256: str) -> str:
    """Name the graph of another model as the one that runs first."""
    return manifest + f'\n[files.first]\nmodel = "{name}"\npath = "model.onnx"\nsha256 = "{sha256}"\n'


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of models: small, whose vocals are a fifth, and four, which gives drums a half of the rest."""
    monkeypatch.setenv("STEMPLUG_MODELS", str(tmp_path))
    small = write_model(tmp_path / "small", masks([0.2]))
    write_model(tmp_path / "four", masks([0.5, 0.25]), after(SECOND, "small", sha256(small / "model.onnx")))
    return tmp_path


def change(root: Path, name: str, old: str, new: str) -> None:
    path = root / name / "manifest.toml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def noise(frames: int) -> Audio:
    return np.random.default_rng(0).normal(0, 0.1, (2, frames)).astype(np.float32)


def assert_shares(stems: Stems, mixture: Audio, shares: dict[str, float]) -> None:
    assert_consistent(stems, mixture, RATE)
    assert stems.keys() == shares.keys()
    for name, share in shares.items():
        # below the networks' band, and far from the edges
        spectra = [np.abs(np.fft.rfft(audio[0, 4000:20000]))[:3000] for audio in (stems[name], mixture)]
        assert np.linalg.norm(spectra[0]) / np.linalg.norm(spectra[1]) == pytest.approx(share, rel=1e-2)


@pytest.mark.parametrize("name", ["four", Path("four")])
def test_the_second_network_divides_what_the_first_leaves(root: Path, name: str | Path) -> None:
    model = root / name if isinstance(name, Path) else name
    shares = {"vocals": 0.2, "drums": 0.4, "bass": 0.2, "other": 0.2}
    assert_shares(Separator(model, threads=1).separate(noise(24000), RATE), noise(24000), shares)


def test_the_first_may_have_several_stems(root: Path) -> None:
    three = 'stems = ["vocals", "drums", "other"]\nresidual = "other"'
    (root / "small" / "model.onnx").write_bytes(masks([0.2, 0.3]))
    digest = sha256(root / "small" / "model.onnx")
    (root / "small" / "manifest.toml").write_text(SPLEETER.replace(TWO, three).format(path="model.onnx", sha256=digest))
    write_model(root / "then", masks([0.5]), after(SECOND.replace('"four"', '"then"'), "small", digest))
    shares = {"vocals": 0.2, "drums": 0.3, "bass": 0.25, "other": 0.25}
    assert_shares(Separator("then", threads=1).separate(noise(24000), RATE), noise(24000), shares)


def test_the_other_model_is_missing(root: Path, tmp_path: Path) -> None:
    (root / "small").rename(root / "hidden")
    refused(root / "four", "four: works only together with the model 'small', which is missing. Install it", "four")
    with pytest.raises(ModelError, match="'small', which is missing"):
        model_info("four").verify()


def test_the_other_model_is_found_by_name_alone(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a folder at hand nor the default will do."""
    (root / "elsewhere").mkdir()
    (root / "small").rename(root / "elsewhere" / "small")
    monkeypatch.chdir(root / "elsewhere")
    refused(root / "four", "'small', which is missing", "four")
    change(root, "four", '"small"', '"default"')
    refused(root / "four", "'default', which is missing", "four")
    change(root, "four", '"default"', '"../elsewhere/small"')
    refused(root / "four", "files.first.model", root / "four")


def test_another_version_of_the_other_model_is_refused(root: Path) -> None:
    digest = sha256(root / "small" / "model.onnx")
    (root / "small" / "model.onnx").write_bytes(masks([0.3]))
    change(root, "small", digest, sha256(root / "small" / "model.onnx"))
    Separator("small", threads=1)
    refused(root / "four", "small/model.onnx: SHA-256 .*expected: damaged or changed. Reinstall 'small' and 'four'")
    with pytest.raises(ModelError, match="damaged or changed"):
        model_info("four").verify()


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("fft = 256", "fft = 512", "fft 512, 256 expected"),
        ("stft_hop = 64", "stft_hop = 32", "stft_hop 32, 64 expected"),
        ("bins = 64", "bins = 32", "bins 32, 64 expected"),
        ("stride = 8", "stride = 4", "stride 4, 8 expected"),
        ("sample_rate = 44100", "sample_rate = 48000", "sample_rate 48000, 44100 expected"),
        ("channels = 2", "channels = 1", "channels 1, 2 expected"),
        ('family = "spleeter"', 'family = "identity"', "family 'identity', 'spleeter' expected"),
        ('["vocals", "acc', '["voice", "acc', "its stems voice do not come first"),
        ("[settings]", "[unsettled]", "unsettled"),
        ("trim = [0, 0]", "trim = [0]", "trim"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(root: Path, old: str, new: str, reason: str) -> None:
    change(root, "small", old, new)
    refused(root / "four", f"(four: cannot run after 'small': |small.*: ){reason}")


def test_there_are_no_chains_and_no_circles(root: Path) -> None:
    digest = sha256(root / "four" / "model.onnx")
    write_model(root / "last", masks([0.5]), after(SECOND.replace('"four"', '"last"'), "four", digest))
    refused(root / "last", "last: cannot run after 'four': it runs after another model itself")
    write_model(root / "self", masks([0.5]), after(SECOND.replace('"four"', '"self"'), "self", "{sha256}"))
    refused(root / "self", "cannot run after 'self': it runs after another model itself")


def test_it_must_add_a_stem(root: Path) -> None:
    digest = sha256(root / "small" / "model.onnx")
    write_model(root / "none", masks([0.5]), after(SPLEETER.replace('"small"', '"none"'), "small", digest))
    refused(root / "none", "none: ")


def test_windows_must_have_context_for_both_networks(root: Path) -> None:
    """What a network of this family trims is as long as its context; the first one's is rounded up to strides."""
    change(root, "small", "trim = [0, 0]", "trim = [1, 0]")
    Separator("four", threads=1)
    change(root, "four", "left = 8", "left = 7")
    refused(root / "four", "do not fit together")


def test_there_is_no_live_profile(root: Path) -> None:
    with (root / "four" / "manifest.toml").open("a") as file:
        file.write(LIVE)
    with pytest.raises(ModelError, match="four: runs after another model, which no live profile can. Use 'offline'"):
        Separator("four", "live", latency="low")


def test_the_digest_tells_versions_of_the_other_model_apart(root: Path) -> None:
    before = model_info("four").digest
    change(root, "four", sha256(root / "small" / "model.onnx"), "0" * 64)
    assert model_info("four").digest != before


def test_models_that_use_no_other_keep_their_digest() -> None:
    """Plugins and saved sessions know models by it."""
    spleeter = next(entry for entry in installed_models() if entry.name == "spleeter-2stems")
    assert spleeter.manifest["files"] == {
        "model": {"path": "model.onnx", "sha256": sha256(spleeter.path / "model.onnx")}
    }


MODELS = Path(__file__).parents[2] / "models"


@pytest.fixture(scope="module")
def training() -> ModuleType:
    """The script that exports networks."""
    pytest.importorskip("torch", reason="needs PyTorch: the extra [train]")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(MODELS / "training"))
        import export

        yield export
        for name in ("export", "graph", "network"):
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def trained(training: ModuleType) -> object:
    """A network for drums, bass and other whose random masks are neither hard nor all alike."""
    import torch

    torch.manual_seed(0)
    made = training.Unet(3)
    with torch.no_grad():
        made.masks.weight *= 20
    return made


REAL = """
schema = 1
name = "real"
version = "1"
licence = "MIT"
origin = "made by the tests"
family = "spleeter"
stems = ["vocals", "drums", "bass", "other"]
residual = "other"
sample_rate = 44100
channels = 2
reference_level_db = -11.6

[files.model]
path = "model.onnx"
sha256 = ""

[files.first]
model = "spleeter-2stems"
path = "model.onnx"
sha256 = "{first}"

[settings]
fft = 4096
stft_hop = 1024
bins = 1024
stride = 64
trim = [186, 158]

[profiles.offline]
frames = 1152
left = 383
right = 382
"""


BANDS = REAL.replace("[186, 158]", "[186, 158]\nphases = 64")


@pytest.fixture(scope="module")
def bands(training: ModuleType) -> object:
    """A network whose masks below are all between nothing and one, and whose layer norms do something."""
    import torch

    torch.manual_seed(0)
    made = training.BandSplit(3).eval()
    for module in made.modules():
        if isinstance(module, torch.nn.LayerNorm):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.3)
    return made


@pytest.fixture(scope="module", params=["plain", "bands"])
def real(
    request: pytest.FixtureRequest,
    training: ModuleType,
    trained: object,
    bands: object,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The folder of a model of the true size, behind spleeter-2stems."""
    folder = tmp_path_factory.mktemp("models") / "real"
    folder.mkdir()
    plain = request.param == "plain"
    manifest = (REAL if plain else BANDS).format(first=sha256(MODELS / "spleeter-2stems" / "model.onnx"))
    (folder / "manifest.toml").write_text(manifest)
    networks = trained, None if plain else bands
    build, reference = (partial(function, *networks) for function in (training.build, training.reference))
    training.export(build, reference, folder)
    return folder


def test_a_band_split_network_has_a_share_in_the_lowest_bins_alone(training: ModuleType, bands: object) -> None:
    import torch

    torch.manual_seed(0)
    spectrum = torch.randn(1, 2, 64, 1024, dtype=torch.complex64)
    unet, low = training.Unet(3), training.LOW
    plain, found = (training.reference(unet, network, spectrum) for network in (None, bands))
    assert torch.equal(found[..., low:], plain[..., low:])
    ours = bands(spectrum[..., :low], training.banded(spectrum.abs()))[:, :-1].flatten(1, 2)
    far, near = ((found[..., :low] - masks).abs().mean() for masks in (plain[..., :low], ours))
    assert 0 < near < far  # more of it than of the U-Net


def test_the_export_names_its_hash_and_no_other(real: Path) -> None:
    assert model_info(real).manifest["files"]["model"]["sha256"] == sha256(real / "model.onnx")
    model_info(real).verify()


@pytest.mark.parametrize("errors", [[(-100, -89), (-58, -58)], [(-100, -100), (-49, -58)], [(float("nan"), -100)] * 2])
def test_an_export_that_strays_is_not_written(
    training: ModuleType, trained: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, errors: list[object]
) -> None:
    monkeypatch.setitem(training.export.__globals__, "parity", lambda *_: errors.pop(0))
    with pytest.raises(SystemExit, match="nothing written"):
        training.export(partial(training.build, trained, None), None, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_checkpoint_is_read_back(training: ModuleType, trained: object, tmp_path: Path) -> None:
    import torch

    torch.save({"weights": trained.state_dict()}, tmp_path / "checkpoint")
    weights = training.load(tmp_path / "checkpoint").state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in trained.state_dict().items())


def test_a_checkpoint_of_bands_is_read_back(training: ModuleType, bands: object, tmp_path: Path) -> None:
    import torch

    torch.save({"weights": bands.state_dict()}, tmp_path / "checkpoint")
    weights = training.load_bands(tmp_path / "checkpoint").state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in bands.state_dict().items())


def test_masks_lie_between_0_and_1_and_leave_a_share_to_the_residual(real: Path) -> None:
    runner = Separator(real, threads=1).runner
    spectrum = 50 * np.random.default_rng(0).normal(size=(2, 128, 2, 1024)).astype(np.float32)
    spectrum = spectrum[:, :, 0] + 1j * spectrum[:, :, 1]
    found = runner.network(np.abs(spectrum), spectrum, (False, False))
    assert found.shape == (3, 2, 128, 1024) and found.min() >= 0
    assert (found.sum(axis=0) <= 1 + 1e-6).all() and found[1:].std() > 0.01


def test_vocals_are_those_of_the_first_model(real: Path, spleeter: Separator, song: Audio) -> None:
    stems, expected = Separator(real, threads=1).separate(song, RATE), Separator("spleeter-2stems", threads=1)
    assert_consistent(stems, song, RATE)
    assert np.array_equal(stems["vocals"], expected.separate(song, RATE)["vocals"])
    assert all(np.abs(stems[name]).max() > 0.01 for name in ("drums", "bass"))


def test_windows_leave_no_seam(real: Path, song: Audio, tmp_path: Path) -> None:
    mixture = np.tile(song[:, 30_000:], 5)[:, : 22 * RATE]
    folder = tmp_path / "real"
    folder.mkdir()
    manifest = (real / "manifest.toml").read_text()
    for frames in (1152, 1280):
        manifest = manifest.replace(f"frames = {frames}", f"frames = {frames + 640}")
    (folder / "manifest.toml").write_text(manifest)
    (folder / "model.onnx").write_bytes((real / "model.onnx").read_bytes())
    chunked, whole = (Separator(model, threads=1).separate(mixture, RATE) for model in (real, folder))
    for name, stem in whole.items():
        assert decibels(chunked[name] - stem, stem) <= -60


def test_what_the_window_before_has_found_is_not_found_anew(
    real: Path, song: Audio, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixture = np.tile(song[:, 30_000:], 5)[:, : 22 * RATE]
    mixture[:, 8 * RATE : 14 * RATE] = 0  # a passage that begins anew
    separator = Separator(real, threads=2)
    first = separator.runner._network._first  # type: ignore[attr-defined]
    heard: list[int] = []

    def counted(magnitude: Audio, *rest: object) -> Audio:
        heard.append(magnitude.shape[1])
        return Graph.__call__(first, magnitude, *rest)

    monkeypatch.setattr(separator.runner._network, "_first", Mock(side_effect=counted, trim=first.trim))
    linked, frames = separator.separate(mixture, RATE), sum(heard)
    heard.clear()
    monkeypatch.setattr(stream, "Handover", lambda before, after: Handover(None, after))
    alone = separator.separate(mixture, RATE)
    assert len(heard) > 2 and frames < 0.9 * sum(heard), (frames, heard)
    for name, stem in alone.items():
        assert decibels(linked[name] - stem, stem) <= -100


def test_a_stream_that_is_given_up_leaves_no_window_waiting(real: Path, song: Audio) -> None:
    separator = Separator(real, threads=2)
    for _ in range(3):
        given_up = separator.stream(RATE)
        given_up.feed(np.tile(song, 5)[:, : 30 * RATE])
        given_up.cancel()
    done = threading.Event()
    separator._executor.submit(done.set)
    assert done.wait(60)
