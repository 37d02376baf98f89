"""Options that do not exist or contradict each other, and places that cannot be written: told, with nothing left."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import pytest
import soundfile

from stemplug.cli.program import INPUT, OUTPUT, USAGE, run
from tests.audio.test_fuzz import SUFFIXES, encoded
from tests.cli.test_bad_files import WITHOUT_PRIVILEGES, check_message, contents, limited, refused
from tests.conftest import RATE

MODEL = 4  # the exit code

Refused = Callable[..., str]


@pytest.fixture
def song(tmp_path: Path) -> Path:
    """Half a second."""
    path = tmp_path / "song.wav"
    path.write_bytes(encoded("wav"))
    return path


@pytest.fixture
def split_refused(
    tmp_path: Path, song: Path, passthrough_folder: Path, capfd: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Split half a second with the pass-through model into tmp_path / "out", expecting a refusal."""

    def check(code: int, *options: object, mentions: list[str]) -> str:
        arguments = ["split", song, "-o", tmp_path / "out", "--model", passthrough_folder, *options]
        return refused(capfd, tmp_path, code, *arguments, mentions=mentions)

    return check


UNKNOWN = [
    (["--stems", "vocal"], USAGE, ["stem 'vocal'", "drums, other, vocals", "Did you mean 'vocals'?"]),
    (["--fold", "Vocals"], USAGE, ["stem 'Vocals'", "Did you mean 'vocals'?"]),
    (["--fold", "xyz"], USAGE, ["stem 'xyz'", "drums, other, vocals"]),
    (["--format", "wave"], USAGE, ["format 'wave'", "Did you mean 'wav'?"]),
    (["--format", "FLAC"], USAGE, ["format 'FLAC'", "flac, mp3, ogg, wav"]),
    (["--bit-depth", "32"], USAGE, ["bit depth '32'", "Did you mean '32f'?"]),
    (["--clip", "clam"], USAGE, ["clip mode 'clam'", "Did you mean 'clamp'?"]),
    (["--model", "spleeter-2stems", "--device", "cud"], MODEL, ["device 'cud'", "Did you mean 'cuda'?"]),
    (["--model", "spleter-2stems"], MODEL, ["model 'spleter-2stems'", "Did you mean 'spleeter-2stems'?"]),
    (["--model", ""], MODEL, ["model ''", "spleeter-2stems"]),
    (["--overwite"], USAGE, ["--overwite", "--overwrite"]),
    (["--bitdepth", "16"], USAGE, ["--bitdepth", "--bit-depth"]),
]


@pytest.mark.parametrize(
    ("options", "code", "mentions"),
    UNKNOWN,
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else None,
)
def test_what_does_not_exist_is_told_with_the_nearest(
    split_refused: Refused, options: list[str], code: int, mentions: list[str]
) -> None:
    split_refused(code, *options, mentions=mentions)


@pytest.mark.parametrize(
    ("arguments", "mentions"),
    [
        (["splt"], ["'splt'", "split"]),
        (["models", "lst"], ["'lst'", "list"]),
        (["split"], ["SONG"]),
        (["split", "song.wav"], ["--output"]),
        (["split", "-o", "out"], ["SONG"]),
        (["--verson"], ["--verson", "--version"]),
        (["models", "info", "spleeter-2stem"], []),
    ],
)
def test_unknown_commands_and_missing_arguments_are_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], mentions: list[str]
) -> None:
    code = MODEL if "info" in arguments else USAGE
    refused(
        capfd, tmp_path, code, *arguments, mentions=[*mentions, "'spleeter-2stems'?" if code == MODEL else "--help"]
    )


