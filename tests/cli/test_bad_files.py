"""Songs that cannot be read are refused with one message and exit code 3; odd ones that can be read work."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import stat
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile

from stemplug import Separator, split
from stemplug.audio import AudioReader
from stemplug.cli.program import INPUT, USAGE, run
from stemplug.errors import AudioError
from tests.audio.test_fuzz import SUFFIXES, encoded
from tests.conftest import RATE, Command

# Root may do anything: take that from it, as exec does with what is not in the bounding set (capabilities(7)).
WITHOUT_PRIVILEGES = """
import ctypes
for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP
"""


def limited(preparation: str, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the program in a process that first runs Python code to restrict itself."""
    start = (
        preparation + "\nimport os, sys\nos.execv(sys.executable, [sys.executable, '-m', 'stemplug', *sys.argv[1:]])"
    )
    command = [sys.executable, "-c", start, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


def contents(folder: Path) -> dict[str, object]:
    """All that lies below ``folder``, hidden or not, so that two moments can be compared."""
    found: dict[str, object] = {}
    for path in folder.rglob("*"):
        mode = path.lstat().st_mode
        found[str(path)] = path.read_bytes() if stat.S_ISREG(mode) else stat.S_IFMT(mode)
    return found


def check_message(text: str, *mentions: str) -> str:
    """One screen for people: whose message it is, and all that is mentioned; no traceback."""
    assert text.startswith("stemplug: ") and text.count("\n") <= 6 and len(text) < 1500, text
    assert "Traceback" not in text and "internal error" not in text, text
    for mention in mentions:
        assert mention in text, f"{mention!r} not in {text!r}"
    return text


def refused(capfd: pytest.CaptureFixture[str], folder: Path, code: int, *arguments: object, mentions: list[str]) -> str:
    """Run the program, expecting that it refuses: exit code, message, and nothing left or changed in ``folder``."""
    before = contents(folder)
    found = run([os.fspath(a) if isinstance(a, (str, os.PathLike)) else str(a) for a in arguments])
    out, err = capfd.readouterr()
    assert (found, out) == (code, ""), err
    assert contents(folder) == before
    return check_message(err, *mentions)


def patched(content: bytes, at: int, new: bytes) -> bytes:
    return content[:at] + new + content[at + len(new) :]


def wav(channels: int = 2, rate: int = RATE, data: int | None = None, size: int = 4096) -> bytes:
    """A 16-bit WAV file with any header."""
    frame = 2 * channels
    fields = struct.pack("<HHIIHH", 1, channels, rate, (rate * frame) & 0xFFFFFFFF, frame, 16)
    chunks = b"fmt " + struct.pack("<I", 16) + fields + b"data" + struct.pack("<I", size if data is None else data)
    return (
        b"RIFF"
        + struct.pack("<I", (data or size) + 36 & 0xFFFFFFFF)
        + b"WAVE"
        + chunks
        + bytes(range(256)) * (size // 256)
    )


def flac(rate: int = RATE, channels: int = 2, frames: int = RATE // 2) -> bytes:
    """A FLAC file with any STREAMINFO (RFC 9639, 8.2)."""
    fields = rate << 44 | (channels - 1) << 41 | 15 << 36 | frames
    return patched(encoded("flac"), 18, fields.to_bytes(8, "big"))


def aiff(channels: int | None = None, frames: int | None = None, rate: bytes | None = None) -> bytes:
    """An AIFF file with any COMM chunk; the rate is an 80-bit float."""
    content = encoded("aiff")
    at = content.index(b"COMM") + 8
    for offset, new in (
        (0, channels and struct.pack(">H", channels)),
        (2, frames and struct.pack(">I", frames)),
        (8, rate),
    ):
        content = patched(content, at + offset, new) if new else content
    return patched(content, content.index(b"SSND") + 4, struct.pack(">I", 0xF0000000)) if frames else content


def flipped(content: bytes, first: float, last: float) -> bytes:
    """The file with bits flipped in every 97th byte of a part of it."""
    damaged = bytearray(content)
    for at in range(int(first * len(content)), int(last * len(content)), 97):
        damaged[at] ^= 0x55
    return bytes(damaged)


def float_wav(bad: float, subtype: str = "FLOAT") -> bytes:
    """Silence with one bad sample, at 0.25 s in the second channel."""
    audio = np.zeros((RATE // 2, 2))
    audio[RATE // 4, 1] = bad
    with tempfile.TemporaryDirectory() as folder:
        soundfile.write(Path(folder, "song.wav"), audio, RATE, subtype=subtype)
        return Path(folder, "song.wav").read_bytes()


def silent_film() -> bytes:
    """A video without sound."""
    with tempfile.TemporaryDirectory() as folder:
        with av.open(str(Path(folder, "film.mp4")), "w") as container:
            stream = container.add_stream("mpeg4", rate=10)
            stream.width = stream.height = 64
            for _ in range(5):
                frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return Path(folder, "film.mp4").read_bytes()


# Name, content, and what the message says beside the path.
BAD_CONTENT: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "empty": ("song.wav", lambda: b"", "empty (0 bytes)"),
    "one byte": ("song.wav", lambda: b"R", "not audio"),
    "text": ("song.wav", lambda: b"Dear diary,\n" * 100, "not audio"),
    "zeros": ("song.mp3", lambda: bytes(100_000), "not audio"),
    "picture": ("song.flac", lambda: b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8, "not audio"),
    "script": ("song.py", lambda: b"import os\n", "not audio"),
    **{
        f"zero frames, {suffix}": (f"song.{suffix}", lambda suffix=suffix: encoded(suffix, 0), "")
        for suffix in ("wav", "flac", "aiff", "ogg")
    },
    **{f"half a {s}": (f"song.{s}", lambda s=s: _half(encoded(s)), "") for s in SUFFIXES if s != "mp3"},
    **{
        f"header of a {suffix} alone": (f"song.{suffix}", lambda suffix=suffix: encoded(suffix)[:60], "")
        for suffix in SUFFIXES
        if suffix != "mp3"
    },
    **{
        f"broken header, {suffix}": (
            f"song.{suffix}",
            lambda suffix=suffix: patched(encoded(suffix), 0, b"\x13\x37" * 32),
            "not audio",
        )
        for suffix in ("wav", "flac", "ogg", "aiff", "m4a")
    },
    "flipped bytes in a FLAC": ("song.flac", lambda: flipped(encoded("flac"), 0.4, 0.6), "corrupt"),
    "one flipped byte in a FLAC": ("song.flac", lambda: flipped(encoded("flac"), 0.5, 0.5005), "corrupt"),
    "WAV of 4 GB": ("song.wav", lambda: wav(data=0xF0000000), "truncated"),
    "WAV of 0 Hz": ("song.wav", lambda: wav(rate=0), ""),
    "WAV of 1 MHz": ("song.wav", lambda: wav(rate=1_000_000), "8000 to 192000"),
    "WAV of 4 kHz": ("song.wav", lambda: wav(rate=4000), "8000 to 192000"),
    "WAV without channels": ("song.wav", lambda: wav(channels=0), ""),
    "WAV of 6 channels": ("song.wav", lambda: wav(channels=6), "6 channels"),
    "WAV of 65535 channels": ("song.wav", lambda: wav(channels=65535 // 2), ""),
    "FLAC of 2^31 frames": ("song.flac", lambda: flac(frames=2**31), ""),
    "FLAC of 1 MHz": ("song.flac", lambda: flac(rate=1_000_000), "8000 to 192000"),
    "FLAC of 6 channels": ("song.flac", lambda: flac(channels=6), ""),
    "AIFF of 2^31 frames": ("song.aiff", lambda: aiff(frames=2**31), "truncated"),
    "AIFF of 0 Hz": ("song.aiff", lambda: aiff(rate=bytes(10)), ""),
    "AIFF of 1 MHz": ("song.aiff", lambda: aiff(rate=b"\x40\x12\xf4\x24\0\0\0\0\0\0"), "8000 to 192000"),
    "AIFF of NaN Hz": ("song.aiff", lambda: aiff(rate=b"\x7f\xff\xc0\0\0\0\0\0\0\0"), ""),
    "AIFF of 6 channels": ("song.aiff", lambda: aiff(channels=6), "6 channels"),
    "NaN": ("song.wav", lambda: float_wav(np.nan), "sample nan in channel 2 at 0.250 s"),
    "infinity": ("song.wav", lambda: float_wav(-np.inf), "sample -inf in channel 2 at 0.250 s"),
    "beyond float32": ("song.wav", lambda: float_wav(1e300, "DOUBLE"), "in channel 2 at 0.250 s"),
    "video without sound": ("film.mp4", silent_film, "no audio stream"),
    "DRM": ("song.m4p", lambda: encoded("m4a").replace(b"mp4a", b"drms"), "DRM"),
    "M3U8 playlist": ("list.m3u8", lambda: b"#EXTM3U\n#EXTINF:1,\ngood.wav\n#EXT-X-ENDLIST\n", "not audio"),
    "ffconcat playlist": ("list.ffconcat", lambda: b"ffconcat version 1.0\nfile good.wav\n", "not audio"),
    "SDP": ("song.sdp", lambda: b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=audio 9 RTP/AVP 0\n", "not audio"),
}


def _half(content: bytes) -> bytes:
    return content[: len(content) // 2]


@pytest.mark.parametrize("case", BAD_CONTENT)
def test_a_bad_song_is_refused(
    tmp_path: Path, passthrough_folder: Path, capfd: pytest.CaptureFixture[str], case: str
) -> None:
    name, make, reason = BAD_CONTENT[case]
    song = tmp_path / name
    song.write_bytes(make())
    (tmp_path / "good.wav").write_bytes(encoded("wav", 4000))
    # FLAC out: the room on the disk for 2^31 frames of WAV is not what is tested.
    arguments = ["split", song, "-o", tmp_path / "out", "--model", passthrough_folder, "--format", "flac"]
    refused(capfd, tmp_path, INPUT, *arguments, mentions=[str(song), reason])


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as end:
        home = os.getcwd()
        os.chdir(path.parent)  # the address of a socket is short
        try:
            end.bind(path.name)
        finally:
            os.chdir(home)


BAD_PATHS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "no such file"),
    "missing folder": (lambda path: None, "no such file"),
    "folder without songs": (lambda path: path.mkdir(), "no songs"),
    "folder with a folder named as a song": (lambda path: (path / "fake.wav").mkdir(parents=True), "no songs"),
    "dangling link": (lambda path: path.symlink_to("nowhere"), "no such file"),
    "link to itself": (lambda path: path.symlink_to(path), "too many levels of symbolic links"),
    "pipe": (os.mkfifo, "no regular file"),
    "socket": (_socket, ""),
    "link to /dev/zero": (lambda path: path.symlink_to("/dev/zero"), "no regular file"),
    "link to a folder of itself": (lambda path: (path.mkdir(), (path / "in").symlink_to(path)), "no songs"),
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize("case", BAD_PATHS)
def test_what_is_no_song_is_refused(
    tmp_path: Path, passthrough_folder: Path, capfd: pytest.CaptureFixture[str], case: str
) -> None:
    make, reason = BAD_PATHS[case]
    path = tmp_path / ("none/song.wav" if case == "missing folder" else "song.wav")
    make(path)
    arguments = ["split", path, "-o", tmp_path / "out", "--model", passthrough_folder]
    refused(capfd, tmp_path, INPUT, *arguments, mentions=[str(path), reason])


def test_a_song_without_permission_is_refused(tmp_path: Path, passthrough_folder: Path) -> None:
    song = tmp_path / "song.wav"
    song.write_bytes(encoded("wav", 4000))
    song.chmod(0)
    done = limited(WITHOUT_PRIVILEGES, "split", song, "-o", tmp_path / "out", "--model", passthrough_folder)
    assert (done.returncode, done.stdout) == (INPUT, ""), done.stderr
    check_message(done.stderr, str(song), "permission denied")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("part", [0.5, 0.02])
def test_the_mp3_library_does_not_talk_beside_the_message(tmp_path: Path, command: Command, part: float) -> None:
    content = encoded("mp3")
    (tmp_path / "song.mp3").write_bytes(content[: int(part * len(content))])
    done = command("split", "song.mp3", "-o", "out", "--model", "passthrough")
    assert (done.returncode, done.stdout) == (INPUT, ""), done.stderr
    check_message(done.stderr, "'song.mp3'")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("part", [0.2, 0.7])
@pytest.mark.parametrize("damage", [flipped, lambda content, first, last: content[: int(first * len(content))]])
def test_what_precedes_damage_can_be_read_as_the_message_says(
    tmp_path: Path, damage: Callable[..., bytes], part: float
) -> None:
    path = tmp_path / "song.flac"
    path.write_bytes(damage(encoded("flac", 4 * RATE), part, part + 0.02))
    with pytest.raises(AudioError, match="corrupt|truncated") as refusal, AudioReader(path) as reader:
        list(reader.blocks())
    end = re.search(r"--end (\d+\.\d+)", str(refusal.value))
    assert end, refusal.value
    seconds = float(end[1])
    assert 0.4 < seconds / (4 * part) < 1
    with AudioReader(path, end=seconds) as reader:
        assert sum(block.shape[1] for block in reader.blocks()) == round(seconds * RATE)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", ["song.wav", "song.mp3", "song"])
def test_a_wrong_suffix_does_not_matter(
    tmp_path: Path, passthrough_folder: Path, capfd: pytest.CaptureFixture[str], suffix: str, name: str
) -> None:
    (tmp_path / name).write_bytes(encoded(suffix))
    code = run(["split", str(tmp_path / name), "-o", str(tmp_path / "out"), "--model", str(passthrough_folder)])
    assert code == 0, capfd.readouterr().err
    assert soundfile.info(tmp_path / "out" / "song" / "vocals.wav").frames == RATE // 2


@pytest.mark.parametrize("name", [b"y" * 255, b".wav", b"{stem}.wav", b"%s.wav", b"caf\xe9"])
def test_odd_names_work_and_are_printed_as_they_are(tmp_path: Path, command: Command, name: bytes) -> None:
    folder = os.fsencode(tmp_path)
    song = folder + b"/" + name
    with open(song, "wb") as file:
        file.write(encoded("wav", 4000))
    done = command("split", "--model", "passthrough", "--stems", "vocals", "-o", "out", song)
    stem = name.removesuffix(b".wav") or name
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert os.fsencode(done.stdout) == b"out/" + stem + b"/vocals.wav\n"
    assert os.path.isfile(folder + b"/out/" + stem + b"/vocals.wav")


@pytest.mark.parametrize("name", ["..wav", "...wav"])
def test_a_name_that_would_lead_out_of_the_output_is_refused(
    tmp_path: Path, passthrough_folder: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    song = tmp_path / name
    song.write_bytes(encoded("wav", 4000))
    arguments = ["split", song, "-o", tmp_path / "out", "--model", passthrough_folder]
    refused(capfd, tmp_path, USAGE, *arguments, mentions=[str(song), "Rename"])


def test_a_name_that_is_too_long_for_any_file_is_refused(
    tmp_path: Path, passthrough_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["split", tmp_path / ("x" * 300), "-o", tmp_path / "out", "--model", passthrough_folder]
    refused(capfd, tmp_path, USAGE, *arguments, mentions=["xxx", "255 at most"])


def _append(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(bytes(1000))


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _rewrite(path: Path) -> None:
    """As long as before."""
    content = path.read_bytes()
    path.write_bytes(content[:-4] + b"\1\2\3\4")
    os.utime(path, ns=(1, 1))


@pytest.mark.parametrize("change", [_append, _truncate, _rewrite])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_song_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, suffix: str, change: Callable[[Path], None]
) -> None:
    path = tmp_path / f"song.{suffix}"
    path.write_bytes(encoded(suffix, 3 * RATE))
    with AudioReader(path) as reader:
        blocks = reader.blocks(4096)
        next(blocks)
        change(path)
        with pytest.raises(AudioError, match=r"song\.\w+.*(changed while it was read|truncated|corrupt)"):
            list(blocks)


def _swap(path: Path) -> None:
    path.with_name("new").write_bytes(b"another file")
    os.replace(path.with_name("new"), path)


@pytest.mark.parametrize("change", [os.unlink, _swap])
@pytest.mark.parametrize("suffix", ["wav", "m4a"])
def test_a_song_that_vanishes_while_it_is_read_is_split_or_refused(
    tmp_path: Path, passthrough: Separator, suffix: str, change: Callable[[Path], None]
) -> None:
    song = tmp_path / f"song.{suffix}"
    content = encoded(suffix, 3 * RATE)
    song.write_bytes(content)
    pending = [song]

    def progress(fraction: float, stage: str) -> None:
        if pending:
            change(pending.pop())

    try:
        split(song, tmp_path / "out", separator=passthrough, progress=progress)
    except AudioError as error:
        assert str(song) in str(error)
        assert not (tmp_path / "out").exists()
    else:
        about = json.loads((tmp_path / "out/song/stems.json").read_text())
        assert about["song"]["sha256"] == hashlib.sha256(content).hexdigest()
