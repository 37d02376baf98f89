"""Sessions that render: what is heard, how loud, how often, and that it is what the same graph gives by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import dawdreamer
import numpy as np
import pytest
import soundfile
from pedalboard import Compressor, Gain

from stemplug import Board, OptionError, SessionError, StemSplit
from stemplug.audio import Audio
from stemplug.dawdreamer import SplitGraph
from stemplug.session import Rendered, render
from stemplug.session.stages import Cache
from tests.conftest import RATE, files_below, probe
from tests.session.conftest import Render, heard, one_track

HALF = "process = _ * 0.5, _ * 0.5;"


def song_of(folder: Path) -> Audio:
    return np.ascontiguousarray(soundfile.read(folder / "song.wav", dtype="float32")[0].T)


def test_a_track_that_does_nothing_is_the_song(folder: Path, rendered: Render) -> None:
    result = rendered(one_track({}))
    assert np.array_equal(heard(result), song_of(folder))
    assert [path.name for path in result.paths] == ["mix.wav", "render.json"]


def test_a_session_and_the_same_graph_by_hand_null(folder: Path, rendered: Render) -> None:
    session = one_track(
        {
            "split": {
                "model": "./model",
                "stems": {"vocals": {"effects": [{"Faust": {"code": HALF}}]}, "drums": {"gain_db": -6, "pan": 0.5}},
            },
        }
    )
    audio = song_of(folder)
    engine = dawdreamer.RenderEngine(RATE, 512)
    graph = SplitGraph(engine)
    graph.add(engine.make_playback_processor("song", audio))
    graph.split("split", "song", model=folder / "model")
    half = engine.make_faust_processor("half")
    half.set_dsp_string(HALF)
    side = engine.make_faust_processor("side")
    side.set_dsp_string(f"process = _ * {0.5 * 10**-0.3}, _ * {10**-0.3};")
    assert half.compile() and side.compile()
    graph.add(half, ["split.vocals"])
    graph.add(side, ["split.drums"])
    graph.add(engine.make_add_processor("mix", [1.0] * 3), ["half", "side", "split.other"])
    graph.render(audio.shape[1] / RATE)
    assert np.abs(heard(rendered(session)) - graph.get_audio("mix")).max() <= 1e-6


def test_a_session_and_the_same_graph_by_hand_null_with_the_installed_model(folder: Path, rendered: Render) -> None:
    audio = song_of(folder)
    engine = dawdreamer.RenderEngine(RATE, 512)
    graph = SplitGraph(engine)
    graph.add(engine.make_playback_processor("song", audio))
    graph.split("split", "song")
    rest = [f"split.{stem}" for stem in ("drums", "bass", "other")]
    graph.add(engine.make_add_processor("mix", [0.5, 1.0, 1.0, 1.0]), ["split.vocals", *rest])
    graph.render(audio.shape[1] / RATE)
    stems = {"vocals": {"gain_db": float(20 * np.log10(0.5))}}
    assert np.abs(heard(rendered(one_track({"split": {"stems": stems}}))) - graph.get_audio("mix")).max() <= 1e-6


def test_a_session_and_the_same_board_null(folder: Path, rendered: Render) -> None:
    compressor = {"Compressor": {"threshold_db": -20, "ratio": 4}}
    stems = {"vocals": {"effects": [compressor]}, "drums": {"gain_db": 3}}
    result = rendered(
        one_track({"split": {"model": "./model", "stems": stems}, "effects": [{"Gain": {"gain_db": -2}}]})
    )
    split = StemSplit(model=folder / "model", vocals=Compressor(-20, 4), gain_db={"drums": 3})
    assert np.abs(heard(result) - Board([Gain(-2), split])(song_of(folder), RATE)).max() <= 1e-6


def test_a_plugin_with_latency_is_aligned(folder: Path, rendered: Render) -> None:
    shutil.copytree(probe("LatencyProbe"), folder / "LatencyProbe.vst3")
    late = {"VST3": {"path": "LatencyProbe.vst3", "parameters": {"Latency": 0.3}}}
    stems = {"vocals": {"effects": [late]}, "other": {"effects": [late, late]}}
    result = rendered(one_track({"split": {"model": "./model", "stems": stems}}), trust=True)
    assert np.abs(heard(result) - song_of(folder)).max() <= 1e-6
    assert "LatencyProbe.vst3" in result.report["inputs"]


def test_clips_lie_where_they_are_put(folder: Path, rendered: Render) -> None:
    clips = [
        {"file": "song.wav", "at": "1 beat", "start": 0.25, "length": 0.5, "gain_db": -6},
        {"file": "speech.wav", "at": 1, "length": "2 beats"},
    ]
    mix = heard(rendered(one_track({"clips": clips}, tempo=240, tail=0.25)))
    song = song_of(folder)
    expected = np.zeros((2, round(1.75 * RATE)), np.float32)
    expected[:, RATE // 4 : RATE // 4 + RATE // 2] = song[:, RATE // 4 : RATE // 4 + RATE // 2] * 10**-0.3
    expected[:, RATE : RATE + RATE // 2] = song[0, : RATE // 2]
    assert mix.shape == expected.shape and np.abs(mix - expected).max() <= 1e-6


def test_fades_and_automation(folder: Path, rendered: Render) -> None:
    soundfile.write(folder / "song.wav", np.full((2 * RATE, 2), 0.5, np.float32), RATE, subtype="FLOAT")
    gain = [{"at": 0.5, "db": 0}, {"at": 1.5, "db": -20}]
    pan = [{"at": 0, "pan": -1}, {"at": 2, "pan": 1}]
    mix = heard(rendered(one_track({"clips": [{"file": "song.wav", "fade_in": 0.2}], "gain_db": gain, "pan": pan})))
    at = np.arange(2 * RATE) / RATE
    level = 0.5 * np.minimum(1, at / 0.2) * 10 ** (np.interp(at, [0.5, 1.5], [0, -20]) / 20)
    assert np.abs(mix[0] - level * np.clip(2 - at, 0, 1)).max() <= 1e-5
    assert np.abs(mix[1] - level * np.clip(at, 0, 1)).max() <= 1e-5


def test_buses_hear_what_is_sent_behind_the_fader(folder: Path, rendered: Render) -> None:
    session = one_track(
        {"gain_db": -6, "sends": {"a": -12}, "output": "b"},
        buses={"a": {"output": "b"}, "b": {"sends": {"c": -20}}, "c": {"gain_db": 20}},
    )
    share = 10**-0.3 * (1 + 10**-0.6) * 2
    assert np.abs(heard(rendered(session)) - share * song_of(folder)).max() <= 1e-5


def test_instrumental_and_acappella_share_the_mix(folder: Path, rendered: Render) -> None:
    session = one_track({"split": {"model": "./model"}, "sends": {"room": -6}}, buses={"room": {}})
    session["tracks"]["choir"] = {"clips": [{"file": "speech.wav"}], "role": "vocals"}
    session["deliverables"] = {
        name: {"of": name, "bit_depth": "32f"} for name in ("mix", "instrumental", "acappella", "stems")
    }
    result = rendered(session)
    sounds = {path.name: heard(result, index) for index, path in enumerate(result.paths[:-1])}
    assert list(sounds)[3:] == ["song.vocals.wav", "song.drums.wav", "song.other.wav", "choir.wav", "room.wav"]
    song, share = song_of(folder), 1 + 10**-0.3
    assert np.abs(sounds["instrumental.wav"] - 0.5 * share * song).max() <= 1e-6
    assert np.abs(sounds["acappella.wav"] - 0.5 * share * song - song[:1]).max() <= 1e-6
    assert np.abs(sounds["instrumental.wav"] + sounds["acappella.wav"] - sounds["mix.wav"]).max() <= 2e-6
    assert np.abs(sum(list(sounds.values())[3:]) - sounds["mix.wav"]).max() <= 2e-6


def test_a_faust_instrument_plays_notes_in_beats(folder: Path, rendered: Render) -> None:
    code = """
        import("stdfaust.lib");
        freq = hslider("freq", 440, 20, 20000, 0.01);
        gain = hslider("gain", 0.5, 0, 1, 0.01);
        gate = button("gate");
        effect = _, _;
        process = os.osc(freq) * gain * en.ar(0.001, 0.05, gate) <: _, _;
    """
    notes = [{"note": 69, "at": "1 beat", "length": "1 beat"}]
    track = {"clips": [{"at": 0.25, "notes": notes}], "instrument": {"faust": code}}
    mix = heard(rendered(one_track(track, tempo=120, length=2)))
    assert mix.shape == (2, 2 * RATE)
    assert not mix[:, : round(0.74 * RATE)].any() and np.abs(mix[:, round(0.76 * RATE) : round(0.8 * RATE)]).max() > 0.1


def test_a_midi_file_plays(folder: Path, rendered: Render) -> None:
    """At 60 quarter notes a minute of its own: a note from 0.5 to 1 s (Standard MIDI Files 1.0)."""
    tempo = bytes([0, 0xFF, 0x51, 3]) + (1_000_000).to_bytes(3, "big")
    events = tempo + bytes([48, 0x90, 69, 100, 48, 0x80, 69, 0, 0, 0xFF, 0x2F, 0])
    header = b"MThd" + (6).to_bytes(4, "big") + bytes([0, 0, 0, 1, 0, 96])
    (folder / "tune.mid").write_bytes(header + b"MTrk" + len(events).to_bytes(4, "big") + events)
    code = """
        freq = hslider("freq", 440, 20, 20000, 0.01);
        gain = hslider("gain", 0.5, 0, 1, 0.01);
        gate = button("gate");
        effect = _, _;
        process = gate * gain * freq / 1000 <: _, _;
    """
    track = {"clips": [{"midi": "tune.mid", "at": 0.25, "length": 1.5}], "instrument": {"faust": code}}
    mix = heard(rendered(one_track(track, tempo=200)))
    sounding = np.flatnonzero(mix[0]) / RATE
    assert mix.shape == (2, round(1.75 * RATE))
    assert sounding[0] == pytest.approx(0.75, abs=0.02) and sounding[-1] == pytest.approx(1.25, abs=0.02)
    (folder / "tune.mid").write_bytes(b"no MIDI")
    with pytest.raises(SessionError, match=r"clips\[0\].*tune.mid' is no MIDI file|instrument: 'tune.mid' is no MIDI"):
        rendered(one_track(track), output=folder / "second")


def test_silence_has_no_loudness_and_the_render_says_so(folder: Path, rendered: Render) -> None:
    soundfile.write(folder / "song.wav", np.zeros((RATE, 2)), RATE)
    result = rendered(one_track({}, deliverables={"mix": {"loudness": {"lufs": -14}, "dither": False}}))
    (remark,) = result.remarks
    assert not heard(result).any() and remark.startswith("mix.wav: it has no loudness: silent, ")
    assert result.report["deliverables"][0]["lufs"] is None


def test_muted_strips_are_not_heard(folder: Path, rendered: Render) -> None:
    session = one_track({"split": {"model": "./model", "stems": {"drums": {"mute": True}}}})
    session["tracks"]["other"] = {"clips": [{"file": "other.wav"}], "mute": True}
    assert np.abs(heard(rendered(session)) - 0.75 * song_of(folder)).max() <= 1e-6


def test_what_was_another_rate_or_mono_is_aligned(folder: Path, rendered: Render) -> None:
    """A 1 kHz tone at 48 kHz in mono, beside itself at the session's rate."""
    for name, rate in (("song.wav", RATE), ("other.wav", 48000)):
        tone = np.sin(2 * np.pi * 1000 * np.arange(2 * rate) / rate) * 0.25
        soundfile.write(folder / name, tone, rate, subtype="FLOAT")
    session = one_track({})
    session["tracks"]["other"] = {"clips": [{"file": "other.wav", "at": 0}]}
    session["tracks"]["song"]["effects"] = ["Invert"]
    mix = heard(rendered(session))
    assert mix.shape == (2, 2 * RATE) and np.abs(mix[:, 2000:-2000]).max() <= 1e-4