CONTRADICTIONS = [
    (["--fold", "vocals", "--stems", "drums"], ["drums", "instrumental, vocals"]),
    (["--stems", "vocals,vocals"], ["vocals, vocals", "each once"]),
    (["--stems", ","], ["name one or more"]),
    (["--format", "mp3", "--bit-depth", "16"], ["bit depth 16", "mp3", "Leave --bit-depth out"]),
    (["--format", "ogg", "--bit-depth", "32f"], ["bit depth 32f", "ogg"]),
    (["--format", "flac", "--bit-depth", "32f"], ["FLAC", "--format wav", "--bit-depth 24"]),
    (["--start", "0.4", "--end", "0.2"], ["--start 0.4", "--end 0.2"]),
    (["--start", "0.2", "--end", "0.2"], ["--start 0.2"]),
    (["--start", "1:00"], ["60", "past the end", "song.wav", "0.500 s"]),
    (["--start", "0.5"], ["past the end"]),
    (["--end", "0"], ["0"]),
    *(
        (["--start", time], [f"'{time}'", "1:30.5"])
        for time in ("-1", "1:-30", "x", "", "nan", "inf", "1:2:3:4", "1,5", "1e999")
    ),
    (["--end", "inf"], ["'inf'", "1:30.5"]),
    *((["--threads", str(threads)], [str(threads), "1 to 256"]) for threads in (0, -1, 257, 10000)),
    (["--threads", "x"], ["--threads", "integer"]),
    (["--threads", "1.5"], ["--threads", "integer"]),
    (["--name", "{song}"], ["--name '{song}'", "{stem} is missing"]),
    (["--name", "{stem}/{title}"], ["--name '{stem}/{title}'", "'title'", "model, song, stem"]),
    (["--name", "{stems}"], ["'stems'", "Did you mean 'stem'?"]),
    (["--name", "{stem"], ["--name '{stem'", "Example: '{song}/{stem}'"]),
    (["--name", "{}{stem}"], ["--name '{}{stem}'"]),
    (["--name", "{stem.__class__}{stem}"], ["--name '{stem.__class__}{stem}'"]),
    (["--name", "{stem[0]}{stem}"], ["--name '{stem[0]}{stem}'"]),
    (["--name", "{stem:>99999}"], ["--name"]),
    (["--name", "{stem:d}"], ["--name"]),
    (["--name", "{stem!x}"], ["--name"]),
    (["--name", ""], ["{stem} is missing"]),
    (["--name", "/tmp/{stem}"], ["--name '/tmp/{stem}'", "inside"]),
    (["--name", "../{stem}"], ["--name '../{stem}'", "inside"]),
    (["--name", "a/../../{stem}"], ["inside"]),
    (["--name", "~/{stem}"], ["inside"]),
    (["--name", "x" * 250 + "{stem}"], ["255 at most", "shorter --name"]),
]  # fmt: skip


@pytest.mark.parametrize(("options", "mentions"), CONTRADICTIONS, ids=lambda value: " ".join(value)[:40])
def test_wrong_values_are_told(split_refused: Refused, options: list[str], mentions: list[str]) -> None:
    split_refused(USAGE, *options, mentions=mentions)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_start_past_the_end_of_the_song_is_told(
    tmp_path: Path, passthrough_folder: Path, capfd: pytest.CaptureFixture[str], suffix: str
) -> None:
    """Also where the length of the song is known only at its end."""
    song = tmp_path / f"song.{suffix}"
    song.write_bytes(encoded(suffix))
    arguments = ["split", song, "-o", tmp_path / "out", "--model", passthrough_folder, "--start", "0:02"]
    refused(capfd, tmp_path, USAGE, *arguments, mentions=["start 2", "past the end", str(song)])


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="CUDA is there")
def test_a_device_that_is_not_there_is_told(split_refused: Refused) -> None:
    split_refused(MODEL, "--model", "spleeter-2stems", "--device", "cuda", mentions=["'cuda'", "cpu", "--device auto"])


def test_two_songs_of_one_output_name_are_refused(split_refused: Refused, tmp_path: Path) -> None:
    other = tmp_path / "other" / "song.flac"
    other.parent.mkdir()
    other.write_bytes(encoded("flac"))
    split_refused(USAGE, other, mentions=[str(other), str(tmp_path / "song.wav"), "Rename"])


@pytest.mark.parametrize("options", [[], ["--overwrite"]])
def test_a_song_does_not_become_its_own_stem(
    tmp_path: Path, passthrough_folder: Path, capfd: pytest.CaptureFixture[str], options: list[str]
) -> None:
    song = tmp_path / "vocals.wav"
    song.write_bytes(encoded("wav"))
    arguments = ["split", song, "-o", tmp_path, "--name", "{stem}", "--model", passthrough_folder, *options]
    refused(capfd, tmp_path, USAGE, *arguments, mentions=[str(song), "is the song itself", "--name"])


