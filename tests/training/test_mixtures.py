"""Mixtures made on the fly: they are the sum of their stems, repeatable, sound, and as loud as songs are played."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stemplug.audio import Audio
from tests.conftest import RATE
from tests.training.conftest import WriteSong, hits

torch = pytest.importorskip("torch", reason="needs PyTorch: the extra [train]")
from mixtures import PASSAGE, REFERENCE_DB, STEMS, Batches, Chances, Library, Mixer  # noqa: E402

FRAMES = 16 * PASSAGE
NOTHING = Chances(
    1, (0,) * 4, (0,) * 4, speed=0, equalise=0, saturate=0, compress=0, reverb=0, width=0, deeper=0, bus=0
)
EVERYTHING = Chances(
    0.5, (0.3,) * 4, (0.5,) * 4, speed=1, equalise=1, saturate=1, compress=1, reverb=1, width=1, deeper=1, bus=1
)


def loudest_db(audio: Audio) -> float:
    power = (audio.reshape(2, -1, PASSAGE) ** 2).mean(axis=(0, 2)).max()
    return 10 * np.log10(max(float(power), 1e-12))


def test_the_bus_plays_all_stems_with_one_gain(small_library: Path) -> None:
    """So stems sum to what a compressor made of their sum."""
    library = Library.read(small_library, "train")
    plain, squeezed = (Mixer(library, FRAMES, 1, Chances(**{**vars(NOTHING), "bus": bus}))(3) for bus in (0, 1))
    heard = (np.abs(plain[:3]) > 1e-3).all(axis=(0, 1))
    gains = squeezed[:3, :, heard] / plain[:3, :, heard]
    assert heard.mean() > 0.5 and np.allclose(gains, gains[0, 0], rtol=1e-3)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning", "ignore:This DataLoader will create")
def test_batches_depend_on_seed_and_index_alone(small_library: Path, workers: int) -> None:
    mixer = Mixer(Library.read(small_library, "train"), FRAMES, 5)
    expected = list(Batches(mixer, 2, 0, 6))
    loader = torch.utils.data.DataLoader(Batches(mixer, 2, 0, 6), batch_size=None, num_workers=workers)
    assert all(torch.equal(a, b) for a, b in zip(loader, expected, strict=True))
    later = torch.utils.data.DataLoader(Batches(mixer, 2, 4, 6), batch_size=None, num_workers=workers)
    assert all(torch.equal(a, b) for a, b in zip(later, expected[4:], strict=True))
    assert not torch.equal(expected[0], expected[1])
    assert not np.array_equal(Mixer(mixer.library, FRAMES, 6)(0), mixer(0))


@pytest.mark.parametrize("chances", [NOTHING, Chances(), EVERYTHING])
def test_mixtures_are_finite_and_at_or_below_the_reference_level(small_library: Path, chances: Chances) -> None:
    mixer = Mixer(Library.read(small_library, "train"), FRAMES, 2, chances)
    levels = []
    for index in range(12):
        stems = mixer(index)
        assert stems.shape == (4, 2, FRAMES) and stems.dtype == np.float32 and np.isfinite(stems).all()
        levels.append(loudest_db(stems.sum(axis=0)))
    assert max(levels) <= REFERENCE_DB + 0.01 and min(levels) < REFERENCE_DB - 1


def test_a_parted_recording_is_heard_as_it_was_but_for_a_voice(write_song: WriteSong) -> None:
    noise = np.random.default_rng(0).normal(0, 0.05, (3, 2, FRAMES)).astype(np.float32).clip(-1, 1)
    parts = dict(zip(STEMS, (hits(noise[0]), noise[1] / 4, noise[2] / 2), strict=False))
    write_song("parted", parts, sound="separated")
    folder = write_song("sung", {stem: hits(noise[0]) for stem in STEMS})
    assert not Library.read(folder, "train").separated
    library = Library.read(folder, "train", separated=True)
    assert [song.name for song in library.separated] == ["parted"]
    chances = Chances(**{**vars(NOTHING), "untouched": 1.0, "absent": (0, 0, 0, 0.5), "equalise": 1, "saturate": 1})
    voices = 0
    for index in range(8):
        stems = Mixer(library, FRAMES, 3, chances)(index)
        gains = [np.linalg.norm(stems[i]) / np.linalg.norm(parts[stem]) for i, stem in enumerate(parts)]
        assert gains == pytest.approx([gains[0]] * 3, rel=1e-2)
        voices += bool(stems[3].any())
    assert 0 < voices < 8


def test_silent_stems_stay_silent(write_song: WriteSong) -> None:
    silence = np.zeros((2, 3 * RATE), np.float32)
    noise = np.random.default_rng(0).normal(0, 0.1, silence.shape).astype(np.float32)
    library = write_song("song", {"drums": hits(noise), "bass": noise, "other": silence, "vocals": silence})
    for index in range(10):
        stems = Mixer(Library.read(library, "train"), FRAMES, 1, EVERYTHING)(index)
        assert not stems[2:].any() and np.isfinite(stems).all()


def test_a_silent_song_is_a_silent_mixture(write_song: WriteSong) -> None:
    silence = np.zeros((2, RATE), np.float32)
    library = write_song("song", {stem: silence for stem in STEMS})
    assert not any(Mixer(Library.read(library, "train"), FRAMES, 1, EVERYTHING)(index).any() for index in range(5))


def test_drums_that_hum_like_a_bass_are_left_out(write_song: WriteSong) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, (2, 4 * RATE)).astype(np.float32)
    write_song("humming", dict.fromkeys(STEMS, noise))
    songs = Library.read(write_song("played", dict.fromkeys(STEMS, noise) | {"drums": hits(noise)}), "train").songs
    assert [(song.name, "drums" in song.stems) for song in songs] == [("humming", False), ("played", True)]


@pytest.mark.parametrize("lacking", STEMS[:3])
def test_a_library_without_a_stem_is_refused(write_song: WriteSong, lacking: str) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, (2, RATE)).astype(np.float32)
    stems = dict.fromkeys(STEMS, noise) | {"drums": hits(noise)}
    del stems[lacking]
    library = write_song("song", stems)
    with pytest.raises(SystemExit, match=f"^the library has no {lacking}: render more$"):
        Library.read(library, "train")
    with pytest.raises(SystemExit, match="^the library has no drums: render more$"):
        Library.read(library / "nowhere", "valid")
