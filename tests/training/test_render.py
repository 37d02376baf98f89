"""The library that training reads: the same songs for the same seed, from what is installed."""

from __future__ import annotations

import json
import struct
import sys
from ctypes.util import find_library
from functools import partial
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from unittest.mock import Mock
from zipfile import ZipFile

import av
import numpy as np
import pytest
import soundfile

pytest.importorskip("mido", reason="needs mido: the extra [train]")
from library import kits  # noqa: E402
from library.audio import RATE, Audio, fit  # noqa: E402
from library.chords import MAJOR, MINOR, SHAPES, chord_loop  # noqa: E402
from library.midi import Note, Part, fold, read_midi, write_midi  # noqa: E402
from library.songs import PIECE, Job, Settings, Song, Stem, Studio, render  # noqa: E402
from library.sounds import BANKS, DRUMS, VOICES, Sound  # noqa: E402
from library.sources import SOURCES, lmms, soundtracks, tracker  # noqa: E402
from library.tracker import Module  # noqa: E402
from library.voices import world  # noqa: E402
from render import interleave  # noqa: E402


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A machine with Python packages alone."""
    installed = Settings.offer
    monkeypatch.setattr(
        Settings, "offer", lambda self, sound, split="": sound.path == Path("/") and installed(self, sound, split)
    )
    monkeypatch.setattr(kits, "SONIC_PI", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    for source in ("mma.STYLES", "game.GAMES", "lmms.PROJECTS", "recorded.FRETS", "soundtracks.SHARE", "tracker.SHARE"):
        monkeypatch.setattr(f"library.sources.{source}", tmp_path)
    return Settings(tmp_path / "library", tmp_path / "nowhere", 1, False)


def made(settings: Settings, library: Path, count: int, source: str = "synth") -> dict[str, bytes]:
    """Render songs of a source; return all files' bytes."""
    settings = Settings(library, settings.material, settings.seed, settings.permissive)
    for job in islice(SOURCES[source].jobs(settings), count):
        seconds, fault = render(job, settings)
        assert seconds > 50 and not fault
    return {str(file.relative_to(library)): file.read_bytes() for file in sorted(library.rglob("*.*"))}


def test_synthesis_needs_nothing_but_packages_and_repeats_itself(bare: Settings, tmp_path: Path) -> None:
    first, again = (made(bare, tmp_path / name, 1) for name in ("first", "again"))
    assert first == again and len(first) == 4
    told = json.loads(first["songs/synth-00000/song.json"])
    assert told["stems"].keys() == {"drums", "bass", "other"}
    lengths = set()
    for stem in told["stems"]:
        audio, rate = soundfile.read(tmp_path / "first" / "songs" / "synth-00000" / f"{stem}.flac")
        assert rate == RATE and audio.shape[1] == 2 and 0.01 < np.abs(audio).max() <= 10 ** (-1 / 20) + 1e-3
        lengths.add(len(audio))
    assert len(lengths) == 1


def test_missing_sources_are_left_out_with_a_line(bare: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = list(interleave(bare, ["groove", "mma", "game", "songs", "synth"], 0.1))
    assert [job.name for job in jobs] == [f"synth-{i:05}" for i in range(6)]
    assert capsys.readouterr().out.splitlines() == [
        "groove: left out, needs fluidsynth",
        "mma: left out, needs mma",
        "game: left out, needs fluidsynth",
        "songs: left out, nothing found",
    ]


def test_permissive_only_leaves_out_copyleft(bare: Settings) -> None:
    settings = Settings(bare.library, bare.material, 1, True)
    assert all(settings.permit(licence) for licence in ("CC0", "MIT", "BSD-3", "CC BY 4.0", "own"))
    assert not any(settings.permit(licence) for licence in ("GPL-2+", "CC BY-SA 3.0", "Artistic-1.0", "LGPL-2.1+"))
    assert {bank.name for bank in BANKS if settings.permit(bank.licence)} == {"FluidR3"}


def test_sounds_of_the_other_split_are_not_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Settings, "offer", lambda self, sound, split="": sound.only in ("", split))
    for split in ("train", "valid"):
        studio = Studio(Settings(tmp_path, tmp_path, 1, False), split, np.random.default_rng(0))
        names = {studio.choose(DRUMS).name for _ in range(200)}
        assert ("AVL Red Zeppelin" in names) == (split == "valid")


