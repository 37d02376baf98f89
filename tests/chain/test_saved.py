"""Chains as plain data and YAML."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pedalboard
import pytest
import yaml
from pedalboard import Chain, Compressor, Convolution, Gain, Mix, Pedalboard, Reverb

from stemplug import Board, ChainError, Mute, Separator, StemSplit
from stemplug.audio import Audio
from stemplug.chain.saved import PLUGINS, parameters
from tests.conftest import RATE

CHAIN = """
# A karaoke version
chain:
  - HighpassFilter: {cutoff_frequency_hz: 30}
  - StemSplit:
      model: MODEL
      vocals: [{Compressor: {threshold_db: -18, ratio: 3}}, {Reverb: {room_size: 0.2}}]
      drums: {Gain: {gain_db: 2}}
      rest: Mute
      gain_db: {vocals: 1.5}
  - Mix: [Gain, {LadderFilter: {mode: HPF24}}]
  - Board: [null, Invert]
  - Limiter: {threshold_db: -1}
"""


@pytest.fixture
def chain(tmp_path: Path, passthrough_folder: Path) -> Path:
    path = tmp_path / "chain.yaml"
    path.write_text(CHAIN.replace("MODEL", str(passthrough_folder)))
    return path


def test_a_chain_does_what_the_same_board_does(chain: Path, passthrough_folder: Path, song: Audio) -> None:
    board = Board(
        [
            pedalboard.HighpassFilter(30),
            StemSplit(
                model=passthrough_folder,
                vocals=[Compressor(-18, 3), Reverb(0.2)],
                drums=Gain(2),
                rest=Mute(),
                gain_db={"vocals": 1.5},
            ),
            Mix([Gain(), pedalboard.LadderFilter(pedalboard.LadderFilter.HPF24)]),
            Board([None, pedalboard.Invert()]),
            pedalboard.Limiter(-1),
        ]
    )
    expected = board(song, RATE)
    assert np.array_equal(Board.load(chain)(song, RATE), expected)
    for copy in (Board.from_dict(board.to_dict()), Board.from_dict(json.loads(json.dumps(board.to_dict())))):
        assert copy.to_dict() == board.to_dict()
        assert np.array_equal(copy(song, RATE), expected)


def test_saving_replaces_what_is_there(tmp_path: Path, chain: Path) -> None:
    board, path = Board.load(chain), tmp_path / "saved.yaml"
    path.write_text("old")
    board.save(path)
    assert Board.load(path).to_dict() == board.to_dict() and sorted(tmp_path.iterdir()) == [chain, path]
    with pytest.raises(ChainError, match="cannot write .*no such file or directory"):
        board.save(tmp_path / "missing" / "saved.yaml")


@pytest.mark.parametrize("name", PLUGINS)
def test_every_plugin_keeps_every_setting(name: str, tmp_path: Path, wav: Path) -> None:
    plugin = Convolution(str(wav), 0.3) if name == "Convolution" else PLUGINS[name]()
    changed = 0
    for key in parameters(type(plugin)):
        value = getattr(plugin, key, None)
        if isinstance(value, float) and name != "Convolution":
            with contextlib.suppress(ValueError):  # some are at their least already
                setattr(plugin, key, value * 0.9 + (0.01 if value == 0 else 0))
            changed += getattr(plugin, key) != value
    copy = Board.from_dict(Board([plugin]).to_dict())[0]
    assert type(copy) is type(plugin)
    assert changed or name in ("Convolution", "GSMFullRateCompressor", "Invert")
    for key in parameters(type(plugin)):
        assert getattr(copy, key, None) == getattr(plugin, key, None), key


def test_pedalboards_containers_are_kept() -> None:
    board = Board([Pedalboard([Gain()]), Chain([Mix([Gain(), Reverb()])]), None])
    copy = Board.from_dict(board.to_dict())
    assert [type(stage) for stage in copy] == [Pedalboard, Chain, type(None)]
    assert copy.native and copy.to_dict() == board.to_dict()


@pytest.mark.parametrize("branch", [None, [], Board()])
def test_an_empty_branch_beside_the_rest_is_kept(passthrough_folder: Path, song: Audio, branch: object) -> None:
    board = Board([StemSplit(model=passthrough_folder, vocals=branch, rest=Mute())])
    copy = Board.from_dict(board.to_dict())
    assert list(copy[0].branches) == ["vocals", "rest"]
    assert np.array_equal(copy(song, RATE), board(song, RATE)) and copy(song, RATE).any()


def test_numbers_are_those_of_yaml_1_2(tmp_path: Path) -> None:
    (tmp_path / "chain.yaml").write_text(
        "chain: [{Gain: {gain_db: 1e1}}, {Gain: {gain_db: -.5}}, {Gain: {gain_db: +3}}, ~]"
    )
    board = Board.load(tmp_path / "chain.yaml")
    assert [stage.gain_db for stage in board[:3]] == [10, -0.5, 3] and board[3] is None


def test_a_pipe_as_impulse_response_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(ChainError, match="expected the path of an audio file"):
        Board.from_dict({"chain": [{"Convolution": {"impulse_response_filename": str(tmp_path / "pipe.wav")}}]})


def test_endless_nesting_is_told() -> None:
    data: list[object] = []
    data.append({"Board": data})
    with pytest.raises(ChainError, match="nested too deep"):
        Board.from_dict({"chain": data})


def function(audio: Audio, sample_rate: float) -> Audio:
    return audio


@pytest.mark.parametrize(
    ("stage", "place"),
    [
        (function, r"chain\[1\]: <function function.* cannot be saved: only plugins can"),
        (StemSplit(vocals=[Gain(), function]), r"chain\[1\].StemSplit.vocals\[1\]: <function"),
        (Convolution(np.zeros((1, 10), np.float32), 1, RATE), r"chain\[1\].Convolution.impulse_response_filename"),
    ],
)
def test_what_cannot_be_saved_is_told(stage: Any, place: str) -> None:
    with pytest.raises(ChainError, match=place):
        Board([Gain(), stage]).to_dict()


FAULTS = {
    "unknown stage": ("Limiter", "Limitr", r"line 13: chain\[4\]: Unknown stage 'Limitr'.*Did you mean 'Limiter'"),
    "unknown setting": ("ratio", "rato", r"line 7: .*vocals\[0\].Compressor.rato: Unknown setting.*mean 'ratio'"),
    "unknown value": ("HPF24", "HP24", r"line 11: chain\[2\].Mix\[1\].LadderFilter.mode: Unknown value 'HP24'.*HPF24"),
    "unknown stem": ("drums:", "drum:", "line 6: .*Unknown stem 'drum'.*Did you mean 'drums'"),
    "unknown model": ("model:", "model: x #", "Unknown model 'x'"),
    "unknown key": ("chain:", "chian:", "chian: Unknown setting 'chian'.*Did you mean 'chain'"),
    "no number": ("ratio: 3", "ratio: x", "line 7: .*Compressor.ratio: str 'x'; expected a number"),
    "no list": ("ratio: 3", "ratio: [3]", "Compressor.ratio: list; expected a number"),
    "boolean": ("ratio: 3", "ratio: true", "Compressor.ratio: bool 'True'; expected a number"),
    "a word": ("ratio: 3", "ratio: yes", "Compressor.ratio: str 'yes'; expected a number"),
    "an hour": ("ratio: 3", "ratio: 1:30", "Compressor.ratio: str '1:30'; expected a number"),
    "no int": ("ratio: 3", 'ratio: !!int ""', "not valid YAML .'' is no int"),
    "no float": ("ratio: 3", "ratio: !!float x", "not valid YAML .'x' is no float"),
    "no bool": ("ratio: 3", "ratio: !!bool maybe", "not valid YAML .'maybe' is no bool"),
    "endless number": ("ratio: 3", "ratio: " + "1" * 9000, "not valid YAML"),
    "a list as value": ("mode: HPF24", "mode: [HPF24]", "LadderFilter.mode: Unknown value"),
    "branch named self": ("rest: Mute", "self: Mute", "Unknown stem 'self'"),
    "no list of stages": ("Mix: [Gain, {LadderFilter: {mode: HPF24}}]", "Mix: false", "expected a stage.*bool 'False'"),
    "NaN": ("ratio: 3", "ratio: .nan", "nan is no finite number"),
    "infinite": ("ratio: 3", "ratio: .inf", "inf is no finite number"),
    "NaN gain": ("vocals: 1.5", "vocals: .nan", "gain_db: vocals nan; expected decibels"),
    "gains no table": ("{vocals: 1.5}", "3", "StemSplit.gain_db: expected settings .*, not int '3'"),
    "out of range": ("room_size: 0.2", "room_size: 22", "line 7: .*Reverb: Room Size value must be between"),
    "settings no table": ("{room_size: 0.2}", "5", "Reverb: expected settings .name: value., not int '5'"),
    "two names": ("{Reverb: {room_size: 0.2}}", "{Reverb: {}, Gain: {}}", "expected a stage: a name, or one name"),
    "number as stage": ("Invert", "3", r"chain\[3\].Board\[1\]: expected a stage.*int '3'"),
    "Mute with settings": ("rest: Mute", "rest: {Mute: {a: 1}}", "Mute.a: Unknown setting"),
    "split in a Mix": ("Mix: [Gain", "Mix: [{StemSplit: {}}", r"chain\[2\].Mix: Mix runs plugins only"),
    "a separator": ("rest: Mute", "separator: x", "a separator is for Python"),
    "model a list": ("model:", "model: [] #", "StemSplit.model: list; expected the name"),
    "alias": ("rest: Mute", "rest: &a [*a]", "line 9: not valid YAML .aliases are not allowed"),
    "tag": ("ratio: 3", "ratio: !!python/object/apply:os.system [ls]", "not valid YAML"),
    "own tag": ("ratio: 3", "ratio: !evil 3", "not valid YAML .the tag !evil is not allowed"),
    "key twice": ("rest: Mute", "rest: Mute\n      rest: Mute", "line 10: not valid YAML .a key stands twice"),
    "no YAML": ("chain:", "chain: [", "not valid YAML"),
    "two documents": ("chain:", "a: 1\n---\nchain:", "not valid YAML"),
    "deep": ("chain:", "chain: " + "[" * 50_000, "not valid YAML"),
    "missing plugin": ("Invert", "VST3: {path: missing.vst3}", r"chain\[3\].Board\[1\].*VST3: "),
    "plugin without path": ("Invert", "VST3: {}", "VST3.path: expected the path"),
    "missing response": (
        "Invert",
        "Convolution: {impulse_response_filename: no.wav}",
        "filename: expected the path of an audio file",
    ),
    "no response": ("Invert", "Convolution: {}", "filename: expected the path of an audio file"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_faults_are_told_with_file_line_and_place(chain: Path, case: str) -> None:
    good, bad, reason = FAULTS[case]
    text = chain.read_text()
    assert good in text
    if good == "Invert":
        text = text.replace("[null, Invert]", f"\n    - null\n    - {bad}")
    chain.write_text(text.replace(good, bad, 1))
    with pytest.raises(ChainError, match=reason) as error:
        Board.load(chain)
    assert str(chain) in str(error.value) and len(str(error.value)) < 900 + len(str(chain))


@pytest.mark.parametrize("content", [b"", b"# nothing", b"3", b"[]", b"\xff\xfe\x00", b"chain", b"null", b"\0" * 100])
def test_what_is_no_chain_is_told(chain: Path, content: bytes) -> None:
    chain.write_bytes(content)
    with pytest.raises(ChainError, match="chain.yaml"):
        Board.load(chain)


def test_files_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    with pytest.raises(ChainError, match="missing.yaml: no such file"):
        Board.load(tmp_path / "missing.yaml")
    with pytest.raises(ChainError, match="directory|no regular file"):
        Board.load(tmp_path)
    large = tmp_path / "large.yaml"
    large.write_text("# comment\n" * 200_000)
    with pytest.raises(ChainError, match="larger than 1048576 bytes"):
        Board.load(large)


@pytest.mark.parametrize(
    "data", [None, 3, [], {}, {"chain": 3}, {"chain": [object()]}, {"chain": [{"Gain": {"a": 1}}]}]
)
def test_from_dict_tells_the_place(data: object) -> None:
    with pytest.raises(ChainError, match="chain"):
        Board.from_dict(data)


def test_a_separator_cannot_be_saved(passthrough: Separator) -> None:
    with pytest.raises(ChainError, match="a separator cannot be saved. Give StemSplit a model"):
        Board([StemSplit(separator=passthrough)]).to_dict()


def test_a_saved_chain_is_readable(tmp_path: Path) -> None:
    Board([Reverb(0.2), StemSplit(vocals=Gain(3), rest=Mute())]).save(tmp_path / "chain.yaml")
    table = yaml.safe_load((tmp_path / "chain.yaml").read_text())
    assert table["chain"][0]["Reverb"]["room_size"] == 0.2
    assert table["chain"][1]["StemSplit"] == {
        "model": "default",
        "vocals": [{"Gain": {"gain_db": 3.0}}],
        "rest": ["Mute"],
    }
