"""Stems files of Native Instruments: five streams of one length and start, found by DJ software and by players."""

from __future__ import annotations

import importlib
import json
import random
import resource
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np
import pytest
import soundfile
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stemplug.audio import Audio, AudioReader
from stemplug.errors import OptionError, StemPlugError, TrackError
from stemplug.tracks.project import COLORS, Stem
from stemplug.tracks.stem_mp4 import CODECS, SLOTS, StemFile, assign_slots, read_stem_mp4, write_stem_mp4
from tests.conftest import RATE, example_song

AAC_DELAY = 1024
HALF_A_STEP = 2.0**-24


@pytest.fixture(scope="module")
def true_stems() -> Audio:
    """``(4, 2, frames)``: 3 seconds and 17 frames of real drums, bass, other, vocals."""
    return read_stem_mp4(example_song()).audio[1:, :, 60_000 : 60_000 + 3 * RATE + 17]


def stems_of(folder: Path, audio: Audio, names: tuple[str, ...] = SLOTS, rate: int = RATE) -> list[Stem]:
    """WAV files of ``(stems, channels, frames)``."""
    for name, one in zip(names, audio, strict=True):
        soundfile.write(folder / f"{name}.wav", one.T, rate, subtype="FLOAT")
    return [Stem(name, folder / f"{name}.wav") for name in names]


def round_trip(
    folder: Path, audio: Audio, codec: str, names: tuple[str, ...] = SLOTS, rate: int = RATE
) -> tuple[Path, StemFile]:
    path = folder / "song.stem.mp4"
    write_stem_mp4(path, stems_of(folder, audio, names, rate), "A song", codec)
    return path, read_stem_mp4(path)


def with_mix(stems: Audio) -> Audio:
    return np.concatenate([stems.sum(axis=0, keepdims=True), stems])


def boxes(content: bytes, path: str) -> list[bytes]:
    """Contents of the boxes at a path such as "moov/trak/tkhd": a reader of its own, not the one that is tested."""
    kind, _, rest = path.partition("/")
    found, at = [], 0
    while at < len(content):
        size, name = struct.unpack_from(">I4s", content, at)
        assert size >= 8 and at + size <= len(content)
        if name.decode("latin-1") == kind:
            body = content[at + (12 if kind == "meta" else 8) : at + size]
            found += boxes(body, rest) if rest else [body]
        at += size
    return found


def shift(found: Audio, expected: Audio) -> int:
    """By how many frames one lies after the other: the peak of their cross-correlation."""
    size = 2 * found.shape[-1]
    product = np.fft.rfft(found[0], size) * np.conj(np.fft.rfft(expected[0], size))
    peak = int(np.argmax(np.fft.irfft(product, size)))
    return peak if peak < size // 2 else peak - size


def snr_db(found: Audio, expected: Audio) -> float:
    return float(20 * np.log10(np.linalg.norm(expected) / np.linalg.norm(found - expected)))


@pytest.mark.parametrize("rate", [44100, 48000])
@pytest.mark.parametrize("frames", [1, 1023, 1024, 3 * RATE + 17])
def test_alac_is_exact_to_24_bits(tmp_path: Path, true_stems: Audio, frames: int, rate: int) -> None:
    audio = true_stems[:, :, :frames]
    _, file = round_trip(tmp_path, audio, "alac", rate=rate)
    assert file.sample_rate == rate and file.audio.shape == (5, 2, frames)
    assert np.abs(file.audio - with_mix(audio)).max() <= HALF_A_STEP


@pytest.mark.parametrize("rate", [44100, 48000])
def test_aac_is_close_and_not_shifted(tmp_path: Path, true_stems: Audio, rate: int) -> None:
    audio = true_stems * np.minimum(1, np.arange(true_stems.shape[2], dtype=np.float32) / 2000)
    _, file = round_trip(tmp_path, audio, "aac", rate=rate)
    for found, expected in zip(file.audio, with_mix(audio), strict=True):
        assert found.shape == expected.shape
        assert shift(found, expected) == 0
        assert snr_db(found, expected) >= 20