@pytest.mark.parametrize("kind", ["file", "folder", "dangling link"])
def test_what_exists_is_kept_unless_told_otherwise(
    split_refused: Refused, tmp_path: Path, song: Path, passthrough_folder: Path, kind: str
) -> None:
    track = tmp_path / "out" / "song" / "drums.wav"
    track.parent.mkdir(parents=True)
    (tmp_path / "out" / "other.txt").write_text("kept")
    if kind == "file":
        track.write_text("old")
    elif kind == "folder":
        track.mkdir()
    else:
        track.symlink_to("nowhere")
    split_refused(USAGE, mentions=[str(track), "Choose" if kind == "folder" else "--overwrite"])
    if kind == "folder":
        return
    code = run(["split", str(song), "-o", str(tmp_path / "out"), "--model", str(passthrough_folder), "--overwrite"])
    assert code == 0 and soundfile.info(track).frames == RATE // 2
    assert (tmp_path / "out" / "other.txt").read_text() == "kept"
    assert len(contents(tmp_path / "out")) == 6


def test_an_output_that_is_a_file_is_refused(split_refused: Refused, tmp_path: Path, song: Path) -> None:
    for output in (song, song / "below"):
        split_refused(OUTPUT, "-o", output, mentions=[str(song), "Choose another folder"])
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "song").write_text("no folder")
    split_refused(OUTPUT, "-o", tmp_path / "taken", mentions=[str(tmp_path / "taken")])


@pytest.mark.parametrize(
    "output", ["locked", "locked/new", "/proc/stemplug", "/dev/null/x", "long" * 100, "deep/" * 900 + "out"]
)
def test_an_output_that_cannot_be_written_is_refused(
    tmp_path: Path, song: Path, passthrough_folder: Path, output: str
) -> None:
    (tmp_path / "locked").mkdir(mode=0o555)
    before = contents(tmp_path)
    arguments = ["split", song, "-o", output, "--model", passthrough_folder]
    done = limited(WITHOUT_PRIVILEGES, *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (OUTPUT, ""), done.stderr[:999]
    assert f"cannot write to '{output}'" in done.stderr and "Choose another folder" in done.stderr
    check_message(done.stderr.replace(output, "OUTPUT"))
    assert contents(tmp_path) == before


def test_a_name_that_is_too_deep_is_refused(split_refused: Refused) -> None:
    split_refused(OUTPUT, "--name", "deep/" * 900 + "{stem}", mentions=["too long"])


@pytest.mark.parametrize("options", [[], ["--clip", "rescale"]])
@pytest.mark.parametrize("format", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize("limit", [100, 30_000])
def test_a_full_disk_leaves_nothing(
    tmp_path: Path, song: Path, passthrough_folder: Path, format: str, options: list[str], limit: int
) -> None:
    """A limit on the size of files stands for the disk: writes fail in the middle, or in the header already."""
    song.write_bytes(encoded("wav", 3 * RATE))
    before = contents(tmp_path)
    preparation = (
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
    )
    arguments = ["split", song, "-o", tmp_path / "out", "--model", passthrough_folder, "--format", format, *options]
    done = limited(preparation, *arguments, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    assert (done.returncode, done.stdout) == (OUTPUT, ""), done.stderr
    check_message(done.stderr, "out")
    assert any(advice in done.stderr for advice in ("free some space", "Is the disk full?"))
    assert contents(tmp_path) == before


def test_no_room_on_the_disk_is_told_before_the_work(
    split_refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    split_refused(OUTPUT, mentions=[str(tmp_path / "out"), "are needed", "free", "--format flac"])


def test_mp3_at_a_rate_it_cannot_hold_is_refused(split_refused: Refused, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "song.wav", [[0.1, 0.2]] * 1000, 96000)
    split_refused(USAGE, "--format", "mp3", mentions=["MP3 cannot hold 96000 Hz", "--format wav, flac or ogg"])


def test_bad_songs_of_bench_are_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    refused(capfd, tmp_path, INPUT, "bench", tmp_path / "none.wav", mentions=["none.wav", "no such file"])
