"""A folder of tracks: the song's rate, channels and length; names, levels and origin; all files or none."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from stemplug import Separator, split
from stemplug.audio import Audio
from stemplug.errors import OptionError, TrackError
from stemplug.tracks import FolderFormat, Selection
from stemplug.tracks.folder import _SYNCED_AFTER, FolderWriter
from stemplug.tracks.staging import Staging
from tests.audio.test_reader import write_m4a
from tests.conftest import RATE, files_below


def read(path: Path) -> Audio:
    return soundfile.read(path, dtype="float32", always_2d=True)[0].T


@pytest.mark.parametrize("rate", [8000, 44100, 48000, 96000, 192000])
@pytest.mark.parametrize("channels", [1, 2])
def test_wav_tracks_sum_to_the_song(
    tmp_path: Path, passthrough: Separator, song: Audio, rate: int, channels: int
) -> None:
    path = tmp_path / "song.wav"
    soundfile.write(path, song[:channels, 60_000:100_001].T, rate, subtype="PCM_24")
    result = split(path, tmp_path / "out", separator=passthrough)
    assert [p.relative_to(tmp_path / "out").as_posix() for p in result.paths] == [
        "song/vocals.wav",
        "song/drums.wav",
        "song/other.wav",
    ]
    assert {soundfile.info(p).samplerate for p in result.paths} == {rate}
    assert {soundfile.info(p).subtype for p in result.paths} == {"PCM_24"}
    assert np.abs(sum(read(p) for p in result.paths) - read(path)).max() <= 1e-6


@pytest.mark.parametrize(
    ("subtype", "format", "depth", "expected"),
    [
        ("PCM_16", "wav", None, "PCM_24"),
        ("PCM_24", "wav", None, "PCM_24"),
        ("PCM_32", "wav", None, "FLOAT"),
        ("FLOAT", "wav", None, "FLOAT"),
        ("PCM_16", "wav", "16", "PCM_16"),
        ("PCM_16", "wav", "32f", "FLOAT"),
        ("PCM_16", "flac", None, "PCM_24"),
        ("FLOAT", "flac", None, "PCM_24"),
        ("PCM_16", "flac", "16", "PCM_16"),
        ("PCM_16", "ogg", None, "VORBIS"),
        ("PCM_16", "mp3", None, "MPEG_LAYER_III"),
    ],
)
def test_depth_is_the_songs_and_at_least_24_bit(
    tmp_path: Path,
    passthrough: Separator,
    song: Audio,
    subtype: str,
    format: str,
    depth: str | None,
    expected: str,
) -> None:
    path = tmp_path / "song.wav"
    audio = song[:, 60_000:100_001]
    soundfile.write(path, audio.T, RATE, subtype=subtype)
    result = split(path, tmp_path, separator=passthrough, options=FolderFormat(format, depth))
    for track in result.paths:
        info = soundfile.info(track)
        assert (info.subtype, info.frames, info.channels) == (expected, audio.shape[1], 2)
    error = np.linalg.norm(read(result.paths[0]) - 0.5 * audio) / np.linalg.norm(0.5 * audio)
    assert 20 * np.log10(error) <= (-12 if depth is None and format in ("ogg", "mp3") else -60)


def test_m4a_songs_give_tracks_of_their_length(tmp_path: Path, passthrough: Separator, song: Audio) -> None:
    write_m4a(tmp_path / "song.m4a", song[:, :RATE])
    result = split(tmp_path / "song.m4a", tmp_path, separator=passthrough)
    assert {soundfile.info(p).frames for p in result.paths} == {RATE}


def test_the_report_tells_how_tracks_were_made(tmp_path: Path, wav: Path, spleeter: Separator) -> None:
    result = split(wav, tmp_path, separator=spleeter, selection=Selection(start=0.25, end=0.75))
    report = json.loads((tmp_path / "song" / "stems.json").read_text())
    assert report["song"]["sha256"] == hashlib.sha256(wav.read_bytes()).hexdigest()
    assert report["song"]["frames"] == round(RATE / 2)
    assert report["model"]["name"] == "spleeter-2stems"
    assert report["model"]["files"] == {"model.onnx": spleeter.manifest.files["model"].sha256}
    assert report["settings"]["start"] == 0.25 and report["settings"]["provider"] == "CPUExecutionProvider"
    for entry, track, path in zip(report["stems"], result.tracks, result.paths, strict=True):
        assert tmp_path / "song" / entry["file"] == path
        assert entry["sha256"] == track.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert abs(entry["peak_db"] - 20 * np.log10(np.abs(read(path)).max())) < 0.01
        assert abs(entry["level_db"] - 10 * np.log10(np.mean(read(path) ** 2))) < 0.01


def test_the_level_of_silence_is_no_number(tmp_path: Path, passthrough: Separator) -> None:
    soundfile.write(tmp_path / "song.wav", np.zeros(999), RATE)
    split(tmp_path / "song.wav", tmp_path, separator=passthrough)
    assert json.loads((tmp_path / "song" / "stems.json").read_text())["stems"][0]["level_db"] is None


@pytest.mark.parametrize(
    ("selection", "names"),
    [
        (Selection(fold="vocals"), ["vocals", "instrumental"]),
        (Selection(fold="drums"), ["drums", "no_drums"]),
        (Selection(fold="vocals", stems=("instrumental",)), ["instrumental"]),
        (Selection(stems=("other", "vocals")), ["other", "vocals"]),
    ],
)
def test_stems_are_folded_and_chosen(
    tmp_path: Path, wav: Path, passthrough: Separator, selection: Selection, names: list[str]
) -> None:
    result = split(wav, tmp_path, separator=passthrough, selection=selection)
    assert [path.stem for path in result.paths] == names
    assert sorted(p.name for p in files_below(tmp_path / "song")) == sorted(
        [f"{n}.wav" for n in names] + ["stems.json"]
    )


@pytest.mark.parametrize(
    ("name", "tracks", "report"),
    [
        ("{song}-{stem}", "song-vocals.wav", "song.stems.json"),
        ("{stem}/{song}", "vocals/song.wav", "song.stems.json"),
        ("{song}/{stem}/take", "song/vocals/take.wav", "song/stems.json"),
        ("{model}/{song}/{stem}", "passthrough/song/vocals.wav", "passthrough/song/stems.json"),
    ],
)
def test_names_follow_the_template(
    tmp_path: Path, wav: Path, passthrough: Separator, name: str, tracks: str, report: str
) -> None:
    result = split(wav, tmp_path / "out", separator=passthrough, options=FolderFormat(name=name))
    assert result.paths[0] == tmp_path / "out" / tracks
    assert [p for p in files_below(tmp_path / "out") if p.suffix == ".json"] == [tmp_path / "out" / report]
    tracks_below = {p for p in files_below(tmp_path / "out") if p.is_file()} - {tmp_path / "out" / report}
    assert tracks_below == set(result.paths)
    assert all(any(p.is_relative_to(d) for p in result.paths) for d in files_below(tmp_path / "out") if d.is_dir())


class TestClipping:
    """The pass-through vocals are half the mixture: at 4 times full scale they peak at 2."""

    @pytest.fixture
    def loud(self, tmp_path: Path, song: Audio) -> Path:
        audio = song[:, 60_000:100_000]
        soundfile.write(tmp_path / "loud.wav", 4 * audio.T / np.abs(audio).max(), RATE, subtype="FLOAT")
        return tmp_path / "loud.wav"

    def test_floats_keep_what_lies_beyond_full_scale(self, loud: Path, passthrough: Separator) -> None:
        result = split(loud, loud.parent, separator=passthrough)
        assert np.abs(read(result.paths[0])).max() == pytest.approx(2, abs=1e-5)
        assert result.tracks[0].beyond_full_scale > 0

    def test_integers_saturate_and_it_is_counted(self, loud: Path, passthrough: Separator) -> None:
        result = split(loud, loud.parent, separator=passthrough, options=FolderFormat(bit_depth="24"))
        expected = np.clip(0.5 * read(loud), -1, 1)
        assert np.abs(read(result.paths[0]) - expected).max() <= 2.0**-22
        assert result.tracks[0].beyond_full_scale == np.count_nonzero(np.abs(0.5 * read(loud)) > 1)

    def test_clamping_limits_floats_too(self, loud: Path, passthrough: Separator) -> None:
        result = split(loud, loud.parent, separator=passthrough, options=FolderFormat(clip="clamp"))
        assert np.abs(read(result.paths[0])).max() == 1.0
        assert result.tracks[0].beyond_full_scale > 0

    @pytest.mark.parametrize("format", ["wav", "flac"])
    def test_rescaling_turns_all_stems_down_by_one_gain(self, loud: Path, passthrough: Separator, format: str) -> None:
        options = FolderFormat(format, "24", clip="rescale")
        result = split(loud, loud.parent, separator=passthrough, options=options)
        assert np.abs(sum(read(path) for path in result.paths) - 0.5 * read(loud)).max() <= 1e-6
        report = json.loads((loud.parent / "loud" / "stems.json").read_text())
        assert report["written"]["gain"] == pytest.approx(0.5, rel=1e-5)
        assert result.tracks[0].peak_db == pytest.approx(0, abs=0.01)

    def test_rescaling_changes_nothing_where_nothing_clips(
        self, tmp_path: Path, wav: Path, passthrough: Separator
    ) -> None:
        plain = split(wav, tmp_path / "a", separator=passthrough)
        rescaled = split(wav, tmp_path / "b", separator=passthrough, options=FolderFormat(clip="rescale"))
        assert np.array_equal(read(plain.paths[0]), read(rescaled.paths[0]))


def test_existing_tracks_are_kept_unless_told_otherwise(tmp_path: Path, wav: Path, passthrough: Separator) -> None:
    first = split(wav, tmp_path, separator=passthrough)
    before = first.paths[0].read_bytes()
    with pytest.raises(OptionError, match="exists. Use --overwrite"):
        split(wav, tmp_path, separator=passthrough)
    assert first.paths[0].read_bytes() == before
    (tmp_path / "song" / "notes.txt").write_text("mine")
    split(wav, tmp_path, separator=passthrough, options=FolderFormat(bit_depth="16", overwrite=True))
    assert soundfile.info(first.paths[0]).subtype == "PCM_16"
    assert (tmp_path / "song" / "notes.txt").read_text() == "mine"


def test_the_song_itself_is_never_replaced(tmp_path: Path, wav: Path, passthrough: Separator) -> None:
    folder = tmp_path / "vocals"
    folder.mkdir()
    os.rename(wav, folder / "vocals.wav")
    with pytest.raises(OptionError, match="is the song itself"):
        split(folder / "vocals.wav", tmp_path, separator=passthrough, options=FolderFormat(overwrite=True))


def test_a_failing_song_leaves_nothing(tmp_path: Path, wav: Path, passthrough: Separator) -> None:
    wav.write_bytes(wav.read_bytes()[:-20_000])
    with pytest.raises(ValueError, match="truncated"):
        split(wav, tmp_path / "new" / "out", separator=passthrough)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("options", "times"),
    [(FolderFormat(), 2), (FolderFormat(clip="rescale"), 0), (FolderFormat(layout="multichannel"), 0)],
)
def test_tracks_go_to_the_disk_while_the_song_is_separated_unless_others_are_made_from_them(
    tmp_path: Path,
    passthrough: Separator,
    song: Audio,
    monkeypatch: pytest.MonkeyPatch,
    options: FolderFormat,
    times: int,
) -> None:
    """At the end there is little left to wait for."""
    path, sizes = tmp_path / "song.wav", []
    soundfile.write(path, np.tile(song[:, 60_000:160_000], 14).T, RATE, subtype="PCM_16")
    sync, commit = os.fsync, FolderWriter.commit

    def measure(descriptor: int) -> None:
        sizes.append(os.fstat(descriptor).st_size)
        sync(descriptor)

    def after_commit_began(*arguments: Any) -> Any:
        sizes.append(0)
        return commit(*arguments)

    monkeypatch.setattr(os, "fsync", measure)
    monkeypatch.setattr(FolderWriter, "commit", after_commit_began)
    result = split(path, tmp_path / "out", separator=passthrough, options=options)
    before = sizes[: sizes.index(0)]
    assert len(before) == times * len(result.paths)
    if times:
        assert result.paths[0].stat().st_size - max(before) <= 3 * _SYNCED_AFTER  # of 24 bits


@pytest.mark.parametrize("seconds", [1, 15])
def test_a_disk_that_turns_out_to_be_full_when_it_is_synced_leaves_nothing(
    tmp_path: Path, passthrough: Separator, song: Audio, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    """Some file systems take what is written, and tell later that there was no room for it."""
    path = tmp_path / "song.wav"
    soundfile.write(path, np.tile(song[:, 60_000 : 60_000 + RATE], seconds).T, RATE, subtype="PCM_16")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TrackError, match="no space left on device. Choose another folder, or free some space"):
        split(path, tmp_path / "out", separator=passthrough)
    assert files_below(tmp_path) == [path]


def test_tracks_are_written_where_nothing_can_be_synced(
    tmp_path: Path, wav: Path, passthrough: Separator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unable(descriptor: int) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "fsync", unable)
    assert all(track.is_file() for track in split(wav, tmp_path / "out", separator=passthrough).paths)


class TestStaging:
    @staticmethod
    def fill(staging: Staging, text: str) -> None:
        for index in range(len(staging.targets)):
            staging.path(index).write_text(text)

    def test_a_second_run_on_the_same_output_is_told(self, tmp_path: Path) -> None:
        first = Staging(tmp_path, [Path("a"), Path("marker")])
        with pytest.raises(TrackError, match="another run"):
            Staging(tmp_path, [Path("b"), Path("marker")])  # the same song, other stems
        Staging(tmp_path, [Path("a"), Path("other marker")]).close()
        first.close()
        Staging(tmp_path, [Path("a"), Path("marker")]).close()
        assert not files_below(tmp_path)

    def test_what_a_killed_run_left_is_taken_over(self, tmp_path: Path) -> None:
        left = Staging(tmp_path, [Path("s/a"), Path("s/b"), Path("s/marker")])
        self.fill(left, "half")
        (left.folder / "folder").mkdir()
        left._unlock()  # as the system does when a process dies
        with Staging(tmp_path, [Path("s/a"), Path("s/marker")]) as staging:  # with other options
            assert not files_below(staging.folder)
            self.fill(staging, "whole")
            staging.commit()
        assert [p.name for p in files_below(tmp_path)] == ["s", "a", "marker"]

    def test_commit_replaces_files_among_others(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_text("old")
        (tmp_path / "mine").write_text("mine")
        staging = Staging(tmp_path, [Path("a"), Path("b")], overwrite=True)
        self.fill(staging, "new")
        assert staging.commit() == [tmp_path / "a", tmp_path / "b"]
        assert {p.name: p.read_text() for p in files_below(tmp_path)} == {"a": "new", "b": "new", "mine": "mine"}

    def test_a_file_that_appeared_meanwhile_is_kept(self, tmp_path: Path) -> None:
        with Staging(tmp_path, [Path("a"), Path("b")]) as staging:
            self.fill(staging, "new")
            (tmp_path / "b").write_text("mine")
            with pytest.raises(FileExistsError):
                staging.commit()
        assert {p.name: p.read_text() for p in files_below(tmp_path)} == {"b": "mine"}

    @pytest.mark.parametrize("failing", [0, 1, 2])
    @pytest.mark.parametrize("error", [OSError("device"), KeyboardInterrupt()])
    def test_a_commit_that_fails_changes_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int, error: BaseException
    ) -> None:
        names = ["a", "new folder/b", "marker"]
        for name in ("a", "marker"):
            (tmp_path / name).write_text("old")
        replace = os.replace

        def fail(source: Path, target: Path) -> None:
            if target == tmp_path / names[failing] and not str(source).endswith(".old"):
                raise error
            replace(source, target)

        staging = Staging(tmp_path, [Path(name) for name in names], overwrite=True)
        self.fill(staging, "new")
        monkeypatch.setattr(os, "replace", fail)
        with pytest.raises(type(error)), staging:
            staging.commit()
        assert {p.name: p.read_text() for p in files_below(tmp_path)} == {"a": "old", "marker": "old"}

    def test_another_runs_folder_survives_the_end_of_a_commit(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Once a staging folder is renamed, its hidden name is free for the next run."""
        import stemplug.tracks.staging as module

        first = Staging(tmp_path, [Path("s/a"), Path("s/marker")])
        self.fill(first, "first")
        others: list[Staging] = []
        sync = module.sync

        def meanwhile(path: Path) -> None:
            if path == tmp_path / "s" and not others:
                others.append(Staging(tmp_path, [Path("s/a"), Path("s/marker")], overwrite=True))
                self.fill(others[0], "second")
            sync(path)

        monkeypatch.setattr(module, "sync", meanwhile)
        first.commit()
        others[0].commit()
        assert (tmp_path / "s" / "a").read_text() == "second"

    def test_where_there_are_no_locks_it_goes_on(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import fcntl

        def none(*arguments: object) -> None:
            raise OSError(37, "no locks available")

        monkeypatch.setattr(fcntl, "flock", none)
        Staging(tmp_path / "new", [Path("a")]).close()
        assert not files_below(tmp_path)