def test_a_side_chain_listens_to_another_track(folder: Path, rendered: Render) -> None:
    code = "process(l, r, a, b) = l * a, r * b;"
    session = one_track({"effects": [{"Faust": {"code": code, "side_chain": "key"}}]})
    session["tracks"]["key"] = {"clips": [{"file": "other.wav"}], "output": "off"}
    session["buses"] = {"off": {"mute": True}}
    other = soundfile.read(folder / "other.wav", dtype="float32")[0].T
    assert np.abs(heard(rendered(session)) - song_of(folder) * other).max() <= 1e-6


@pytest.mark.parametrize(("lufs", "limiter", "lands"), [(-20, 0, True), (-10, 12, True), (-6, 1, False)])
@pytest.mark.parametrize("form", [{"bit_depth": "16"}, {"format": "flac"}, {"format": "mp3"}])
def test_the_target_is_met_or_the_render_says_why(
    rendered: Render, lufs: float, limiter: float, lands: bool, form: dict[str, str]
) -> None:
    loudness = {"lufs": lufs, "true_peak_db": -1, "limiter_db": limiter}
    result = rendered(one_track({}, deliverables={"mix": {"loudness": loudness, **form}}))
    (about,) = result.report["deliverables"]
    assert about["true_peak_db"] <= -1
    assert (abs(about["lufs"] - lufs) <= 0.1) is lands
    assert lands is not any("Raise it, or lower lufs" in remark for remark in result.remarks)
    assert about["limited_db"] <= limiter + 0.1