def test_long_songs_are_cut_and_faults_are_told(tmp_path: Path) -> None:
    settings = Settings(tmp_path, tmp_path, 1, False)
    noise = np.random.default_rng(0).normal(0, 0.1, (2, (PIECE + 10) * RATE)).astype(np.float32)
    stems = {"drums": Stem(noise, "test", "own", "noise"), "bass": Stem(0 * noise, "test", "own", "silence")}
    assert render(Job("long", 100, lambda studio: Song(stems)), settings) == (PIECE + 10, "")
    for name in ("long", "long-2"):
        assert sorted(file.name for file in (tmp_path / "songs" / name).iterdir()) == ["drums.flac", "song.json"]
        assert soundfile.info(tmp_path / "songs" / name / "drums.flac").frames == (PIECE + 10) * RATE // 2
    silent = {"bass": stems["bass"]}
    assert render(Job("silent", 100, lambda studio: Song(silent)), settings) == (0, "silent: AssertionError: silent")


@pytest.fixture
def games(bare: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """As `bare`, with two games: one has two minutes of music in a file, and a few seconds, the other's is archived."""
    monkeypatch.setattr(soundtracks, "SHARE", tmp_path)
    monkeypatch.setattr(soundtracks, "FOLDERS", [("one", "one", "GPL-2+"), ("two", "two/music.pk3", "CC0")])
    for folder, name, seconds in (("one", "Long way.ogg", 120), ("one", "jingle.ogg", 5), ("two", "march.ogg", 50)):
        path = tmp_path / folder / name
        path.parent.mkdir(exist_ok=True)
        noise = np.random.default_rng(seconds).normal(0, 0.1, (seconds * 8000, 1)).clip(-1, 1)
        soundfile.write(path, noise * np.hanning(len(noise))[:, np.newaxis], 8000)
    with ZipFile(tmp_path / "two" / "music.pk3", "w") as archive:
        archive.write(tmp_path / "two" / "march.ogg", "sound/march.ogg")
    return bare


def parted(audio: Audio, rate: int, vocals: float) -> dict[str, Audio]:
    """What a teacher might say."""
    shares = {"vocals": vocals, "drums": 0.3, "bass": 0.2, "other": 0.5 - vocals}
    return {stem: np.float32(share) * audio for stem, share in shares.items()}


def test_soundtracks_are_parted_and_stay_as_loud_as_they_were(games: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soundtracks, "teacher", lambda: Mock(separate=partial(parted, vocals=0.1)))
    jobs = {job.name: job for job in soundtracks.jobs(games)}
    assert {name: job.seconds for name, job in jobs.items()} == {
        "soundtrack-one-long-way": soundtracks.LONGEST,
        "soundtrack-two-march": 50,
    }
    for name, job in jobs.items():
        seconds, fault = render(job, games)
        assert not fault and seconds == pytest.approx(job.seconds, abs=0.1)
        folder = games.library / "songs" / name
        told = json.loads((folder / "song.json").read_text())
        assert told["split"] == "train" and {stem["sound"] for stem in told["stems"].values()} == {"separated"}
        stems = {stem: soundfile.read(folder / f"{stem}.flac")[0] for stem in ("drums", "bass", "other")}
        assert not (folder / "vocals.flac").exists()
        whole = np.linalg.norm(sum(stems.values()))
        shares = {stem: np.linalg.norm(audio) / whole for stem, audio in stems.items()}
        assert shares == pytest.approx({"drums": 0.3, "bass": 0.2, "other": 0.5}, abs=1e-2)


def test_what_may_be_sung_is_no_soundtrack(games: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soundtracks, "teacher", lambda: Mock(separate=partial(parted, vocals=0.45)))
    seconds, fault = render(next(soundtracks.jobs(games)), games)
    assert not seconds and "may be sung" in fault and not games.library.exists()


LMMS = f"""#!{sys.executable}
import sys, numpy, soundfile
assert sys.argv[1:3] == ["--allowroot", "rendertracks"] and sys.argv[4] == "-o"
tracks = {{"1_Kick I": 0.3, "2_U don't know - Snare": 0.1, "3_dub bass": 0.2, "4_Strings (low)": 0.1, "5_Organ": 0.0}}
for number, (name, level) in enumerate(tracks.items()):
    noise = numpy.random.default_rng(number).normal(0, level / 3, (30000, 1 + number % 2)).clip(-1, 1)
    soundfile.write(f"{{sys.argv[5]}}/{{name}}.wav", noise, {RATE})
"""


def test_tracks_of_lmms_are_summed_as_their_names_tell(
    bare: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert SOURCES["lmms"].lacks(bare) == "lmms" and not list(lmms.jobs(bare))
    (tmp_path / "lmms").write_text(LMMS)
    (tmp_path / "lmms").chmod(0o755)
    monkeypatch.setattr(lmms, "SONGS", [("song.mmpz", "CC BY-SA 3.0")])
    (tmp_path / "song.mmpz").touch()
    (job,) = lmms.jobs(bare)
    seconds, fault = render(job, bare)
    assert not fault and seconds == pytest.approx(30000 / RATE, abs=0.01)
    folder = bare.library / "songs" / "lmms-song"
    told = json.loads((folder / "song.json").read_text())
    assert told["split"] == "valid" and {stem["sound"] for stem in told["stems"].values()} == {"composed"}
    levels = {stem: soundfile.read(folder / f"{stem}.flac")[0].std() for stem in told["stems"]}
    shares = {stem: level / levels["bass"] for stem, level in levels.items()}
    assert shares == pytest.approx({"drums": 10**0.5 / 2, "bass": 1, "other": 0.5}, rel=0.02), "as they are mixed"


@pytest.mark.parametrize("track, stem", [("Closed HihHat 03", "drums"), ("BD 03", "drums"), ("gated sub", "bass")])
def test_a_track_is_what_its_name_tells(track: str, stem: str) -> None:
    assert lmms.stem_of(track) == stem and lmms.stem_of("Strings (high)") == "other"


def module() -> bytes:
    """Amiga's format: three times 7.7 s of hits, low tones, high tones, and an instrument that is not played."""
    time = np.arange(2000)
    waves = {
        "recorded at home": np.random.default_rng(0).normal(0, 40, 2000) * np.exp(-time / 300),
        "by somebody": 60 * np.sin(2 * np.pi * time[:64] / 64),
        "greetings": 20 * np.sin(2 * np.pi * time[:16] / 16),
        "Kick": 100 * np.sin(2 * np.pi * time / 64),
    }
    waves = {name: wave.clip(-127, 127).astype(np.int8) for name, wave in waves.items()}
    headers = [
        struct.pack(">22sHBBHH", name.encode(), len(wave) // 2, 0, 64, 0, len(wave) // 2 if len(wave) < 100 else 1)
        for name, wave in waves.items()
    ]
    cells = np.zeros((64, 4, 4), np.uint8)
    for row in range(0, 64, 4):
        for channel in range(3):
            period = 214 if channel == 0 else (856, 762, 678, 570)[row // 4 % 4] // channel
            cells[row, channel] = period >> 8, period & 255, (channel + 1) << 4, 0
    head = b"song".ljust(20, b"\0") + b"".join(headers).ljust(31 * 30, b"\0")
    head += bytes([3, 127]).ljust(130, b"\0") + b"M.K."
    return head + cells.tobytes() + b"".join(wave.tobytes() for wave in waves.values())


@pytest.mark.skipif(not find_library("openmpt"), reason="needs libopenmpt: apt-get install libopenmpt0")
def test_a_trackers_song_is_parted_by_its_instruments(
    bare: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bb").mkdir()
    (tmp_path / "bb" / "Big Beat.MOD").write_bytes(module())
    (tmp_path / "bb" / "language.it").write_text("non si tratta di musica")
    (job,) = tracker.jobs(bare)
    assert "language: not a tracker's song" in capsys.readouterr().out
    assert render(job, bare) == (pytest.approx(3 * 7.68, abs=0.1), "")
    folder = bare.library / "songs" / "tracker-bb-big-beat"
    told = json.loads((folder / "song.json").read_text())
    assert told["split"] == "valid" and {stem["sound"] for stem in told["stems"].values()} == {"tracked"}
    played = Module(module())
    assert {number: notes.total() for number, notes in played.notes.items()} == dict.fromkeys(range(3), 16)
    stems = [soundfile.read(folder / f"{stem}.flac")[0].sum(axis=1) for stem in ("drums", "bass", "other")]
    alone = [played.play([number], RATE, played.seconds).sum(axis=0) for number in range(3)]
    whole = played.play(range(4), RATE, played.seconds).sum(axis=0)
    assert sum(alone) == pytest.approx(whole, abs=1e-4)
    gain = sum(stems).std() / whole.std()
    for stem, audio in zip(stems, alone, strict=True):
        assert stem == pytest.approx(gain * audio, abs=1e-3)


HEARD = {
    "kick": tracker.Traits(0.85, 0.14, 0.0, 0.003, 0.72, 0.24, 220, 1),
    "snare": tracker.Traits(0.01, 0.85, 0.1, 0.074, 0.45, 0.17, 150, 1),
    "hat": tracker.Traits(0.0, 0.01, 0.92, 0.23, 0.9, 0.42, 48, 1),
    "bass line": tracker.Traits(0.62, 0.37, 0.0, 0.0, 0.88, 0.45, 111, 7),
    "strings": tracker.Traits(0.2, 0.55, 0.02, 0.008, 0.97, 1.0, 376, 9),
    "low drone": tracker.Traits(0.89, 0.11, 0.0, 0.0, 0.92, 1.0, 18, 2),
}


@pytest.mark.parametrize(
    "name, heard, stem",
    [
        ("", "kick", "drums"), ("", "snare", "drums"), ("", "hat", "drums"), ("", "bass line", "bass"),
        ("", "strings", "other"), ("", "low drone", ""), ("BassDrum", "kick", "drums"), ("909 snare", "strings", ""),
        ("Slap Bass", "low drone", "bass"), ("TB-303", "hat", ""), ("so what", "strings", "other"),
    ],
)  # fmt: skip
def test_an_instrument_is_known_by_its_name_or_by_how_it_is_played(name: str, heard: str, stem: str) -> None:
    assert tracker.stem_of(name, HEARD[heard]) == stem


def test_midi_is_read_back(tmp_path: Path) -> None:
    bass = Part(33, [Note(0.5, 1.0, 40, 100), Note(1.0, 1.25, 43, 90)])
    drums = Part(0, [Note(0.25, 0.5, 36, 80)])
    write_midi(tmp_path / "song.mid", [bass, drums], [0, 9])
    score = read_midi((tmp_path / "song.mid").read_bytes(), 60)
    assert {part.stem: part.notes for part in score.parts} == {"bass": bass.notes, "drums": drums.notes}
    assert score.seconds == 1.25 + 1.5 and score.bpm == 60
    assert read_midi((tmp_path / "song.mid").read_bytes(), 0.7).seconds == 0.5 + 1.5


def test_basses_are_moved_by_octaves() -> None:
    keys = [note.key for note in fold([Note(0, 1, key, 100) for key in range(128)], 28, 55)]
    assert all(28 <= key <= 55 and (key - before) % 12 == 0 for before, key in enumerate(keys))
    assert keys[28:56] == list(range(28, 56))


def test_chord_loops_are_read() -> None:
    loops = [chord_loop(np.random.default_rng(seed), 0) for seed in range(100)]
    assert len({str(loop) for loop in loops}) == len({*MAJOR.split("|"), *MINOR.split("|")})
    assert all(len(loop) == 4 and all(quality in SHAPES for _, quality in loop) for loop in loops)
    assert [(0, ""), (10, ""), (5, ""), (0, "")] in loops


def test_electronic_kits_are_made_here_where_there_are_no_recordings(bare: Settings) -> None:
    kit = kits.electro_kit(np.random.default_rng(0))
    assert kit.keys() == {"kick", "snare", "clap", "closed", "open"}
    audio, rest = kits.play(kit, [Note(0, 1, 36, 100), Note(0.5, 1, 49, 90)], RATE, np.random.default_rng(0))
    assert audio.shape == (2, RATE) and np.abs(audio).max() > 0.1
    assert [note.key for note in rest] == []  # a cymbal is played with the open hi-hat


def test_what_is_cut_fades_out() -> None:
    ones = np.ones((2, 1000), np.float32)
    assert fit(ones, 1500)[:, 1000:].max() == 0 and fit(ones, 1500).shape == (2, 1500)
    assert fit(ones, 500)[0, -1] == 0 and fit(ones, 500).shape == (2, 500)


def test_instruments_are_found_by_key_and_velocity(tmp_path: Path) -> None:
    from library.samples import load

    for name in ("a", "b"):
        soundfile.write(tmp_path / f"{name}.wav", np.full((500, 1), 0.5), RATE)
    (tmp_path / "bass.sfz").write_text(
        "<group> hivel=60\n<region> sample=a.wav lokey=30 hikey=40 pitch_keycenter=35\n"
        "<group> lovel=61\n<region> sample=b.wav key=38 // loud\n<region> sample=missing.wav key=39\n"
    )
    soft, loud = load(tmp_path / "bass.sfz")
    assert (soft.key, soft.keys, soft.velocities) == (35, range(30, 41), (0, 60))
    assert (loud.key, loud.keys, loud.velocities) == (38, range(38, 39), (61, 127))


def test_sounds_name_their_licence() -> None:
    sounds = [*BANKS, *DRUMS, *VOICES]
    assert all(isinstance(sound, Sound) and sound.licence and sound.weight > 0 for sound in sounds)


def speak(file: Path) -> None:
    """Write eight vowels of 120 Hz, with pauses between, as a recording of a prompt."""
    places = np.arange(2 * 16000) / 16000
    buzz = sum(np.sin(2 * np.pi * 120 * n * places) / n for n in range(1, 30)) * (places % 0.25 < 0.18)
    samples = (3000 * buzz).astype(np.int16)
    with av.open(file, "w", format="g722") as container:
        stream = container.add_stream("adpcm_g722", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.rate = 16000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)


@pytest.mark.skipif(not find_spec("pyworld"), reason="needs pyworld: the extra [train]")
def test_speech_is_made_into_a_minute_of_singing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    speak(tmp_path / "hello.g722")
    speaker = Sound("somebody", 1, "CC0", "recorded", tmp_path, only="train")
    monkeypatch.setattr("library.sources.voices.VOICES", [speaker])
    settings = Settings(tmp_path, tmp_path, 1, False)
    first = made(settings, tmp_path / "first", 2, "voices")
    again = made(settings, tmp_path / "again", 1, "voices")  # whatever was sung before
    assert again.items() < first.items() and len(first) == 4
    assert sorted(again) == ["songs/voices-00000/song.json", "songs/voices-00000/vocals.flac"]
    assert json.loads(first["songs/voices-00000/song.json"])["split"] == "train"  # as nobody else is there
    audio, rate = soundfile.read(tmp_path / "first" / "songs" / "voices-00000" / "vocals.flac")
    assert rate == RATE and audio.shape == (60 * RATE, 2)
    f0, _ = world().dio(audio.mean(axis=1), RATE)
    assert (f0 > 0).mean() > 0.3 and np.ptp(f0[f0 > 0]) > 20


def test_voices_are_left_out_where_nobody_speaks(
    bare: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("library.sources.find_spec", lambda name: True)
    assert not list(interleave(bare, ["voices"], 0.1))
    monkeypatch.setattr("library.sources.find_spec", lambda name: None)
    assert not list(interleave(bare, ["voices"], 0.1))
    lines = ["voices: left out, nothing found", "voices: left out, needs pyworld"]
    assert capsys.readouterr().out.splitlines() == lines


def test_no_speaker_is_heard_in_both_splits() -> None:
    assert {voice.only for voice in VOICES} == {"train", "valid"}
    assert len({voice.name for voice in VOICES}) == len(VOICES)
