"""Models that are damaged, forged or of another kind are refused before anything of them runs."""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from stemplug import Separator
from stemplug.cli.program import run
from stemplug.engine import installed_models
from stemplug.errors import ModelError
from tests.conftest import PASSTHROUGH

GOOD = PASSTHROUGH.format(rate=44100, channels=2)

SPLEETER = """
schema = 1
name = "small"
version = "1"
licence = "MIT"
origin = "made by the tests"
family = "spleeter"
stems = ["vocals", "accompaniment"]
residual = "accompaniment"
sample_rate = 44100
channels = 2

[files.model]
path = "{path}"
sha256 = "{sha256}"

[settings]
fft = 256
stft_hop = 64
bins = 64
stride = 8
trim = [0, 0]

[profiles.offline]
frames = 32
left = 8
right = 8
"""

Ends = list[tuple[str, int, list[object]]]
FLOAT, INT = TensorProto.FLOAT, TensorProto.INT64
MAGNITUDE = ("magnitude", FLOAT, [1, 2, "frames", 64])
TRIM = ("trim", INT, [2])
MASK = ("mask", FLOAT, [1, 2, "frames", 64])


def network(
    inputs: Ends | None = None, outputs: Ends | None = None, nodes: list[onnx.NodeProto] | None = None
) -> bytes:
    """An ONNX file: by default a small network of the family, whose masks are its input."""
    made = helper.make_graph(
        nodes or [helper.make_node("Identity", ["magnitude"], ["mask"])],
        "small",
        [helper.make_tensor_value_info(*end) for end in inputs or [MAGNITUDE, TRIM]],
        [helper.make_tensor_value_info(*end) for end in outputs or [MASK]],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def write_model(folder: Path, content: bytes, manifest: str = SPLEETER) -> Path:
    """Write a model whose manifest has the true hash of its file."""
    folder.mkdir()
    (folder / "model.onnx").write_bytes(content)
    text = manifest.format(path="model.onnx", sha256=hashlib.sha256(content).hexdigest())
    (folder / "manifest.toml").write_text(text)
    return folder


def refused(folder: Path, reason: str, model: object = None) -> None:
    with pytest.raises(ModelError, match=reason) as error:
        Separator(model or folder, threads=1)  # type: ignore[arg-type]
    text = str(error.value)
    assert len(text) < 1000 + len(str(folder)) and "\n" not in text, text


def test_the_small_network_works_or_these_tests_prove_nothing(tmp_path: Path) -> None:
    separator = Separator(write_model(tmp_path / "small", network()), threads=1)
    noise = np.random.default_rng(0).normal(0, 0.1, (2, 5000)).astype(np.float32)
    assert np.abs(separator.separate(noise, 44100).sum() - noise).max() < 1e-6


@pytest.mark.parametrize(
    ("good", "other"),
    [("right = 8", "right = 13"), ("right = 8", "right = 8\nfade = 3"), ("stride = 8", "stride = 1\n")],
    ids=["hop on the grid of the strides", "hop off the grid, with a fade", "any hop"],
)
def test_any_profile_that_fits_separates_songs_of_any_length(tmp_path: Path, good: str, other: str) -> None:
    separator = Separator(write_model(tmp_path / "small", network(), SPLEETER.replace(good, other)), threads=2)
    for frames in (1, 900, 5000, 7777):
        noise = np.random.default_rng(0).normal(0, 0.1, (2, frames)).astype(np.float32)
        assert np.abs(separator.separate(noise, 44100).sum() - noise).max() < 1e-6


LIVE = """
[profiles.live.low]
frames = 16
hop = 3
right = 2
guessed = 2
bins = 64
"""


@pytest.mark.parametrize(
    ("good", "other"),
    [
        ("right = 2", "right = 4"),
        ("guessed = 2\nbins = 64", "guessed = 2\nbins = 65"),
        ("hop = 3", "hop = 13"),
        ("frames = 16", "frames = 17"),
        ("trim = [0, 0]", "trim = [0, 0]\nphases = 8"),
        ("trim = [0, 0]", "trim = [0, 0]\ncuts.below = [['a']]\ncuts.skip = []"),
    ],
)
def test_a_live_profile_must_fit(tmp_path: Path, good: str, other: str) -> None:
    text = SPLEETER + LIVE
    separator = Separator(write_model(tmp_path / "small", network(), text), "live", latency="low", threads=1)
    noise = np.random.default_rng(0).normal(0, 0.1, (2, 5000)).astype(np.float32)
    assert np.abs(separator.separate(noise, 44100).sum() - noise).max() < 1e-6
    assert good in text
    with pytest.raises(ModelError, match="do not fit together"):
        Separator(write_model(tmp_path / "bad", network(), text.replace(good, other)), "live", latency="low")


def test_constants_that_the_graph_does_not_have_are_noticed(tmp_path: Path) -> None:
    source = installed_models()[0].path
    manifest = (source / "manifest.toml").read_text().replace("cut_", "cuts_")
    folder = tmp_path / "spleeter-2stems"
    folder.mkdir()
    (folder / "manifest.toml").write_text(manifest)
    (folder / "model.onnx").write_bytes((source / "model.onnx").read_bytes())
    with pytest.raises(ModelError, match="inference failed|do not fit the manifest"):
        Separator(folder, "live")


def test_a_fade_longer_than_a_stride_is_no_trouble(tmp_path: Path) -> None:
    profile = SPLEETER.replace("stride = 8", "stride = 4").replace("right = 8", "right = 8\nfade = 5")
    separator = Separator(write_model(tmp_path / "small", network(), profile), threads=2)
    noise = np.random.default_rng(0).normal(0, 0.1, (2, 7777)).astype(np.float32)
    assert np.abs(separator.separate(noise, 44100).sum() - noise).max() < 1e-6


BAD_MANIFESTS: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "schema None, expected 1"),
    "not TOML": ("schema = = 1", "not valid TOML"),
    "JSON": ('{"schema": 1}', "not valid TOML"),
    "not text": (b"\xff\xfe\x00s", "not valid TOML"),
    "deeply nested": ("schema = 1\nx = " + "[" * 20000 + "]" * 20000, "not valid TOML|Reinstall"),
    "deeply nested, open": ("schema = 1\nx = " + "[" * 100000, "not valid TOML|Reinstall"),
    "deep table": ("schema = 1\n[" + "a." * 20000 + "a]\nb = 1", "not valid TOML|reinstall"),
    "5 MB": ("schema = 1\n" + "# comment\n" * 500_000, "larger than 1048576 bytes"),
    "newer": (GOOD.replace("schema = 1", "schema = 2"), "schema 2, this StemPlug reads up to 1. Update"),
    "schema of text": (GOOD.replace("schema = 1", 'schema = "1"'), "schema '1', expected 1"),
    "schema 0": (GOOD.replace("schema = 1", "schema = 0"), "schema 0, expected 1"),
    **{
        f"no {key}": (
            "\n".join(line for line in GOOD.splitlines() if not line.startswith(f"{key} =")),
            f"{key}: .*required",
        )
        for key in ("name", "version", "licence", "origin", "family", "stems", "residual", "sample_rate", "channels")
    },
    "no profiles": (GOOD[: GOOD.index("[profiles")], "profiles: .*required"),
    "no offline profile": (GOOD.replace("profiles.offline", "profiles.live"), "'offline' is missing"),
    "no settings": (GOOD.replace("settings.gains", "settings.other"), "settings"),
    "bad geometry": (GOOD.replace("hop = 4096", "hop = 0"), "hop >= 1"),
    "geometry of text": (GOOD.replace("hop = 4096", 'hop = "x"'), "settings or profile"),
    "unknown field": ("color = 1\n" + GOOD, "color: Extra"),
    "unknown family": (GOOD.replace('"identity"', '"demux"'), "model family 'demux'.*A newer StemPlug may know it"),
    "residual not a stem": (GOOD.replace('residual = "other"', 'residual = "bass"'), "'bass' is none of the stems"),
    "stem twice": (GOOD.replace('"drums"', '"vocals"'), "a name stands twice"),
    "no stems": (GOOD.replace('["vocals", "drums", "other"]', "[]"), "stems"),
    "stem leading out": (GOOD.replace('"drums"', '"../drums"'), "stems.1"),
    "rate 0": (GOOD.replace("sample_rate = 44100", "sample_rate = 0"), "sample_rate"),
    "NaN rate": (GOOD.replace("sample_rate = 44100", "sample_rate = nan"), "sample_rate"),
    "6 channels": (GOOD.replace("channels = 2", "channels = 6"), "channels"),
}