def test_loudness_and_true_peak_are_those_of_other_meters(folder: Path, rendered: Render) -> None:
    """A sine of -6 dBFS at a quarter of the rate, whose samples miss its peaks (EBU Tech 3341, cases 15 to 19)."""
    from scipy.signal import resample_poly

    at = np.arange(2 * RATE)
    sine = 0.5 * np.sin(2 * np.pi * at / 4 + np.pi / 4)
    soundfile.write(folder / "song.wav", np.stack([sine, sine], 1), RATE, subtype="FLOAT")
    (about,) = rendered(one_track({"clips": [{"file": "song.wav", "fade_in": 0.1, "fade_out": 0.1}]})).report[
        "deliverables"
    ]
    assert about["true_peak_db"] == pytest.approx(-6.02, abs=0.2)
    song = rendered(one_track({"clips": [{"file": "other.wav"}]}), output=folder / "second")
    peak = np.abs(resample_poly(heard(song), 4, 1, axis=1)).max()
    assert song.report["deliverables"][0]["true_peak_db"] == pytest.approx(20 * np.log10(peak), abs=0.1)


def test_dither_makes_quiet_sounds_survive_16_bit(folder: Path, rendered: Render) -> None:
    at = np.arange(2 * RATE)
    tone = np.sin(2 * np.pi * 441 * at / RATE)
    soundfile.write(folder / "song.wav", np.stack([tone, tone], 1) * 1e-5, RATE, subtype="FLOAT")
    levels = {}
    for dither in (True, False):
        deliverables = {"mix": {"bit_depth": "16", "dither": dither}}
        mix = heard(rendered(one_track({}, deliverables=deliverables), output=folder / str(dither)))
        levels[dither] = abs(2 * (mix[0] * tone).mean())
    assert levels[True] == pytest.approx(1e-5, rel=0.2) and levels[False] == 0