@settings(max_examples=20)
@given(frames=st.integers(1, 5000), codec=st.sampled_from(CODECS), channels=st.integers(1, 2))
@example(frames=1, codec="aac", channels=2)
@example(frames=1023, codec="aac", channels=2)
@example(frames=1024, codec="aac", channels=2)
@example(frames=4096, codec="alac", channels=2)
@example(frames=(1 << 15) + 1, codec="aac", channels=1)
def test_all_streams_have_the_songs_length_and_start(frames: int, codec: str, channels: int) -> None:
    clicks = np.zeros((4, channels, frames), np.float32)
    clicks[:, :, frames // 2] = 0.2
    with TemporaryDirectory() as folder:
        path, file = round_trip(Path(folder), clicks, codec)
        content = path.read_bytes()
    assert file.audio.shape == (5, 2, frames)
    assert np.all(np.argmax(np.abs(file.audio), axis=2) == frames // 2)
    (movie,) = boxes(content, "moov/mvhd")
    assert struct.unpack_from(">II", movie, 12) == (RATE, frames)
    delay = AAC_DELAY if codec == "aac" else 0
    for edit in boxes(content, "moov/trak/edts/elst"):
        assert struct.unpack(">IIIiHH", edit) == (0, 1, frames, delay, 1, 0)
    for media in boxes(content, "moov/trak/mdia/mdhd"):
        assert struct.unpack_from(">II", media, 12) == (RATE, delay + frames)


def test_the_file_has_what_dj_software_looks_for(tmp_path: Path, true_stems: Audio) -> None:
    path, file = round_trip(tmp_path, true_stems[:, :, :5000], "aac")
    content = path.read_bytes()
    assert content[4:12] == b"ftypM4A "
    assert [head[3] & 1 for head in boxes(content, "moov/trak/tkhd")] == [1, 0, 0, 0, 0]
    assert boxes(content, "moov/udta/meta/ilst/TAUT/data") == [b"\0\0\0\1\0\0\0\0STEM"]
    (manifest,) = map(json.loads, boxes(content, "moov/udta/stem"))
    (reference,) = map(json.loads, boxes(example_song().read_bytes(), "moov/udta/stem"))
    assert manifest["version"] == 1
    assert [list(stem) for stem in manifest["stems"]] == [["name", "color"]] * 4
    for part, values in reference["mastering_dsp"].items():
        assert manifest["mastering_dsp"][part] == pytest.approx({**values, "enabled": False})
    assert file.names == ("Drums", "Bass", "Other", "Vocals")
    assert file.colors == tuple(COLORS[slot] for slot in SLOTS)
    with av.open(str(path)) as container:
        assert container.metadata["title"] == "A song"
        names = [stream.metadata["handler_name"] for stream in container.streams.audio]
    assert names == ["Mix", *file.names]


@pytest.mark.parametrize("codec", CODECS)
def test_players_play_the_mixture(tmp_path: Path, true_stems: Audio, codec: str) -> None:
    path, file = round_trip(tmp_path, true_stems, codec)
    with AudioReader(path) as reader:
        mixture = np.concatenate(list(reader.blocks()), axis=1)
    assert np.abs(mixture - file.audio[0]).max() <= 1e-6


def test_the_song_of_nis_own_tool_is_read() -> None:
    file = read_stem_mp4(example_song())
    assert file.names == ("Drums", "Bass", "Other", "Vox") and file.colors[0] == (0x00, 0x9E, 0x73)
    assert file.audio.shape == (5, 2, 262 * 1024) and file.sample_rate == RATE
    # Without an edit list, FFmpeg decodes it alike, but for a reader that drops the first stems.
    with AudioReader(example_song()) as reader:
        assert np.array_equal(np.concatenate(list(reader.blocks()), axis=1), file.audio[0])


@pytest.mark.skipif(not (shutil.which("ffmpeg") and shutil.which("ffprobe")), reason="stempeg needs ffmpeg and ffprobe")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("codec", CODECS)
def test_stempeg_reads_it(tmp_path: Path, true_stems: Audio, codec: str) -> None:
    stempeg = importlib.import_module("stempeg")
    path, file = round_trip(tmp_path, true_stems, codec)
    found, rate = stempeg.read_stems(str(path), multiprocess=False)
    # FFmpeg up to 7 leaves the encoder's padding at the end, in all streams alike.
    assert rate == RATE and 0 <= found.shape[1] - file.audio.shape[2] < 1024
    assert np.abs(found[:, : file.audio.shape[2]].transpose(0, 2, 1) - file.audio).max() <= 1e-4
    assert stempeg.Info(str(path)).title_streams == ["Mix", "Drums", "Bass", "Other", "Vocals"]


@pytest.mark.parametrize(
    ("names", "called", "stems", "note"),
    [
        (("vocals", "drums", "bass", "other"), "Drums Bass Other Vocals", ("drums", "bass", "other", "vocals"), None),
        (
            ("vocals", "accompaniment"),
            "Drums Bass Accompaniment Vocals",
            ("", "", "accompaniment", "vocals"),
            "2 stems in four slots: Drums and Bass are silent",
        ),
        (
            ("drums", "no_drums"),
            "Drums Bass No drums Vocals",
            ("drums", "", "no_drums", ""),
            "2 stems in four slots: Bass and Vocals are silent",
        ),
        (
            ("bass", "drums", "guitar", "other", "piano", "vocals"),
            "Drums Bass Other Vocals",
            ("drums", "bass", "guitar other piano", "vocals"),
            "6 stems in four slots: Other holds guitar, other and piano",
        ),
        (
            ("drums", "guitar", "piano"),
            "Drums Bass Other Vocals",
            ("drums", "", "guitar piano", ""),
            "3 stems in four slots: Other holds guitar and piano; Bass and Vocals are silent",
        ),
        (("drums", "bass", "guitar", "Vox"), "Drums Bass Guitar Vox", ("drums", "bass", "guitar", "Vox"), None),
        (
            ("kick", "snare", "cymbals"),
            "Kick Snare Cymbals Vocals",
            ("kick", "snare", "cymbals", ""),
            "3 stems in four slots: Vocals is silent",
        ),
        (("strings",), "Drums Bass Strings Vocals", ("", "", "strings", ""), "1 stem in four slots: Drums, Bass and"),
    ],
)
def test_stems_fill_the_slots(names: tuple[str, ...], called: str, stems: tuple[str, ...], note: str | None) -> None:
    slots = assign_slots(names)
    assert " ".join(slots.names) == called
    assert slots.stems == tuple(tuple(held.split()) for held in stems)
    assert slots.note == note or (note and slots.note and slots.note.startswith(note))


def test_the_two_stems_of_a_model_leave_slots_silent(tmp_path: Path, true_stems: Audio) -> None:
    vocals, rest = true_stems[3, :, :9999], true_stems[0, :, :9999]
    _, file = round_trip(tmp_path, np.stack([vocals, rest]), "alac", ("vocals", "accompaniment"))
    silence = np.zeros_like(rest)
    expected = np.stack([vocals + rest, silence, silence, rest, vocals])
    assert np.abs(file.audio - expected).max() <= HALF_A_STEP
    assert file.names == ("Drums", "Bass", "Accompaniment", "Vocals")


def test_six_stems_are_summed_to_four(tmp_path: Path, true_stems: Audio) -> None:
    drums, bass, other, vocals = true_stems[:, :, :9999]
    names = ("vocals", "drums", "bass", "guitar", "piano", "other")
    _, file = round_trip(tmp_path, np.stack([vocals, drums, bass, other / 2, other / 4, other / 4]), "alac", names)
    assert np.abs(file.audio - with_mix(true_stems[:, :, :9999])).max() <= 4 * HALF_A_STEP  # of six floats


@pytest.mark.parametrize("codec", CODECS)
def test_samples_beyond_full_scale_saturate(tmp_path: Path, codec: str) -> None:
    tone = 0.5 * np.sin(np.arange(9999) / 9).astype(np.float32) * np.ones((4, 2, 1), np.float32)
    _, file = round_trip(tmp_path, tone, codec)
    expected = np.clip(with_mix(tone), -1, 1)
    if codec == "alac":
        assert np.abs(file.audio - expected).max() <= 2 * HALF_A_STEP  # 1 itself is no 24-bit sample
    else:
        assert all(snr_db(*pair) >= 20 for pair in zip(file.audio, expected, strict=True))


@pytest.mark.parametrize("name", ["Größe 🎧.stem.mp4", "caf\udce9.stem.mp4", "x" * 240 + ".stem.mp4"])
def test_names_need_not_be_text(tmp_path: Path, true_stems: Audio, name: str) -> None:
    write_stem_mp4(tmp_path / name, stems_of(tmp_path, true_stems[:, :, :99]), name)
    assert read_stem_mp4(tmp_path / name).audio.shape[2] == 99


class TestRefusals:
    """What cannot be written is told in one line."""

    @pytest.fixture
    def stems(self, tmp_path: Path) -> list[Stem]:
        return stems_of(tmp_path, np.full((4, 2, 20_000), 0.1, np.float32))

    def test_options(self, tmp_path: Path, stems: list[Stem]) -> None:
        with pytest.raises(OptionError, match="Unknown codec 'acc'.*Did you mean 'aac'"):
            write_stem_mp4(tmp_path / "x", stems, "", "acc")
        with pytest.raises(OptionError, match="at least 1 is expected"):
            write_stem_mp4(tmp_path / "x", [], "")
        with pytest.raises(OptionError, match="each is expected once"):
            write_stem_mp4(tmp_path / "x", [stems[0], stems[0]], "")
        assert not (tmp_path / "x").exists()

    @pytest.mark.parametrize(
        ("audio", "rate", "kind", "message"),
        [
            (np.zeros((2, 99)), 96000, OptionError, "cannot hold 96000 Hz.*Resample"),
            (np.zeros((3, 99)), RATE, TrackError, "3 channels, 1 or 2 expected"),
            (np.zeros((2, 0)), RATE, TrackError, "0 frames"),
            (np.full((2, 99), np.nan), RATE, TrackError, "NaN"),
            (np.full((2, 99), np.inf), RATE, TrackError, "infinity"),
        ],
    )
    def test_audio(self, tmp_path: Path, audio: Audio, rate: int, kind: type[Exception], message: str) -> None:
        stems = stems_of(tmp_path, np.stack([audio] * 4), rate=rate)
        with pytest.raises(kind, match=message):
            write_stem_mp4(tmp_path / "x", stems, "song")

    @pytest.mark.parametrize("other", [np.zeros((2, 98)), np.zeros((1, 20_000))])
    def test_stems_of_another_song(self, tmp_path: Path, stems: list[Stem], other: Audio) -> None:
        soundfile.write(stems[2].path, other.T, RATE)
        with pytest.raises(TrackError, match="stem 'other' has"):
            write_stem_mp4(tmp_path / "x", stems, "song")

    def test_stems_that_are_missing_or_no_audio(self, tmp_path: Path, stems: list[Stem]) -> None:
        stems[1].path.write_bytes(b"RIFF")
        with pytest.raises(TrackError, match="cannot be read"):
            write_stem_mp4(tmp_path / "x", stems, "song")
        stems[1].path.unlink()
        with pytest.raises(TrackError, match="cannot be read"):
            write_stem_mp4(tmp_path / "x", stems, "song")

    def test_no_folder(self, tmp_path: Path, stems: list[Stem]) -> None:
        with pytest.raises(TrackError, match="no such file or directory. Choose another folder"):
            write_stem_mp4(tmp_path / "missing" / "x", stems, "song")

    @pytest.mark.parametrize("codec", CODECS)
    @pytest.mark.parametrize("share", [0.01, 0.5, 0.97, 0.999])
    def test_a_full_disk(
        self, tmp_path: Path, stems: list[Stem], codec: str, share: float, capfd: pytest.CaptureFixture[str]
    ) -> None:
        write_stem_mp4(tmp_path / "x", stems, "song", codec)
        with limited(int(share * (tmp_path / "x").stat().st_size)), pytest.raises(TrackError, match="x'"):
            write_stem_mp4(tmp_path / "x", stems, "song", codec)
        assert capfd.readouterr() == ("", "")


@contextmanager
def limited(size: int) -> Iterator[None]:
    """No file may grow beyond ``size``."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, true_stems: Audio) -> bytes:
    """A file that is whole."""
    return round_trip(tmp_path_factory.mktemp("whole"), true_stems[:, :, :6000], "aac")[0].read_bytes()


class TestDamagedFiles:
    """A file is read as it was written, or refused in one line that names it."""

    def refused(self, path: Path, content: bytes, reason: str) -> None:
        path = path / "song.stem.mp4"
        path.write_bytes(content)
        with pytest.raises(TrackError, match=reason) as caught:
            read_stem_mp4(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)

    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(TrackError, match="no such file or directory. Check the path"):
            read_stem_mp4(tmp_path / "x")
        with pytest.raises(TrackError, match="is a directory"):
            read_stem_mp4(tmp_path)

    def test_no_mp4(self, tmp_path: Path) -> None:
        self.refused(tmp_path, b"", "no box 'moov' in it")
        self.refused(tmp_path, b"RIFF\0\0\0\0WAVE", "does not fit")
        self.refused(tmp_path, struct.pack(">I4s", 8, b"free") * 10_001, "more than 10000 boxes")

    def test_an_mp4_of_no_stems(self, tmp_path: Path, whole: bytes) -> None:
        self.refused(tmp_path, whole.replace(b'{"mast', b'!"mast'), "does not hold names and colours")
        self.refused(tmp_path, whole.replace(b"stem{", b"stam{"), "no box 'stem' in its box 'udta'")
        self.refused(tmp_path, whole.replace(b"soun", b"text", 1), "5 audio streams of one rate and length expected")

    @pytest.mark.parametrize("share", [0.001, 0.3, 0.8, 0.95, 0.9999])
    def test_truncated(self, tmp_path: Path, whole: bytes, share: float) -> None:
        self.refused(tmp_path, whole[: int(share * len(whole))], "no box 'moov'|does not fit")

    @pytest.mark.parametrize("kind", [b"moov", b"trak", b"udta", b"mdia", b"elst", b"stem", b"edts"])
    @pytest.mark.parametrize("size", [2, 1, 7, 9, 0x7FFFFFFF, 0xFFFFFFFF])
    def test_hostile_sizes(self, tmp_path: Path, whole: bytes, kind: bytes, size: int) -> None:
        at = whole.rindex(kind, whole.index(b"moov")) - 4
        self.refused(tmp_path, whole[:at] + struct.pack(">I", size) + whole[at + 4 :], "song.stem.mp4")

    @pytest.mark.parametrize(("frames", "delay"), [(0xFFFFFFFF, 0), (5999, 1024), (1, -5), (1, 1 << 30)])
    def test_edit_lists_that_are_not_the_songs(self, tmp_path: Path, whole: bytes, frames: int, delay: int) -> None:
        at = whole.rindex(b"elst") + 12
        self.refused(tmp_path, whole[:at] + struct.pack(">Ii", frames, delay) + whole[at + 8 :], "frames")

    @pytest.mark.parametrize(
        "manifest",
        [
            b"",
            b"\xff",
            b"[]",
            b"7",
            b"{}",
            b"[" * 100_000,
            b'{"stems": null}',
            b'{"stems": [1, 2, 3, 4]}',
            b'{"stems": {"name": "x"}}',
            json.dumps({"stems": [{"name": "x", "color": "#123456"}] * 3}).encode(),
            json.dumps({"stems": [{"name": "x", "color": "#12345"}] * 4}).encode(),
            json.dumps({"stems": [{"name": "x", "color": 5}] * 4}).encode(),
            json.dumps({"stems": [{"name": None, "color": "#123456"}] * 4}).encode(),
            b" " * (1 << 20) + b"{}",
        ],
    )
    def test_manifests_of_another_shape(self, tmp_path: Path, whole: bytes, manifest: bytes) -> None:
        content = bytearray(whole)
        stem = whole.rindex(b"stem{") - 4
        content[stem:] = struct.pack(">I4s", 8 + len(manifest), b"stem") + manifest
        for kind in (b"moov", b"udta"):
            at = whole.rindex(kind) - 4
            content[at : at + 4] = struct.pack(">I", len(content) - at)
        self.refused(tmp_path, bytes(content), "stem box")

    def test_wounds_of_any_kind(self, tmp_path: Path, whole: bytes) -> None:
        chance = random.Random(0)
        path = tmp_path / "song.stem.mp4"
        boxes_from = whole.rindex(b"moov")
        for _ in range(150):
            content = bytearray(whole)
            for _ in range(chance.randint(1, 4)):
                at = chance.randrange(boxes_from if chance.random() < 0.8 else 0, len(content) - 8)
                size = chance.choice((1, 1, 4, 8))
                content[at : at + size] = chance.choice((chance.randbytes(size), b"", b"\xff" * size, b"\0" * size))
            path.write_bytes(content)
            try:
                file = read_stem_mp4(path)
            except StemPlugError as error:
                assert str(path) in str(error) and "\n" not in str(error)
            else:
                assert file.audio.shape[:2] == (5, 2) and len(file.names) == len(file.colors) == 4