@pytest.mark.parametrize("case", BAD_MANIFESTS)
def test_a_bad_manifest_is_refused(tmp_path: Path, case: str) -> None:
    content, reason = BAD_MANIFESTS[case]
    path = tmp_path / "manifest.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(tmp_path, f"{tmp_path.name}.*({reason})|{reason}.*{tmp_path.name}")


def test_a_missing_model_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "none/manifest.toml: no such file.*Give a model's folder or name", tmp_path / "none")
    refused(tmp_path, "manifest.toml: no such file")
    (tmp_path / "manifest.toml").mkdir()
    refused(tmp_path, "manifest.toml: is a directory")
    refused(tmp_path, "not a directory", Path("/dev/null"))
    refused(tmp_path, "manifest.toml", Path("nul\0"))


@pytest.mark.parametrize("name", ["spleter-2stems", "", ".", "..", "nul\0", "x" * 5000, "caf\udce9"])
def test_an_unknown_name_is_refused_with_those_there_are(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match="spleeter-2stems"):
        Separator(name)


@pytest.mark.timeout(5)
def test_a_manifest_that_is_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "manifest.toml")
    refused(tmp_path, "manifest.toml")


@pytest.mark.parametrize(
    "path",
    ["../model.onnx", "/etc/passwd", "a/../../model.onnx", "..", "", "C:/model.onnx", "a\\\\..\\\\b", "a\\u0000"],
)
def test_a_path_that_leads_out_is_refused(tmp_path: Path, path: str) -> None:
    content = network()
    (tmp_path / "model.onnx").write_bytes(content)
    folder = write_model(tmp_path / "small", content, SPLEETER.replace("{path}", path))
    refused(folder, "files.model.path: .*must lie inside")