def test_a_second_run_comes_from_the_cache_bit_for_bit(rendered: Render, tmp_path: Path) -> None:
    session = one_track({"effects": ["Reverb"], "split": {"model": "./model", "stems": {"vocals": {"gain_db": -3}}}})
    session["deliverables"] |= {"loud": {"format": "ogg", "loudness": {"lufs": -12}}}
    first = rendered(session, output=tmp_path / "one")
    second = rendered(session, output=tmp_path / "two")
    assert len(first.stages) > 4 and second.stages == []
    for one, two in zip(first.paths, second.paths, strict=True):
        assert one.read_bytes() == two.read_bytes()
    session["master"] = {"gain_db": -1}
    third = rendered(session, output=tmp_path / "three")
    assert [name for name, cached in third.stages if not cached] == ["master: fader"]
    fresh = rendered(session, output=tmp_path / "four", use_cache=False, cache=None)
    assert np.array_equal(heard(fresh), heard(third)) and not any(cached for _, cached in fresh.stages)


def test_what_is_damaged_in_the_cache_is_rendered_again(rendered: Render, tmp_path: Path) -> None:
    session = one_track({"gain_db": -3})
    first = heard(rendered(session))
    for path in (tmp_path / "cache").iterdir():
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert np.array_equal(heard(rendered(session, overwrite=True)), first)


