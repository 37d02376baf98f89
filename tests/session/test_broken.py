"""Broken and hostile sessions: each gives one message with file, line, field and what to do; nothing is written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stemplug import SessionError
from tests.conftest import files_below
from tests.session.conftest import Render

SESSION = """\
version: 1
tempo: 120
tracks:
  song:
    clips:
      - file: song.wav
        at: 0
    effects:
      - Compressor: {threshold_db: -18}
      - Reverb
    split:
      model: ./model
      stems:
        vocals:
          gain_db: -3
    sends: {room: -6}
buses:
  room:
    gain_db: 0
master:
  effects:
    - Faust:
        code: |
          import("stdfaust.lib");
          process = _ * 0.5, _;
deliverables:
  mix:
    of: mix
    format: wav
"""

BROKEN = {
    "a field of another name": (
        "    sends: {room",
        "    send: {room",
        "line 16: tracks.song.send: Unknown field 'send'. Choices: .* Did you mean 'sends'",
    ),
    "a number that is text": (
        "gain_db: -3",
        "gain_db: loud",
        "line 15: tracks.song.split.stems.vocals.gain_db: found the text 'loud'; expected a valid number or a .*list",
    ),
    "a number out of range": (
        "gain_db: -3",
        "gain_db: 60",
        "line 15: tracks.*gain_db: found the int '60'; expected less than or equal to 24",
    ),
    "a time that is none": ("at: 0", "at: 3 bars", r"line 7: .*clips\[0\].at: found the text '3 bars'; .*'4 beats'"),
    "a field that is missing": ("version: 1\n", "", "line 1: version: the field 'version' is missing"),
    "another version": ("version: 1", "version: 2", "line 1: version: found the int '2'; expected 1"),
    "a word that is no choice": (
        "of: mix",
        "of: instrumentl",
        "line 28: deliverables.mix.of: Unknown value 'instrumentl'. .* Did you mean 'instrumental'",
    ),
    "no YAML": ("tempo: 120", "tempo: [120", "line 3: not valid YAML"),
    "a key twice": ("tempo: 120", "version: 1", "line 2: not valid YAML .a key stands twice"),
    "an effect of another name": (
        "- Reverb",
        "- Revreb",
        r"line 10: tracks.song.effects\[1\]: Unknown effect 'Revreb'. .* Did you mean 'Reverb'",
    ),
    "a setting of another name": (
        "threshold_db: -18",
        "treshold_db: -18",
        r"line 9: tracks.song.effects\[0\].Compressor.treshold_db: Unknown setting .* Did you mean 'threshold_db'",
    ),
    "an effect that refuses": (
        "- Reverb",
        "- Reverb: {room_size: 7}",
        r"line 10: tracks.song.effects\[1\].Reverb: .*0.0 and 1.0",
    ),
    "an effect inside another": (
        "- Reverb",
        "- Mix: [Gain, Faust]",
        r"line 10: .*Mix\[1\]: Faust stands inside another effect",
    ),
    "a StemSplit as an effect": ("- Reverb", "- StemSplit", "line 10: .*a strip is split by its field 'split'"),
    "a bus that is not there": (
        "{room: -6}",
        "{rom: -6}",
        "line 16: tracks.song.sends.rom: Unknown bus 'rom'. Choices: room. Did you mean 'room'",
    ),
    "an output that is not there": (
        "    sends: {room: -6}",
        "    output: song",
        "line 16: tracks.song.output: Unknown bus 'song'. Choices: master, room",
    ),
    "a bus that hears itself": (
        "    gain_db: 0\nmaster",
        "    sends: {room: 0}\nmaster",
        "line 19: buses.room: 'room' hears itself: room -> room. Take one",
    ),
    "a stem that the model lacks": (
        "        vocals:",
        "        vocal:",
        "line 15: .*stems.vocal: Unknown stem 'vocal'. Choices: drums, other, vocals. Did you mean 'vocals'",
    ),
    "a model that is not there": (
        "./model",
        "spleter-2stems",
        "line 12: .*split.model: Unknown model .*spleeter-2stems",
    ),
    "a file that is not there": (
        "file: song.wav",
        "file: sung.wav",
        r"line 6: tracks.song.clips\[0\].file: the file is not there. .* Did you mean 'song.wav'",
    ),
    "a file that is no audio": ("file: song.wav", "file: session.yaml", "line 6: .*is not audio"),
    "points out of order": (
        "gain_db: -3",
        "gain_db: [{at: 1, db: 0}, {at: 0, db: 1}]",
        "line 15: .*stems.vocals.gain_db: the times of its points do not rise",
    ),
    "Faust that does not compile": (
        "_ * 0.5, _;",
        "_ * half, _;",
        r"line 23: master.effects\[0\].Faust.code: Faust: line 2 of the code: undefined symbol : half. Correct",
    ),
    "Faust with other channels": ("_ * 0.5, _;", "_ * 0.5;", "line 23: .*1 inputs and 1 outputs; expected 2 and 2"),
    "a form that holds no floats": (
        "format: wav",
        "format: flac\n    bit_depth: 32f",
        "line 28: deliverables.mix: FLAC holds no 32-bit floats",
    ),
    "nothing to sing": (
        "    split:\n      model: ./model\n      stems:\n        vocals:\n          gain_db: -3\n",
        "",
        "line 23: deliverables.mix.of: 'acappella' needs vocals",
    ),
    "no clips": (
        "    clips:\n      - file: song.wav\n        at: 0\n",
        "    clips: []\n",
        "line 5: .*clips: found a list of 0",
    ),
    "notes without an instrument": (
        "file: song.wav",
        "notes: [{note: 60, at: 0, length: 1}]",
        "line 6: .*notes: midi and notes need the track's instrument",
    ),
    "a song of no album": ("file: song.wav", "file: $song", "line 6: .*the field 'songs' is missing"),
}

HOSTILE = {
    "a path that leaves the folder": (
        "file: song.wav",
        "file: ../secret.wav",
        "line 6: .*outside of the session's folder",
    ),
    "an absolute path": ("file: song.wav", "file: SECRET", "line 6: .*outside of the session's folder.* --trust"),
    "a device": ("file: song.wav", "file: /dev/zero", "line 6: .*outside of the session's folder"),
    "a pipe": ("file: song.wav", "file: pipe.wav", "line 6: .*is no regular file"),
    "a link that leaves the folder": ("file: song.wav", "file: link.wav", "line 6: .*outside of the session's folder"),
    "a folder": ("file: song.wav", "file: model", "line 6: .*is no regular file"),
    "a NUL in a path": ("file: song.wav", 'file: "so\\0ng.wav"', "line 6: .*is no path"),
    "a path inside an effect": (
        "- Reverb",
        "- Mix: [{Convolution: {impulse_response_filename: SECRET}}]",
        "line 10: .*outside of the session's folder",
    ),
    "a model elsewhere": ("./model", "../other", "line 12: .*outside of the session's folder"),
    "a name that is a path": ("  mix:\n", "  ../mix:\n", "line 28: .*expected a name of letters"),
    "a plugin": ("- Reverb", "- VST3: {path: evil.vst3}", "line 10: .*native code.*Use --trust"),
    "an alias": ("tempo: 120", "tempo: &a 120\nsample_rate: *a", "line 3: not valid YAML .aliases are not allowed"),
    "a tag": ("tempo: 120", "tempo: !!python/object:os.system 1", "line 2: not valid YAML .the tag .* is not allowed"),
    "deep nesting": ("tempo: 120", f"tempo: {'[' * 5000}", "not valid YAML"),
    "nested effects": ("- Reverb", f"- {'{Mix: [' * 200}Gain{']}' * 200}", "not valid YAML|nested too deep"),
    "Faust that reads files": (
        'import("stdfaust.lib");',
        'import("/etc/passwd");',
        "line 23: .*Unknown library '/etc/passwd'",
    ),
    "Faust that hides what it reads": ('import("stdfaust.lib")', 'import /**/ ("x")', "line 23: .*Unknown library"),
    "Faust that calls C": (
        "_ * 0.5, _;",
        'ffunction(float exit(float), "", "");',
        "line 23: .*'ffunction' reaches files or native code",
    ),
    "Faust that wants all memory": (
        "_ * 0.5, _;",
        "_, _ : @(1000000000), @(1000000000);",
        "line 23: .*Faust.code: Faust: the code crashes the compiler, or keeps it busy",
    ),
    "a session without end": (
        "at: 0",
        "at: 7200",
        "line 1: length: the session is 7202 s long; expected .* at most 7200",
    ),
}


@pytest.mark.parametrize(("old", "new", "expected"), [*BROKEN.values(), *HOSTILE.values()], ids=[*BROKEN, *HOSTILE])
def test_one_message_says_where_and_what(
    rendered: Render, folder: Path, tmp_path: Path, old: str, new: str, expected: str
) -> None:
    (folder.parent / "secret.wav").write_bytes((folder / "song.wav").read_bytes())
    (folder / "link.wav").symlink_to("../secret.wav")
    os.mkfifo(folder / "pipe.wav")
    assert SESSION.count(old) == 1
    session = SESSION.replace(old, new).replace("SECRET", str(tmp_path / "secret.wav"))
    session = session.replace("of: mix", "of: acappella") if "'acappella'" in expected else session
    with pytest.raises(SessionError, match=expected) as caught:
        rendered(session)
    message = str(caught.value)
    assert message.startswith(f"{folder / 'session.yaml'}") and "\n" not in message and len(message) < 1200
    assert not (tmp_path / "out").exists() and not (tmp_path / "cache").exists()


def test_the_session_that_is_broken_here_is_whole(rendered: Render, tmp_path: Path) -> None:
    rendered(SESSION)
    assert [path.name for path in files_below(tmp_path / "out")] == ["mix.wav", "render.json"]


def test_a_trusted_session_may_use_files_elsewhere(rendered: Render, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.wav").write_bytes((folder / "song.wav").read_bytes())
    result = rendered(SESSION.replace("song.wav", str(tmp_path / "secret.wav")), trust=True)
    assert str(tmp_path / "secret.wav") in result.report["inputs"]


def test_a_render_that_fails_half_way_leaves_what_was_there(rendered: Render, folder: Path, tmp_path: Path) -> None:
    rendered(SESSION)
    before = {path: path.read_bytes() for path in files_below(tmp_path / "out")}
    whole = (folder / "song.wav").read_bytes()
    (folder / "song.wav").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SessionError, match=r"clips\[0\].*truncated"):
        rendered(SESSION, overwrite=True)
    assert {path: path.read_bytes() for path in files_below(tmp_path / "out")} == before


def test_faust_that_never_ends(rendered: Render, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("stemplug.session.nodes.TRIAL_SECONDS", 3)
    endless = "f(0) = _; f(n) = f(n - 1), f(n - 1); process = f(24);"
    with pytest.raises(SessionError, match="line 23: .*keeps it busy for more than 3 s"):
        rendered(SESSION.replace("process = _ * 0.5, _;", endless))
    assert not (tmp_path / "out").exists()


def test_what_lies_in_the_working_folder_is_not_run(
    rendered: Render, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A session that comes with a folder, in which it is rendered."""
    monkeypatch.chdir(folder)
    for name in ("dawdreamer", "resource", "contextlib"):
        (folder / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    rendered(SESSION)
    (folder / "maths.lib").write_text("PI = 3;")
    with pytest.raises(SessionError, match="line 23: .*'maths.lib' lies in the working folder"):
        rendered(SESSION, overwrite=True)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["...wav", ".wav"])
def test_a_song_whose_name_is_no_folder(rendered: Render, folder: Path, tmp_path: Path, name: str) -> None:
    (folder / name).write_bytes((folder / "song.wav").read_bytes())
    session = SESSION.replace("song.wav", "$song").replace("tempo: 120", f"songs: [{name}]")
    if name == ".wav":  # a hidden file's name
        rendered(session)
        assert (tmp_path / "out" / ".wav" / "mix.wav").exists()
    else:
        with pytest.raises(SessionError, match=r"line 2: songs\[0\]: the file's name gives no name"):
            rendered(session)
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["", "[]", "a session", "version: 1"])
def test_what_is_no_session_at_all(rendered: Render, text: str) -> None:
    with pytest.raises(SessionError, match="expected a session|is missing"):
        rendered(text)