@pytest.mark.parametrize("link", ["file", "folder"])
def test_a_link_that_leads_out_is_refused(tmp_path: Path, link: str) -> None:
    content = network()
    folder = write_model(tmp_path / "small", content, SPLEETER.replace("{path}", "inner/model.onnx"))
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "model.onnx").write_bytes(content)
    if link == "folder":
        (folder / "inner").symlink_to(outside)
    else:
        (folder / "inner").mkdir()
        (folder / "inner" / "model.onnx").symlink_to(outside / "model.onnx")
    refused(folder, "leads outside the model's folder")


def test_a_link_to_itself_is_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "small", network())
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").symlink_to("model.onnx")
    refused(folder, "model.onnx: ")


def test_a_model_whose_folder_is_a_link_works(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "small", network())
    (tmp_path / "link").symlink_to(folder)
    assert Separator(tmp_path / "link", threads=1).stems == ("vocals", "accompaniment")


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: path.unlink(), "model.onnx: no such file.*Reinstall"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "model.onnx: is a directory"),
    "a pipe": (lambda path: (path.unlink(), os.mkfifo(path)), "model.onnx"),
    "truncated": (lambda path: os.truncate(path, path.stat().st_size // 2), "expected: damaged or changed. Reinstall"),
    "empty": (lambda path: os.truncate(path, 0), r"\(0 bytes\).*damaged or changed"),
    "one bit": (lambda path: path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:]), "damaged"),
}


@pytest.mark.timeout(5)
@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_file_is_refused(tmp_path: Path, case: str) -> None:
    damage, reason = DAMAGE[case]
    folder = write_model(tmp_path / "small", network())
    damage(folder / "model.onnx")
    refused(folder, reason)


def test_a_file_that_the_manifest_does_not_name_is_missed(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "small", network(), SPLEETER.replace("[files.model]", "[files.weights]"))
    refused(folder, "files.model is missing")