def test_the_cache_forgets_what_was_used_longest_ago(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    for key in ("aa", "bb", "cc"):
        cache.keep_audio(key, np.ones((2, 1000), np.float32))
    assert cache.audio("aa") is not None
    cache.prune(17_000)
    assert cache.audio("bb") is None and cache.audio("aa") is not None and cache.audio("cc") is not None


def test_another_song_of_the_same_name_is_another_song(folder: Path, rendered: Render) -> None:
    first = heard(rendered(one_track({})))
    shutil.copy(folder / "other.wav", folder / "song.wav")
    assert not np.array_equal(heard(rendered(one_track({}), overwrite=True)), first)


def test_a_dry_run_writes_nothing(rendered: Render, tmp_path: Path) -> None:
    session = one_track({"split": {"model": "./model"}})
    result = rendered(session, dry_run=True)
    assert not (tmp_path / "out").exists() and not (tmp_path / "cache").exists()
    assert [cached for _, cached in result.stages] == [False] * len(result.stages) and len(result.stages) == 6
    assert [path.name for path in result.paths] == ["mix.wav", "render.json"]


def test_only_what_is_asked_for(rendered: Render) -> None:
    session = one_track({}, deliverables={"one": {}, "two": {}})
    assert [path.name for path in rendered(session, only=("two",)).paths] == ["two.wav", "render.json"]
    with pytest.raises(OptionError, match="Unknown deliverable 'tow'. Choices: one, two. Did you mean 'two'"):
        rendered(session, only=("tow",))


def test_files_that_exist_are_kept(rendered: Render, folder: Path, tmp_path: Path) -> None:
    rendered(one_track({}))
    before = {path: path.read_bytes() for path in files_below(tmp_path / "out")}
    with pytest.raises(OptionError, match="mix.wav' exists. Use --overwrite"):
        rendered(one_track({"gain_db": 3}))
    assert {path: path.read_bytes() for path in files_below(tmp_path / "out")} == before
    with pytest.raises(OptionError, match="is the song itself"):
        rendered(one_track({}, deliverables={"song": {}}), output=folder, overwrite=True)


def test_the_report_names_what_went_in(rendered: Render, folder: Path) -> None:
    result = rendered(one_track({"split": {"model": "./model"}}))
    report = json.loads(result.paths[-1].read_text())
    assert report == result.report
    assert list(report["inputs"]) == ["song.wav"] and len(report["inputs"]["song.wav"]) == 64
    assert list(report["models"]) == ["passthrough"] and report["versions"]["dawdreamer"] == "0.9.0"
    assert report["session"]["file"] == "session.yaml"


EXAMPLES = sorted((Path(__file__).parents[2] / "examples" / "sessions").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_render(path: Path, folder: Path, tmp_path: Path) -> None:
    shutil.copy(path, folder)
    result: Rendered = render(folder / path.name, tmp_path / "out", cache=tmp_path / "cache")
    about: dict[str, Any]
    for about in result.report["deliverables"]:
        audio, _ = soundfile.read(tmp_path / "out" / about["file"])
        assert audio.any() and np.isfinite(audio).all()
    assert result.remarks == []
    targets = {"karaoke": -14, "drums": -12, "podcast": -16, "album": -14}
    assert abs(result.report["deliverables"][0]["lufs"] - targets[path.stem]) <= 0.1
    assert sorted(each.name for each in EXAMPLES) == ["album.yaml", "drums.yaml", "karaoke.yaml", "podcast.yaml"]


def test_the_bed_ducks_under_speech(folder: Path, tmp_path: Path) -> None:
    example = next(path for path in EXAMPLES if path.stem == "podcast").read_text()
    (folder / "podcast.yaml").write_text(example + "  parts:\n    of: stems\n")
    noise = np.random.default_rng(1).normal(0, 0.1, (6 * RATE, 2))
    soundfile.write(folder / "song.wav", noise, RATE)
    result = render(folder / "podcast.yaml", tmp_path / "out", only=("parts",), cache=tmp_path / "cache")
    bed = heard(result, [path.name for path in result.paths].index("bed.wav"))
    before, under = (
        np.sqrt((bed[:, round(a * 48000) : round(b * 48000)] ** 2).mean()) for a, b in ((0.8, 1.4), (2, 3))
    )
    assert 20 * np.log10(under / before) < -9


@pytest.mark.parametrize("more", [{"mute": True}, {"role": "vocals"}])
def test_what_a_session_names_is_not_written_over_though_it_is_not_heard(
    rendered: Render, folder: Path, more: dict[str, Any]
) -> None:
    before = (folder / "other.wav").read_bytes()
    session = one_track({})
    session["tracks"]["silent"] = {"clips": [{"file": "other.wav", "length": 1}], **more}
    session["deliverables"] = {"other": {"of": "mix" if "mute" in more else "instrumental"}}
    with pytest.raises(OptionError, match=r"other\.wav"):
        rendered(session, output=folder, overwrite=True)
    assert (folder / "other.wav").read_bytes() == before


@pytest.mark.parametrize("length", [0, 1e-6])
def test_a_clip_without_a_frame_is_refused(rendered: Render, length: float) -> None:
    with pytest.raises(SessionError, match="a frame at least"):
        rendered(one_track({"clips": [{"file": "song.wav", "length": length}]}))
