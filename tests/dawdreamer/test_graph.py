"""SplitGraph on a real engine: audio, time, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import dawdreamer
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stemplug import AudioError, ModelError, OptionError, Separator, StageError
from stemplug.audio import Audio
from stemplug.dawdreamer import SplitGraph
from tests.conftest import RATE, probe


def faust(engine: Any, name: str, code: str) -> Any:
    made = engine.make_faust_processor(name)
    made.set_dsp_string(f'import("stdfaust.lib"); {code}')
    assert made.compile()
    return made


def delay(engine: Any, name: str, frames: int, channels: int = 2) -> Any:
    """A processor whose output is late."""
    return faust(engine, name, f"process = par(i, {channels}, @({frames}));")


def mixer(engine: Any, name: str, inputs: int) -> Any:
    return engine.make_add_processor(name, [1.0] * inputs)


class Song:
    """An engine with a song in it."""

    def __init__(self, audio: Audio, rate: int = RATE, block: int = 512) -> None:
        self.engine = dawdreamer.RenderEngine(rate, block)
        self.audio, self.seconds = audio, audio.shape[1] / rate
        self.graph = SplitGraph(self.engine)
        self.graph.add(self.engine.make_playback_processor("song", audio))


STEMS = ("drums", "other", "vocals")  # of the pass-through model


def test_a_graph_and_the_separator_agree(separator: Separator, song: Audio) -> None:
    made = Song(song)
    made.graph.split("split", "song", separator=separator)
    names = [f"split.{stem}" for stem in separator.stems]
    made.graph.add(mixer(made.engine, "master", len(names)), names)
    made.graph.render(made.seconds)
    stems = separator.separate(song, RATE)
    for name in stems:
        assert np.abs(made.graph.stems("split")[name] - stems[name]).max() <= 1e-5
        assert np.array_equal(made.graph.get_audio(f"split.{name}"), made.graph.stems("split")[name])
    assert np.abs(made.graph.get_audio("master") - song).max() <= 1e-6


@pytest.mark.parametrize("rate", [44100, 48000, 96000])
@pytest.mark.parametrize("block", [1, 64, 500, 512, 8192])
def test_the_length_is_exact_at_any_rate_and_block(passthrough: Separator, song: Audio, rate: int, block: int) -> None:
    made = Song(song[:, 30_000:50_000], rate, block)
    made.graph.split("split", "song", separator=passthrough)
    made.graph.add(mixer(made.engine, "master", 3), [f"split.{stem}" for stem in STEMS])
    for frames in (1, 15, 14_044, 19_999, 20_000, 25_000):
        made.graph.render(frames / rate)
        expected = np.pad(made.audio, ((0, 0), (0, 10_000)))[:, :frames]
        assert made.graph.get_audio("master").shape == (2, frames)
        assert np.abs(made.graph.get_audio("master") - expected).max() <= 1e-6


def test_latency_in_a_branch_nulls(passthrough: Separator, song: Audio) -> None:
    made = Song(song)
    late = delay(made.engine, "late", 3000)
    made.graph.split("split", "song", separator=passthrough)
    made.graph.add(late, ["split.vocals"], latency_samples=3000)
    made.graph.add(mixer(made.engine, "master", 4), ["late", "split.drums", "split.other", "song"])
    made.graph.render(made.seconds)
    assert made.graph.latency_samples("late") == 3000
    assert np.abs(made.graph.get_audio("master") - 2 * song).max() <= 1e-6
    assert np.abs(made.graph.get_audio("late") - 0.5 * song).max() <= 1e-6  # the end was not cut off


def test_without_a_split_parallel_paths_are_aligned_as_well(song: Audio) -> None:
    made = Song(song)
    one, two = delay(made.engine, "one", 700), delay(made.engine, "two", 1)
    made.graph.add(one, ["song"], latency_samples=700)
    made.graph.add(two, ["one"], latency_samples=1)
    made.graph.add(mixer(made.engine, "master", 3), ["two", "one", "song"])
    made.graph.render(made.seconds)
    assert np.abs(made.graph.get_audio("master") - 3 * song).max() <= 1e-6


@given(first=st.integers(0, 5000), second=st.integers(0, 5000), frames=st.integers(1, 20_000))
def test_any_latency_is_compensated(song: Audio, first: int, second: int, frames: int) -> None:
    made = Song(song[:, 30_000:50_000])
    one, two = delay(made.engine, "one", first), delay(made.engine, "two", second)
    made.graph.add(one, ["song"], latency_samples=first)
    made.graph.add(two, ["one"], latency_samples=second)
    made.graph.add(mixer(made.engine, "master", 2), ["two", "song"])
    made.graph.render(frames / RATE)
    assert np.abs(made.graph.get_audio("master") - 2 * made.audio[:, :frames]).max() <= 1e-6


def test_splits_in_series_in_parallel_and_behind_effects(passthrough: Separator, song: Audio) -> None:
    made = Song(song)
    engine, graph = made.engine, made.graph
    half = faust(engine, "half", "process = _*0.5, _*0.5;")
    late = delay(engine, "late", 123)
    graph.split("one", "song", separator=passthrough)
    graph.split("inner", "one.vocals", separator=passthrough)
    graph.add(half, ["inner.drums"])
    graph.split("deep", "half", separator=passthrough)
    graph.add(late, ["deep.vocals"], latency_samples=123)
    graph.split("two", "song", separator=passthrough)
    sources = ["late", "deep.drums", "deep.other", "inner.vocals", "two.other"]
    graph.add(mixer(engine, "master", len(sources)), sources)
    graph.render(made.seconds)
    share = 0.5 * (0.25 * 0.5 + 0.5) + 0.25
    assert np.abs(graph.get_audio("master") - share * song).max() <= 1e-6
    assert np.abs(graph.stems("deep")["vocals"] - 0.5 * 0.25 * 0.5 * 0.5 * song).max() <= 1e-6


def test_mono_stays_mono(passthrough: Separator, song: Audio) -> None:
    made = Song(song[:1])
    late = delay(made.engine, "late", 10, channels=1)
    made.graph.split("split", "song", separator=passthrough)
    made.graph.add(late, ["split.vocals"], latency_samples=10)
    made.graph.render(made.seconds)
    assert np.abs(made.graph.get_audio("late") - 0.5 * song[:1]).max() <= 1e-6


def test_midi_and_faust_instruments_keep_time(passthrough: Separator, song: Audio) -> None:
    """A synth behind nothing, mixed with a stem behind a late processor."""

    def build(engine: Any) -> Any:
        synth = engine.make_faust_processor("synth")
        synth.set_dsp_string("""
            declare options "[nvoices:4]";
            import("stdfaust.lib");
            freq = hslider("freq", 440, 20, 20000, 0.01);
            gain = hslider("gain", 0.5, 0, 1, 0.01);
            gate = button("gate");
            process = os.osc(freq) * gain * en.adsr(0.001, 0.1, 0.5, 0.05, gate) <: _, _;
        """)
        synth.num_voices = 4
        assert synth.compile()
        synth.add_midi_note(60, 100, 0.5, 0.25)
        synth.add_midi_note(67, 100, 1.25, 0.5)
        return synth

    plain = dawdreamer.RenderEngine(RATE, 512)
    alone = build(plain)
    plain.load_graph([(alone, [])])
    plain.render(2.0)
    expected = alone.get_audio()
    assert np.abs(expected).max() > 0.01

    made = Song(song[:, : 2 * RATE])
    synth, late = build(made.engine), delay(made.engine, "late", 900)
    made.graph.add(synth)
    made.graph.split("split", "song", separator=passthrough)
    made.graph.add(late, ["split.vocals"], latency_samples=900)
    made.graph.add(mixer(made.engine, "master", 2), ["late", "synth"])
    made.graph.render(2.0)
    assert np.abs(made.graph.get_audio("master") - expected - 0.5 * made.audio).max() <= 1e-6


def test_automation_meets_the_sound_it_was_drawn_for(passthrough: Separator) -> None:
    """Behind a split and a late processor a gain that opens at one second opens at one second."""
    ones = np.ones((2, 2 * RATE), np.float32)
    made = Song(ones)
    late = delay(made.engine, "late", 2000)
    gate = faust(made.engine, "gate", 'g = hslider("g", 0, 0, 1, 0.001); process = _*g, _*g;')
    block = 512
    step = -(-RATE // block) * block  # DawDreamer moves parameters at the start of a block
    gate.set_automation("/dawdreamer/g", (np.arange(2 * RATE) >= step).astype(np.float32))
    made.graph.split("split", "song", separator=passthrough)
    made.graph.add(late, ["split.vocals"], latency_samples=2000)
    made.graph.add(gate, ["late"])
    made.graph.render(2.0)
    sound = made.graph.get_audio("gate")
    assert not sound[:, :step].any() and np.abs(sound[:, step:] - 0.5).max() <= 1e-6


@pytest.mark.parametrize(
    ("tempo", "beats", "seconds"),
    [
        ((120.0,), 4, 2.0),
        ((90.0,), 1, 60 / 90),
        ((np.array([60, 120, 240], np.float32), 1), 4, 2.0),
        ((np.array([60, 120, 240], np.float32), 1), 1.5, 1.25),
        ((np.repeat(np.array([60, 120], np.float32), 960), 960), 2, 1.5),
        ((np.array([60, 120], np.float32), 1), 0.25, 0.25),
    ],
)
def test_beats_follow_the_tempo(song: Audio, tempo: tuple[Any, ...], beats: float, seconds: float) -> None:
    made = Song(song)
    made.engine.set_bpm(*tempo)
    made.graph.render(beats, beats=True)
    assert made.graph.get_audio("song").shape[1] == round(seconds * RATE)
    playback = made.engine.get_processor("song")
    made.engine.load_graph([(playback, [])])
    made.engine.render(beats, beats=True)  # rounds up to whole blocks, and changes the tempo at the start of one
    assert 0 <= playback.get_audio().shape[1] - round(seconds * RATE) < 2 * 512


def test_midi_in_beats_follows_the_tempo_in_every_pass(passthrough: Separator, song: Audio) -> None:
    made = Song(song[:, : 2 * RATE])
    click = made.engine.make_faust_processor("click")
    click.set_dsp_string('declare options "[nvoices:1]"; gate = button("gate"); process = gate * 0.5 <: _, _;')
    click.num_voices = 1
    click.compile()
    click.add_midi_note(60, 127, 1, 1, beats=True)
    made.engine.set_bpm(60.0)
    made.graph.split("split", "song", separator=passthrough)
    made.graph.add(click)
    made.graph.add(mixer(made.engine, "master", 2), ["click", "split.vocals"])
    made.graph.render(2.0)
    heard = np.flatnonzero(np.abs(made.graph.get_audio("click")[0]) > 0.01)
    assert abs(heard[0] - RATE) < 600


def test_renders_do_not_depend_on_those_before(passthrough: Separator, song: Audio) -> None:
    made = Song(song)
    verb = made.engine.make_reverb_processor("verb")
    verb.room_size, verb.wet_level, verb.dry_level = 0.9, 0.5, 0.5
    made.graph.split("split", "song", separator=passthrough)
    made.graph.add(verb, ["split.vocals"])
    made.graph.render(made.seconds)
    first = made.graph.get_audio("verb")
    for _ in range(3):
        made.graph.render(made.seconds / 2)
        assert np.array_equal(made.graph.get_audio("verb"), first[:, : first.shape[1] // 2])


def test_nodes_may_come_between_renders(passthrough: Separator, song: Audio) -> None:
    made = Song(song)
    made.graph.render(1.0)
    made.graph.split("split", "song", separator=passthrough)
    made.graph.render(1.0)
    made.graph.add(mixer(made.engine, "master", 1), ["split.vocals"])
    made.graph.render(1.0)
    assert np.abs(made.graph.get_audio("master") - 0.5 * song[:, :RATE]).max() <= 1e-6


def test_what_is_kept(passthrough: Separator, song: Audio) -> None:
    made = Song(song)
    one, two = mixer(made.engine, "one", 1), mixer(made.engine, "two", 1)
    made.graph.add(one, ["song"])
    made.graph.add(two, ["one"])
    made.graph.render(1.0)
    assert made.graph.get_audio("two").shape == (2, RATE) and not one.record
    with pytest.raises(OptionError, match="audio of 'one' was not kept. Set its record to True"):
        made.graph.get_audio("one")
    one.record = True
    made.graph.render(1.0)
    assert np.array_equal(made.graph.get_audio("one"), song[:, :RATE]) and one.record


def test_the_engine_keeps_no_player_of_ours(passthrough: Separator, song: Audio) -> None:
    made = Song(song)
    made.graph.split("split", "song", separator=passthrough)
    made.graph.add(mixer(made.engine, "master", 2), ["split.vocals", "song"])
    made.graph.render(1.0)
    names = [each["state"]["unique_name"] for each in made.engine.__getstate__()["processors"]]
    assert sorted(names) == ["master", "song"]


def test_a_bad_graph_is_refused_before_anything_is_rendered(passthrough: Separator, song: Audio) -> None:
    made = Song(song)
    engine, graph = made.engine, made.graph
    master = mixer(engine, "master", 2)
    graph.split("split", "song", separator=passthrough)
    with pytest.raises(OptionError, match="already"):
        graph.split("split", "song", separator=passthrough)
    with pytest.raises(OptionError, match="has a node 'song' already"):
        graph.add(engine.get_processor("song"))
    with pytest.raises(OptionError, match="node 'split.vocals' already"):
        graph.add(engine.make_playback_processor("split.vocals", song))
    with pytest.raises(StageError, match="inputs 'song'; expected a list of names"):
        graph.add(master, "song")
    with pytest.raises(StageError, match="expected a list of names"):
        graph.add(master, [3])  # type: ignore[list-item]
    with pytest.raises(StageError, match="input 3; expected the name"):
        graph.split("other", 3)  # type: ignore[arg-type]
    for latency in (-1, 1.5, "3"):
        with pytest.raises(OptionError, match="latency_samples .*; expected 0 or more frames"):
            graph.add(master, ["song"], latency_samples=latency)  # type: ignore[arg-type]
    with pytest.raises(StageError, match="a processor that the engine made, not str"):
        graph.add("song")
    with pytest.raises(OptionError, match="of another engine"):
        graph.add(Song(song).engine.get_processor("song"))
    with pytest.raises(ModelError, match="Unknown model"):
        graph.split("other", "song", model="nix")
    with pytest.raises(StageError, match="takes a dawdreamer.RenderEngine, not int"):
        SplitGraph(3)
    with pytest.raises(AudioError, match="the engine: sample rate"):
        SplitGraph(dawdreamer.RenderEngine(44100.5, 512))
    with pytest.raises(OptionError, match="the graph is empty"):
        SplitGraph(engine).render(1)


@pytest.mark.parametrize("duration", [0, -1, float("nan"), float("inf"), 1e9, 10**400, "3", None, True])
@pytest.mark.parametrize("beats", [False, True])
def test_bad_durations_are_refused(song: Audio, duration: Any, beats: bool) -> None:
    with pytest.raises(OptionError, match="duration .*; expected more than 0 and at most 86400 seconds"):
        Song(song).graph.render(duration, beats=beats)


def test_channels_must_match(passthrough: Separator, song: Audio, capfd: pytest.CaptureFixture[str]) -> None:
    for audio, inputs, count, reason in (
        (song[:1], ["song"], 1, r"'master' takes 2 channels and hears 1: 'song' \(1\)"),
        (song, ["song", "split.vocals"], 1, r"takes 2 channels and hears 4: 'song' \(2\), 'split.vocals' \(2\)"),
        (song, ["split.vocals"], 2, "takes 4 channels and hears 2"),
    ):
        made = Song(audio)
        made.graph.split("split", "song", separator=passthrough)
        made.graph.add(mixer(made.engine, "master", count), inputs)
        with pytest.raises(OptionError, match=reason):
            made.graph.render(1.0)
    made = Song(song)
    made.graph.add(mixer(made.engine, "master", 2), ["song"], partial_inputs=True)
    made.graph.render(1.0)
    assert np.array_equal(made.graph.get_audio("master"), song[:, :RATE])
    assert capfd.readouterr().err == ""  # DawDreamer found nothing to warn of


def test_an_effect_that_hears_nothing_is_told(song: Audio) -> None:
    made = Song(song)
    made.graph.add(made.engine.make_reverb_processor("verb"))
    with pytest.raises(OptionError, match="'verb' takes 2 channels and hears 0: nothing"):
        made.graph.render(1.0)


def test_numbers_of_any_kind_are_durations(song: Audio) -> None:
    made = Song(song)
    for duration in (np.float32(0.5), np.int64(1), 1):
        made.graph.render(duration)
        assert made.graph.get_audio("song").shape[1] == duration * RATE


def test_half_a_render_leaves_no_results(passthrough: Separator, song: Audio) -> None:
    made = Song(np.where(np.arange(song.shape[1]) < RATE, song, np.nan))
    made.graph.split("split", "song", separator=passthrough)
    made.graph.render(0.9)
    with pytest.raises(AudioError):
        made.graph.render(2.0)
    with pytest.raises(OptionError, match=r"call render\(\)"):
        made.graph.get_audio("song")


def test_parameters_may_change_between_renders(passthrough: Separator, song: Audio) -> None:
    made = Song(song)
    gain = faust(made.engine, "gain", 'g = hslider("g", 1, 0, 1, 0.01); process = _*g, _*g;')
    made.graph.split("split", "song", separator=passthrough)
    made.graph.add(gain, ["split.vocals"])
    for value in (1.0, 0.0, 0.5):
        gain.set_parameter("/dawdreamer/g", value)
        made.graph.render(1.0)
        assert np.abs(made.graph.get_audio("gain") - 0.5 * value * song[:, :RATE]).max() <= 1e-6


def test_names_that_are_not_there(passthrough: Separator, song: Audio) -> None:
    made = Song(song)
    made.graph.split("split", "song", separator=passthrough)
    for call in (lambda: made.graph.stems("split"), lambda: made.graph.get_audio("song")):
        with pytest.raises(OptionError, match=r"Call render\(\)|call render\(\)"):
            call()
    made.graph.render(1.0)
    with pytest.raises(OptionError, match="Unknown node 'sonk'.*Did you mean 'song'"):
        made.graph.get_audio("sonk")
    with pytest.raises(OptionError, match=r"'split' is a split: ask for split.STEM, or stems\('split'\)"):
        made.graph.get_audio("split")
    with pytest.raises(OptionError, match="Unknown split 'song'. Choices: split"):
        made.graph.stems("song")
    with pytest.raises(OptionError, match="Unknown processor 'split'"):
        made.graph.latency_samples("split")


def test_a_processor_that_the_engine_lost_is_told(song: Audio) -> None:
    made = Song(song)
    made.engine.remove_processor("song")
    with pytest.raises(OptionError, match="no processor 'song' any more"):
        made.graph.render(1.0)


def test_a_name_that_players_need_is_told(passthrough: Separator, song: Audio) -> None:
    made = Song(song)
    made.engine.make_playback_processor("split.vocals (rendered)", song)
    made.graph.split("split", "song", separator=passthrough)
    made.graph.add(mixer(made.engine, "master", 1), ["split.vocals"])
    with pytest.raises(OptionError, match="a name that SplitGraph needs. Rename it"):
        made.graph.render(1.0)


@pytest.mark.parametrize("channels", [0, 6])
def test_only_mono_and_stereo_can_be_split(passthrough: Separator, channels: int) -> None:
    made = Song(np.zeros((channels, RATE), np.float32))
    made.graph.split("split", "song", separator=passthrough)
    with pytest.raises(AudioError, match=f"'split' cannot split 'song': .*{channels} channels, expected 1 or 2"):
        made.graph.render(1.0)


def test_bad_samples_are_told_with_their_place(passthrough: Separator, song: Audio) -> None:
    bad = song.copy()
    bad[1, RATE // 2] = np.nan
    made = Song(bad)
    made.graph.split("split", "song", separator=passthrough)
    with pytest.raises(AudioError, match="'split' cannot split 'song': .*nan in channel 2 at 0.500 s"):
        made.graph.render(1.0)


# With a VST3 plugin that reports what it does.


def test_a_reported_latency_nulls(passthrough: Separator, song: Audio) -> None:
    made = Song(song)
    plugin = made.engine.make_plugin_processor("late", str(probe("LatencyProbe")))
    made.graph.split("split", "song", separator=passthrough)
    made.graph.add(plugin, ["split.vocals"])
    made.graph.add(mixer(made.engine, "master", 3), ["late", "split.drums", "split.other"])
    for latency in (1000, 0, 8191, 7):
        plugin.set_parameter(0, latency / 8191)
        made.graph.render(made.seconds)
        assert made.graph.latency_samples("late") == latency
        assert np.abs(made.graph.get_audio("master") - song).max() <= 1e-6


def test_a_latency_that_changes_while_rendering_is_planned_anew(song: Audio) -> None:
    made = Song(song)
    plugin = made.engine.make_plugin_processor("late", str(probe("LatencyProbe")))
    plugin.set_automation(0, np.full(made.audio.shape[1], 500 / 8191, np.float32))  # 1000 until the first block
    made.graph.add(plugin, ["song"])
    made.graph.add(mixer(made.engine, "master", 2), ["late", "song"])
    made.graph.render(made.seconds)
    assert made.graph.latency_samples("late") == 500
    assert np.abs(made.graph.get_audio("master") - 2 * song).max() <= 1e-6


@pytest.mark.parametrize("enable", [False, True])
def test_buses_that_would_crash_dawdreamer_do_not(enable: bool, tmp_path: Path) -> None:
    """In a process of its own: without the guard it dies."""
    script = f"""
import dawdreamer, numpy as np
from stemplug.dawdreamer import SplitGraph
engine = dawdreamer.RenderEngine(44100, 512)
song = np.random.default_rng(0).normal(0, 0.1, (2, 44100)).astype(np.float32)
graph = SplitGraph(engine)
graph.add(engine.make_playback_processor("song", song))
plugin = engine.make_plugin_processor("aux", {str(probe("AuxProbe"))!r})
if {enable}:
    plugin.enable_all_buses()
graph.add(plugin, ["song"])
for _ in range(3):
    graph.render(1.0)
    assert np.array_equal(graph.get_audio("aux"), song)
print("alive")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.stdout == "alive\n", (done.returncode, done.stderr)