class Spark:
    """A pickle that runs code when it is loaded."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("burnt",)


WRONG_GRAPHS: dict[str, tuple[Callable[[], bytes], str]] = {
    "half": (lambda: network()[:-30], "cannot load the graph"),
    "empty": (lambda: b"", "cannot load the graph"),
    "text": (lambda: b"model" * 100, "cannot load the graph"),
    "input of another name": (
        lambda: network([("x", FLOAT, [1, 2, "n", 64]), TRIM], nodes=[helper.make_node("Identity", ["x"], ["mask"])]),
        "inputs .*Not a model of this family",
    ),
    "input missing": (lambda: network([MAGNITUDE]), "inputs .*Not a model of this family"),
    "input too many": (lambda: network([MAGNITUDE, TRIM, ("x", FLOAT, [1])]), "inputs"),
    "input of another rank": (
        lambda: network([("magnitude", FLOAT, [2, 64]), TRIM], [("mask", FLOAT, [2, 64])]),
        "inputs .*Not a model of this family",
    ),
    "output of another name": (
        lambda: network(outputs=[("y", FLOAT, MASK[2])], nodes=[helper.make_node("Identity", ["magnitude"], ["y"])]),
        "outputs .*Not a model of this family",
    ),
    "input of another type": (
        lambda: network(
            [("magnitude", TensorProto.DOUBLE, MAGNITUDE[2]), TRIM], [("mask", TensorProto.DOUBLE, MASK[2])]
        ),
        "small: ",
    ),
    "trim of another type": (lambda: network([MAGNITUDE, ("trim", TensorProto.INT32, [2])]), "small: "),
    "output of another type": (
        lambda: network(
            outputs=[("mask", INT, MASK[2])], nodes=[helper.make_node("Cast", ["magnitude"], ["mask"], to=INT)]
        ),
        "masks",
    ),
    "other number of bins": (
        lambda: network([("magnitude", FLOAT, [1, 2, "frames", 32]), TRIM], [("mask", FLOAT, [1, 2, "frames", 32])]),
        "small: ",
    ),
    "other number of channels": (
        lambda: network([("magnitude", FLOAT, [1, 1, "frames", 64]), TRIM], [("mask", FLOAT, [1, 1, "frames", 64])]),
        "small: ",
    ),
    "fewer bins out": (
        lambda: network(
            outputs=[("mask", FLOAT, ["a", "b", "c", "d"])],
            nodes=[helper.make_node("MaxPool", ["magnitude"], ["mask"], kernel_shape=[1, 2], strides=[1, 2])],
        ),
        "masks do not fit|small: ",
    ),
    "fewer frames out": (
        lambda: network(
            outputs=[("mask", FLOAT, ["a", "b", "c", "d"])],
            nodes=[helper.make_node("MaxPool", ["magnitude"], ["mask"], kernel_shape=[2, 1], strides=[2, 1])],
        ),
        "masks do not fit|small: ",
    ),
    "more masks out": (
        lambda: network(
            outputs=[("mask", FLOAT, ["a", "b", "c", "d"])],
            nodes=[helper.make_node("Concat", ["magnitude", "magnitude", "magnitude"], ["mask"], axis=0)],
        ),
        "masks do not fit|small: ",
    ),
    "an odd number of values out": (
        lambda: network(
            outputs=[("mask", FLOAT, ["a", "b", "c", "d"])],
            nodes=[
                helper.make_node("GlobalAveragePool", ["magnitude"], ["m"]),
                helper.make_node("ReduceMax", ["m"], ["mask"]),
            ],
        ),
        "small: ",
    ),
    "unknown operator": (lambda: network(nodes=[helper.make_node("Boom", ["magnitude"], ["mask"])]), "cannot load"),
    "operator of a foreign library": (
        lambda: network(nodes=[helper.make_node("Run", ["magnitude"], ["mask"], domain="evil")]),
        "cannot load",
    ),
    "pickle": (lambda: pickle.dumps(Spark()), "cannot load the graph"),
}


@pytest.mark.parametrize("case", WRONG_GRAPHS)
def test_a_graph_of_another_kind_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    content, reason = WRONG_GRAPHS[case]
    folder = write_model(tmp_path / "small", content())
    monkeypatch.chdir(tmp_path)
    refused(folder, reason)
    assert not (tmp_path / "burnt").exists()


def test_weights_outside_the_file_are_refused(tmp_path: Path) -> None:
    """Weights beside the graph would be covered by no hash."""
    model = onnx.load_from_string(network(nodes=[helper.make_node("Add", ["magnitude", "weight"], ["mask"])]))
    weight = helper.make_tensor("weight", FLOAT, [64], np.zeros(64, np.float32).tobytes(), raw=True)
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="weights.bin")
    model.graph.initializer.append(weight)
    folder = write_model(tmp_path / "small", model.SerializeToString())
    (folder / "weights.bin").write_bytes(bytes(256))
    refused(folder, "cannot load the graph")


BAD_SETTINGS = [
    ("fft = 256", "fft = 100", "fit together"),
    ("fft = 256", "fft = 0", "fft"),
    ("fft = 256", "fft = 1e9", "fft"),
    ("stft_hop = 64", "stft_hop = 60", "fit together"),
    ("stft_hop = 64", "stft_hop = 256", "fit together"),
    ("bins = 64", "bins = 200", "fit together"),
    ("stride = 8", "stride = 7", "fit together"),
    ("stride = 8", "stride = 0", "stride"),
    ("trim = [0, 0]", "trim = [9, 0]", "fit together"),
    ("trim = [0, 0]", "trim = [-1, 0]", "fit together"),
    ("trim = [0, 0]", "trim = [0]", "trim"),
    ("trim = [0, 0]", "trim = [0, 0]\nphases = 65", "fit together"),
    ("trim = [0, 0]", "trim = [0, 0]\nphases = -1", "phases"),
    ("trim = [0, 0]", "trim = [0, 0]\nphases = 8", "'spectrum': 5"),
    ("frames = 32", "frames = 16", "fit together"),
    ("frames = 32", "frames = 1000000", "frames"),
    ("frames = 32", "frames = 32\nfade = 12", "fade|fit together"),
    ("right = 8", "right = 24", "fit together"),
    ("left = 8", "left = 8\ncolour = 1", "colour"),
    ("left = 8\n", "", "left"),
]  # fmt: skip


@pytest.mark.parametrize(("good", "bad", "reason"), BAD_SETTINGS)
def test_settings_that_do_not_fit_are_refused(tmp_path: Path, good: str, bad: str, reason: str) -> None:
    assert good in SPLEETER
    refused(write_model(tmp_path / "small", network(), SPLEETER.replace(good, bad)), reason)


def test_an_unknown_profile_is_refused_with_the_nearest(passthrough_folder: Path) -> None:
    with pytest.raises(ModelError, match="passthrough: Unknown profile 'ofline'.*Did you mean 'offline'?"):
        Separator(passthrough_folder, profile="ofline")


@pytest.mark.parametrize(
    "command", [["models", "info"], ["models", "verify"], ["split", "x.wav", "-o", "out", "--model"]]
)
def test_every_command_tells_a_bad_model(tmp_path: Path, capfd: pytest.CaptureFixture[str], command: list[str]) -> None:
    (tmp_path / "manifest.toml").write_text("x")
    assert run([*command, str(tmp_path)]) == 4
    out, err = capfd.readouterr()
    assert out == "" and err.startswith(f"stemplug: {tmp_path}/manifest.toml: not valid TOML")


def test_a_bad_model_does_not_hide_the_others(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "passthrough"):
        (tmp_path / name).mkdir()
    (tmp_path / "a" / "manifest.toml").write_text("[" * 100_000)
    (tmp_path / "passthrough" / "manifest.toml").write_text(GOOD)
    monkeypatch.setenv("STEMPLUG_MODELS", f"{tmp_path}:/proc/1/none:/nowhere:/dev/null")
    assert run(["models", "list"]) == 0
    out, err = capfd.readouterr()
    assert "passthrough" in out and "spleeter-2stems" in out and "Traceback" not in err


def test_masks_that_fit_at_first_and_not_later_are_told(tmp_path: Path) -> None:
    nodes = [
        *(helper.make_node("Constant", [], [f"c{i}"], value_ints=[i]) for i in (0, 1, 3, 8)),
        helper.make_node("Shape", ["magnitude"], ["frames"], start=2, end=3),
        helper.make_node("Div", ["frames", "c8"], ["strides"]),
        helper.make_node("Sub", ["c3", "strides"], ["end"]),  # of 8 frames, as at loading, both channels; of 32 one
        helper.make_node("Slice", ["magnitude", "c0", "end", "c1"], ["mask"]),
    ]
    content = network(outputs=[("mask", FLOAT, ["a", "b", "c", "d"])], nodes=nodes)
    separator = Separator(write_model(tmp_path / "small", content), threads=1)
    with pytest.raises(ModelError, match="masks do not fit"):
        separator.separate(np.full((2, 5000), 0.1, np.float32), 44100)
