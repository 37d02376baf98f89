"""A REAPER project with one track split: stems where the items were, and not another byte changed."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import soundfile

from stemplug.audio import Audio
from stemplug.engine import Separator
from stemplug.errors import AudioError, OptionError, StemPlugError, TrackError
from stemplug.tracks import rpp
from stemplug.tracks.projects import Splitter, model_splitter, show, split_track
from tests.conftest import RATE, files_below

STEMS = ("vocals", "drums", "other")
VOICE = "Łódź “vox” 🎧"
FX = """
    <FXCHAIN
      WNDRECT 60 60 700 500
      SHOW 0
      LASTSEL 0
      DOCKED 0
      BYPASS 0 0 0
      <VST "VST: ReaComp (Cockos)" reacomp.vst.so 0 "" 1919247213<5653547265636D726561636F6D700000> ""
        bWNlcu5e7f4CAAAAAQAAAAAAAAACAAAAAAAAAAIAAAABAAAAAAAAAAIAAAAAAAAA
        776t3g3wrd6mm8Q7F7fROgAAAAAAAAAAAAAAAM5NAD/pZ4g9AAAAAAAAAD8AAIA/
        AAAQAAAA
      >
      FXID {0B0F1F34-9F0F-4D8C-8F3B-000000000%03d}
      <PARMENV 1 0 1 0.5
        EGUID {0B0F1F34-9F0F-4D8C-8F3B-100000000%03d}
        ACT 1 -1
        PT 0 0.5 0
      >
      WAK 0 0
    >"""
VIDEO = """
    <FXCHAIN
      BYPASS 0 0 0
      <VIDEO_EFFECT "" ""
        <CODE
          |// > this is < no block
          |gfx_blit(input_track(0), 1);
          |>
        >
        CODEPARM 0 0.5 0.5
      >
      FXID {0B0F1F34-9F0F-4D8C-8F3B-200000000000}
    >"""
ENVELOPE = """
    <%s
      EGUID {0B0F1F34-9F0F-4D8C-8F3B-3000000%05d}
      ACT 1 -1
      PT 0 1 0
      PT 4.25 0.5 0
    >"""
NOTES = """  <NOTES 0 2
    |<TRACK, no track>
    |  ISBUS 1 1
  >
"""


def guid(kind: int, number: int) -> str:
    return f"{{0B0F1F34-9F0F-4D8C-8F3B-{kind:04d}{number:08d}}}"


def source(file: str = "", kind: str = "WAVE") -> str:
    if kind == "MIDI":
        return "\n      <SOURCE MIDI\n        HASDATA 1 960 QN\n        E 480 90 3c 60\n        E 480 80 3c 00\n      >"
    return f"\n      <SOURCE {kind}{file and f'{chr(10)}        FILE {file}'}\n      >"


def item(number: int, position: float, name: str, *sources: str, extra: str = "") -> str:
    """An item of one or more takes, the last of them active."""
    text = f"""
    <ITEM
      POSITION {position}
      SNAPOFFS 0
      LENGTH 0.4
      LOOP 1
      ALLTAKES 0
      FADEIN 1 0.01 0 1 0 0 0
      FADEOUT 1 0.02 0 1 0 0 0
      MUTE 0 0
      SEL 0
      IGUID {guid(4000, number)}
      IID {number}
      NAME {name}
      VOLPAN 0.7 0 1 -1
      SOFFS 0.125
      PLAYRATE 1 1 0 -1 0 0.0025
      CHANMODE 0
      GUID {guid(5000, number)}"""
    for index, one in enumerate(sources):
        if index:
            text += f"\n      TAKE{' SEL' * (index == len(sources) - 1)}\n      NAME {name}\n      TAKEVOLPAN 0 1 -1"
            text += f"\n      SOFFS 0.0625\n      PLAYRATE 1 1 0 -1 0 0.0025\n      GUID {guid(6000 + index, number)}"
        text += one
    return text + extra.replace("%n", str(number)) + "\n    >"


TAKE_EXTRAS = f"""
      <TAKEFX
        BYPASS 0 0 0
        <JS utility/volume ""
          -6 - - -
        >
        FXID {guid(7000, 1)}
      >
      <VOLENV
        EGUID {guid(7001, 1)}
        ACT 1 -1
        PT 0 1 0
      >"""


def track(number: int, name: str, *body: str, isbus: str = "0 0", mute: str | None = "0 0 0") -> str:
    head = f"""
  <TRACK {guid(1000, number)}
    NAME {name}
    PEAKCOL 16576
    BEAT -1
    AUTOMODE 0
    VOLPAN 0.{number:02d} -0.25 -1 -1 1{"" if mute is None else f"{chr(10)}    MUTESOLO {mute}"}
    IPHASE 0
    PLAYOFFS 0 1
    ISBUS {isbus}
    BUSCOMP 0 0 0 0 0
    SHOWINMIX 1 0.6667 0.5 1 0.5 -1 -1 -1
    REC 0 0 1 0 0 0 0 0
    NCHAN 4
    FX 1
    TRACKID {guid(1000, number)}
    PERF 0
    MIDIOUT -1
    MAINSEND 1 0"""
    return head + "".join(body) + "\n  >"


def receive(index: int) -> str:
    return f"\n    AUXRECV {index} 0 1 0 0 0 0 0 0 -1:U 0 -1 ''"


def project() -> str:
    """Twelve tracks, folders three deep, as REAPER writes them."""
    kick, room, bass = source("audio/kick.wav"), source('"audio/room far.wav"'), source("'audio/bass.wav'")
    tracks = [
        track(1, "Drums", FX % (1, 1), item(1, 9, "fill.wav", kick), isbus="1 1"),
        track(2, "Kick", item(2, 0, "kick.wav", kick), item(3, 1.5, "kick.wav", kick, extra=TAKE_EXTRAS)),
        track(3, "Overheads", isbus="1 1"),
        track(4, '"OH L"', item(4, 0.25, '"OH L.wav"', room)),
        track(5, "Rooms", isbus="1 1"),
        track(6, '"Room far"', item(5, 0.5, '"room far.wav"', room), isbus="2 -3", mute="0 1 0"),
        track(7, "Bass", receive(1), FX % (7, 7), item(6, 2, "b.wav", bass, source("audio/bass.mid.wav"), bass)),
        track(
            8,
            f'"{VOICE}"',
            ENVELOPE % ("VOLENV2", 8),
            item(7, 0, '"Zażółć.wav"', source('"audio/Zażółć.wav"')),
            item(8, 4, '"Zażółć.wav"', source('"../%s/audio/Zażółć.wav"')),
            mute=None,
        ),
        track(9, "Keys", FX % (9, 9), item(9, 0, '"MIDI item"', source(kind="MIDI"))),
        track(
            10,
            '"Mixed bag"',
            item(10, 0, "a.wav", source("audio/a.wav")),
            item(11, 1, "midi", source(kind="MIDI")),
            item(12, 2, '""', ""),
            item(13, 3, "both", source(kind="MIDI"), source("audio/b/a.wav")),
            isbus="1 1",
        ),
        track(11, "Screen", VIDEO, isbus="2 -1"),
        track(12, "Reverb", receive(7), ENVELOPE % ("AUXVOLENV", 12), receive(1), receive(9), receive(10), receive(5)),
    ]
    head = '<REAPER_PROJECT 0.1 "7.16/linux-x86_64" 1718000000\n' + NOTES + "  RIPPLE 0\n"
    head += (
        '  RECORD_PATH "audio" ""\n  SAMPLERATE 44100 0 0\n  <METRONOME 6 2\n    VOL 0.25 0.125\n  >\n  TEMPO 120 4 4'
    )
    return head + "".join(tracks) + "\n  <EXTENSIONS\n    <S&M_TRACKNOTES\n      |x\n    >\n  >\n>\n"


MEDIA = ("kick.wav", "room far.wav", "bass.wav", "bass.mid.wav", "Zażółć.wav", "a.wav", "b/a.wav")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of the project, with its media."""
    home = tmp_path / "My song"
    for number, name in enumerate(MEDIA):
        path = home / "audio" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.full((1000 + number, 2), 0.01 * (1 + number)), RATE, subtype="PCM_24")
    return home


def write(folder: Path, text: str | None = None) -> Path:
    path = folder / "song.rpp"
    text = project().replace("../%s/", f"../{folder.name}/") if text is None else text
    path.write_bytes(text.encode(errors="surrogateescape"))
    return path


def splitter(calls: list[Path] | None = None) -> Splitter:
    """Stems that are the source itself, and a list of what was split."""

    def run(song: Path, folder: Path) -> Mapping[str, Path]:
        if calls is not None:
            calls.append(song)
        folder.mkdir(parents=True)
        for stem in STEMS:
            (folder / f"{stem}.wav").write_bytes(song.read_bytes())
        return {stem: folder / f"{stem}.wav" for stem in STEMS}

    return Splitter(STEMS, run)


def blocks(text: bytes) -> list[list[bytes]]:
    """The lines of each track, and of what stands before, between and behind them; read by hand."""
    pieces: list[list[bytes]] = [[]]
    depth = 0
    for line in text.splitlines(keepends=True):
        if depth == 1 and line.lstrip().startswith(b"<TRACK"):
            pieces.append([])
        pieces[-1].append(line)
        depth += line.lstrip().startswith(b"<") - line.lstrip().startswith(b">")
        if depth == 1 and line.strip() == b">" and pieces[-1][0].lstrip().startswith(b"<TRACK"):
            pieces.append([])
    assert depth == 0
    return [piece for piece in pieces if piece]


def receives(path: Path) -> dict[str, list[str]]:
    """The names of the tracks that each track receives."""
    tracks = [piece for piece in blocks(path.read_bytes()) if piece[0].lstrip().startswith(b"<TRACK")]
    names = [re.search(rb"NAME (.*?)\s*$", piece[1])[1].decode() for piece in tracks]  # type: ignore[index]
    return {
        name: [names[int(line.split()[1])] for line in piece if line.startswith(b"    AUXRECV")]
        for name, piece in zip(names, tracks, strict=True)
        if any(line.startswith(b"    AUXRECV") for line in piece)
    }


# Track, tracks from it to the new ones, lines that change (before -> after), folders that the last stem closes.
CASES = {
    "Kick": (1, [("    MUTESOLO 0 0 0", "    MUTESOLO 1 0 0")], 1),
    "Room far": (
        1,
        [("    MUTESOLO 0 1 0", "    MUTESOLO 1 0 0"), ("    ISBUS 2 -3", "    ISBUS 0 0")],
        4,
    ),
    "Bass": (1, [("    MUTESOLO 0 0 0", "    MUTESOLO 1 0 0")], 1),
    VOICE: (1, [(None, "    MUTESOLO 1 0 0")], 1),
    "Mixed bag": (2, [("      MUTE 0 0", "      MUTE 1 0"), ("      MUTE 0 0", "      MUTE 1 0")], 1),
    "Drums": (6, [("      MUTE 0 0", "      MUTE 1 0")], 1),
}


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("name", CASES)
def test_only_the_intended_lines_change(folder: Path, name: str, newline: str) -> None:
    path = write(folder, project().replace("../%s/", f"../{folder.name}/").replace("\n", newline))
    before = path.read_bytes()
    result = split_track(path, folder / "new.rpp", name, splitter())
    after = result.path.read_bytes()
    assert path.read_bytes() == before
    distance, changed, closed = CASES[name]
    index = next(t.number for t in show(path) if t.name == name) - 1
    inserted_at = index + distance

    pieces = blocks(after)
    tracks = [i for i, piece in enumerate(pieces) if piece[0].lstrip().startswith(b"<TRACK")]
    new = tracks[inserted_at : inserted_at + 1 + len(STEMS)]
    block = b"".join(line for i in new for line in pieces[i])
    rest = b"".join(line for i, piece in enumerate(pieces) if i not in new for line in piece)

    # Line by line, which is stricter than a diff: that takes a receive of 5, now 9, for the one of 9 before.
    was, now = before.decode().split(newline), rest.decode().split(newline)
    added = [line for old, line in changed if old is None]
    if added:
        at = next(i for i, line in enumerate(now) if line.startswith("    NAME") and name in line) + 1
        assert [now.pop(at)] == added
    assert len(was) == len(now)
    differ = [(a, b) for a, b in zip(was, now, strict=True) if a != b]
    assert [pair for pair in differ if "AUXRECV" not in pair[0]] == [pair for pair in changed if pair[0]]
    shift = {line: re.sub(r"\d+", lambda m: str(int(m[0]) + 4), line, count=1) for line in was if "AUXRECV" in line}
    moved = [line for line in was if "AUXRECV" in line and int(line.split()[1]) >= inserted_at]
    assert [pair for pair in differ if "AUXRECV" in pair[0]] == [(line, shift[line]) for line in moved]
    # And by diff on the whole: everything that was removed or replaced is one of those lines.
    diff = difflib.ndiff(before.decode().split(newline), after.decode().split(newline))
    assert {line[2:] for line in diff if line.startswith("- ")} <= {a for a, _ in differ}

    assert b"\r\n" not in block if newline == "\n" else block.count(b"\n") == block.count(b"\r\n")
    assert f"    ISBUS 2 -{closed}{newline}".encode() in block
    guids = re.findall(rb"\{[0-9A-F-]{36}\}", block)
    assert len(set(guids)) == len(guids) - 4  # each track names its own twice
    assert not any(one in before for one in guids)


@pytest.mark.parametrize("name", CASES)
def test_stem_tracks_repeat_the_items_in_a_folder_of_their_own(folder: Path, name: str) -> None:
    path = write(folder)
    result = split_track(path, folder / "new.rpp", name, splitter())
    old, new = show(path), show(result.path)
    original = next(track for track in old if track.name == name)
    ours = [track for track in new if track.name in (f"{name} stems", *STEMS)]
    assert [(t.name, t.depth, t.folder) for t in ours] == [
        (f"{name} stems", original.depth, True),
        *((stem, original.depth + 1, False) for stem in STEMS),
    ]
    assert [(t.name, t.depth, t.folder) for t in new if t not in ours] == [(t.name, t.depth, t.folder) for t in old]
    audio = [item for item in original.items if any(take.kind == "WAVE" for take in item.takes)]
    for stem in ours[1:]:
        assert [(i.position, i.length) for i in stem.items] == [(i.position, i.length) for i in audio]
        for made, item in zip(stem.items, audio, strict=True):
            assert [take.active for take in made.takes] == [take.active for take in item.takes]
            for take, before in zip(made.takes, item.takes, strict=True):
                assert take.name == f"{before.name} - {stem.name}"
                assert take.kind == ("WAVE" if before.kind == "WAVE" else "EMPTY")
                if take.file:
                    source = soundfile.read(folder / before.file)[0]
                    assert np.array_equal(soundfile.read(folder / take.file)[0], source)
    assert receives(path) == receives(result.path)
    assert original.muted is False and {t.name: t.muted for t in new}[name] is not original.folder


def test_each_source_is_separated_once_and_names_stay_apart(folder: Path) -> None:
    calls: list[Path] = []
    path = write(folder)
    result = split_track(path, folder / "new.rpp", VOICE, splitter(calls))
    assert [call.name for call in calls] == ["Zażółć.wav"]  # although two items name it in two ways
    assert [p.relative_to(folder).as_posix() for p in result.media] == [f"new Stems/Zażółć - {s}.wav" for s in STEMS]
    mixed = split_track(path, folder / "mixed.rpp", "Mixed bag", splitter())
    assert [p.name for p in mixed.media] == [*(f"a - {s}.wav" for s in STEMS), *(f"a 2 - {s}.wav" for s in STEMS)]
    assert [n for n in mixed.notes if "MIDI" in n and "not split" in n and "item 2" in n]
    assert [n for n in mixed.notes if "EMPTY" in n and "item 3" in n]
    assert [n for n in mixed.notes if "take 1" in n and "item 4" in n]
    left = [p.relative_to(folder).as_posix() for p in files_below(folder) if p.is_file()]
    assert len(left) == len(MEDIA) + 1 + (1 + 3) + (1 + 6)


def test_what_the_track_does_is_done_by_the_folder_and_what_items_have_is_copied(folder: Path) -> None:
    path = write(folder)
    text = split_track(path, folder / "new.rpp", "Room far", splitter()).path.read_text()
    head = text.split('NAME "Room far stems"')[1].split("<TRACK")[0]
    assert "VOLPAN 0.06 -0.25 -1 -1 1\n" in head and "MUTESOLO 0 1 0\n" in head and "MAINSEND 1 0\n" in head
    text = split_track(path, folder / "kick.rpp", "Kick", splitter()).path.read_text()
    made = text.split('NAME "vocals"')[1].split("<TRACK")[0]
    for line in ("FADEIN 1 0.01 0 1 0 0 0", "FADEOUT 1 0.02", "VOLPAN 0.7 0 1 -1", "SOFFS 0.125", "PLAYRATE 1 1 0 -1"):
        assert made.count(line) == 2
    assert "<JS utility/volume" in made and "<VOLENV\n" in made and "PLAYOFFS 0 1\n" in made
    assert f"PEAKCOL {0x1000000 | 85 << 16 | 94 << 8 | 235}\n" in made
    voice = split_track(path, folder / "voice.rpp", VOICE, splitter()).path.read_text()
    assert "<VOLENV2" in voice.split(' stems"')[1].split("<TRACK")[0]


def test_a_split_project_can_be_split_again(folder: Path) -> None:
    path = write(folder)
    first = split_track(path, folder / "one.rpp", "Kick", splitter())
    second = split_track(first.path, folder / "two.rpp", "vocals", splitter())
    names = [(t.name, t.depth) for t in show(second.path)][:12]
    assert names[1:11] == [
        ("Kick", 1),
        ("Kick stems", 1),
        ("vocals", 2),
        ("vocals stems", 2),
        *((stem, 3) for stem in STEMS),
        ("drums", 2),
        ("other", 2),
        ("Overheads", 1),
    ]
    assert receives(path) == receives(second.path)


def test_a_folder_that_is_never_closed_and_numbers_for_names(folder: Path) -> None:
    """At the end of a project REAPER may leave folders open."""
    kick = source("audio/kick.wav")
    body = track(1, "Same", isbus="1 1") + track(2, "Same", item(1, 0, "x", kick), isbus="1 1") + track(3, "Last")
    path = write(folder, f"<REAPER_PROJECT 0.1{body}\n>\n")
    with pytest.raises(OptionError, match="tracks 1, 2 have that name"):
        split_track(path, folder / "new.rpp", "Same", splitter())
    new = show(split_track(path, folder / "new.rpp", "2", splitter()).path)
    assert [(t.name, t.depth) for t in new] == [
        ("Same", 0),
        ("Same", 1),
        ("Last", 2),
        ("Same stems", 1),
        *((stem, 2) for stem in STEMS),
    ]


def test_names_of_any_bytes_stay(folder: Path) -> None:
    name = b"caf\xe9 \"a\" 'b'"
    (folder / "audio" / os.fsdecode(b"caf\xe9.wav")).write_bytes((folder / "audio/kick.wav").read_bytes())
    text = "<REAPER_PROJECT 0.1" + track(1, "%N", item(1, 0, "x", source("%F"))) + "\n>\n"
    data = text.encode().replace(b"%N", b"`" + name + b"`").replace(b"%F", b'"audio\\caf\xe9.wav"')
    path = folder / "song.rpp"
    path.write_bytes(data)
    result = split_track(path, folder / "new.rpp", os.fsdecode(name), splitter())
    assert b"NAME `" + name + b" stems`\n" in result.path.read_bytes()
    assert b'FILE "new Stems/caf\xe9 - vocals.wav"\n' in result.path.read_bytes()
    assert all(path.exists() for path in result.media)


KICK = track(1, "Kick", item(1, 0, "kick.wav", source("audio/kick.wav")))
GOOD = f"<REAPER_PROJECT 0.1{KICK}\n>\n"


def replaced(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


WAVE = "<SOURCE WAVE\n        FILE audio/kick.wav\n      >"
SECTION = f"<SOURCE SECTION\n        MODE 3\n        {WAVE}\n      >"
BROKEN = {
    "empty": ("", "", "the file is empty.*REAPER saved"),
    "no project": ("<html>\n</html>\n", "<html>", "a REAPER project begins with.*REAPER saved"),
    "binary": ("<REAPER_PROJECT\n\0\1\2\n>\n", "\0", "a NUL byte.*Give"),
    "cut off": (GOOD[:-30], "<SOURCE", r"'<SOURCE' is never closed.*backup"),
    "closed twice": (GOOD + "\n  > x\n>\n", "> x", r"text behind the end.*save it in REAPER"),
    "too deep": ("<REAPER_PROJECT\n" + "<A\n" * 99 + "<B\n<C", "<B", "more than 100 blocks.*Save"),
    "huge line": ("<REAPER_PROJECT\n" + "A" * (2 << 20) + "\n>\n", "AAA", "more than 1 MB.*Save"),
    "position": (replaced("POSITION 0", "POSITION NaN"), "NaN", "POSITION has 'NaN' for a number.*save it"),
    "length": (replaced("LENGTH 0.4", "LENGTH 1e999"), "1e999", "LENGTH has '1e999' for a number.*save it"),
    "folder": (replaced("ISBUS 0 0", "ISBUS 1 \x1b[2J"), "ISBUS", r"ISBUS has '\?\[2J' for a number.*save it"),
    "receive": (replaced("MAINSEND 1 0", "AUXRECV one 0"), "AUXRECV", "AUXRECV has 'one' for a number.*save it"),
    "rate": (replaced("PLAYRATE 1 1", "PLAYRATE 1.5 1"), "1.5", r"item 1 \('kick.wav'\) plays at rate 1.5;.*Glue"),
    "rate word": (replaced("PLAYRATE 1 1", "PLAYRATE inf 1"), "inf", "PLAYRATE has 'inf' for a number.*save it"),
    "stretched": (replaced(WAVE, WAVE + "\n      SM 0 0 + 1 1.5"), "SM", ".*has stretch markers.*Glue"),
    "reversed": (replaced(WAVE, SECTION), "MODE 3", ".*'kick.wav'.* is reversed.*Glue"),
    "section": (replaced(WAVE, SECTION.replace("MODE 3", "LENGTH 9")), "SECTION", ".*a section of its source.*Glue"),
    "offline": (replaced("WAVE", "_OFFLINE_WAVE"), "_OFFLINE", ".*is offline. Set it online"),
    "missing": (replaced("audio/kick.wav", "audio/gone.wav"), "gone", ".*'audio/gone.wav' is missing. Put it back"),
    "windows": (replaced("audio/kick.wav", r'"C:\x y\kick.wav"'), "C:", r".*y\\kick.wav' is missing. Put it back"),
    "device": (replaced("audio/kick.wav", "/dev/zero"), "zero", ".*'/dev/zero' is no regular file. Choose"),
    "pipe": (replaced("audio/kick.wav", "pipe.wav"), "pipe", ".*is no regular file. Choose"),
    "directory": (replaced("audio/kick.wav", "audio"), "FILE", ".*is no regular file. Choose"),
    "no audio": (replaced("SOURCE WAVE", "SOURCE MIDI"), "<TRACK", "track 'Kick' has 1 items.*Choose another --track"),
    "no items": (replaced("<ITEM", "<FREEZE"), "<TRACK", "track 'Kick' has no items.*Choose another --track"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_projects_name_the_line_and_the_fix_and_leave_nothing(folder: Path, case: str) -> None:
    text, place, message = BROKEN[case]
    line = 1 + text[: text.index(place)].count("\n")
    os.mkfifo(folder / "pipe.wav")
    path = write(folder, text)
    before = files_below(folder.parent)
    with pytest.raises(TrackError, match=rf"^'{re.escape(str(path))}', line {line}: {message}") as error:
        split_track(path, folder / "new.rpp", "Kick", splitter())
    assert len(str(error.value)) < 300 + len(str(path)) and str(error.value).isprintable()
    assert files_below(folder.parent) == before


def test_damage_anywhere_is_told_or_does_no_harm(folder: Path) -> None:
    lines = write(folder).read_bytes().splitlines(keepends=True)
    random = np.random.default_rng(1)
    told = 0
    for number in range(32):
        damaged = list(lines)
        at = int(random.integers(len(lines)))
        kind = number % 4
        if kind == 3:
            damaged[at] = bytes(random.integers(1, 256, len(lines[at]), dtype=np.uint8))
        else:
            damaged[at : at + 1] = ([], [lines[at]] * 2, [lines[at][: len(lines[at]) // 2]])[kind]
        (folder / "song.rpp").write_bytes(b"".join(damaged))
        try:
            result = split_track(folder / "song.rpp", folder / "new.rpp", "Bass", splitter(), overwrite=True)
        except (TrackError, OptionError):
            told += 1
        else:
            assert len(show(result.path)) == len(show(folder / "song.rpp")) + 1 + len(STEMS)
    assert 3 < told < 30


@pytest.mark.parametrize("what", ["missing.rpp", "folder.rpp", "pipe.rpp"])
def test_files_that_cannot_be_read(folder: Path, what: str) -> None:
    os.mkfifo(folder / "pipe.rpp")
    (folder / "folder.rpp").mkdir()
    with pytest.raises(TrackError, match=f"cannot read '.*{what}'"):
        show(folder / what)


def test_the_suffix_tells_the_format(folder: Path) -> None:
    with pytest.raises(OptionError, match="ends in .rpp or .dawproject"):
        show(folder / "song.als")
    with pytest.raises(OptionError, match="Name it 'new.rpp'"):
        split_track(write(folder), folder / "new.dawproject", "Kick", splitter())


def test_huge_files_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpp, "MAX_BYTES", 100)
    with pytest.raises(TrackError, match="is larger than"):
        show(write(folder))


def failing(song: Path, folder: Path) -> Mapping[str, Path]:
    folder.mkdir(parents=True)
    (folder / "vocals.wav").write_bytes(b"half")
    raise AudioError("damaged")


def test_after_a_failure_there_is_nothing(folder: Path) -> None:
    path = write(folder)
    before = files_below(folder.parent)
    with pytest.raises(AudioError, match="damaged"):
        split_track(path, folder / "new.rpp", "Kick", Splitter(STEMS, failing))
    assert files_below(folder.parent) == before


def wrong_new(folder: Path) -> dict[str, Callable[[], Path]]:
    def linked() -> Path:
        (folder / "new Stems").symlink_to(folder.parent)
        return folder / "new.rpp"

    def exists(name: str) -> Callable[[], Path]:
        def make() -> Path:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text("mine")
            return folder / "new.rpp"

        return make

    return {
        "is the project itself": lambda: folder / "song.rpp",
        "lies in another folder": lambda: folder.parent / "new.rpp",
        "ends in .rpp": lambda: folder / "new.txt",
        "is a link": linked,
        "new.rpp' exists": exists("new.rpp"),
        "kick - drums.wav' exists": exists("new Stems/kick - drums.wav"),
        "Did you mean 'Kick'": lambda: folder / "Kik.rpp",
    }


@pytest.mark.parametrize("message", wrong_new(Path()))
def test_wrong_options_change_nothing(folder: Path, message: str) -> None:
    path = write(folder)
    new = wrong_new(folder)[message]()
    before = {p: p.read_bytes() for p in files_below(folder.parent) if p.is_file()}
    with pytest.raises(OptionError, match=re.escape(message)):
        split_track(path, new, "Kik" if new.stem == "Kik" else "Kick", splitter())
    assert {p: p.read_bytes() for p in files_below(folder.parent) if p.is_file()} == before


def test_overwrite_replaces_what_was_made_but_no_media_of_the_project(folder: Path) -> None:
    path = write(folder)
    for overwrite in (False, True):
        assert split_track(path, folder / "new.rpp", "Kick", splitter(), overwrite=overwrite).path.exists()
    with pytest.raises(OptionError, match="is the project itself"):
        split_track(path, folder / "song.rpp", "Kick", splitter(), overwrite=True)
    path.write_text(path.read_text().replace("audio/bass.mid.wav", '"new Stems/kick - drums.wav"'))
    with pytest.raises(OptionError, match="kick - drums.wav' is played by the project itself"):
        split_track(path, folder / "new.rpp", "Kick", splitter(), overwrite=True)


def test_a_model_splits_with_its_stems_summing_to_the_source(folder: Path, passthrough: Separator, song: Audio) -> None:
    soundfile.write(folder / "audio" / "kick.wav", song[:, :20_000].T, RATE, subtype="FLOAT")
    made = split_track(write(folder), folder / "new.rpp", "Kick", model_splitter(passthrough, "vocals"))
    assert [p.name for p in made.media] == ["kick - vocals.wav", "kick - instrumental.wav"]
    stems = [soundfile.read(p, dtype="float32")[0] for p in made.media]
    assert np.abs(sum(stems) - song[:, :20_000].T).max() <= 1e-6


def test_errors_of_the_model_are_told(folder: Path, passthrough: Separator) -> None:
    (folder / "audio" / "kick.wav").write_text("no audio")
    path = write(folder)
    before = files_below(folder.parent)
    with pytest.raises(StemPlugError, match="kick.wav"):
        split_track(path, folder / "new.rpp", "Kick", model_splitter(passthrough))
    assert files_below(folder.parent) == before


# The command, as the program will register it.


def test_the_command_runs_with_the_real_model(
    folder: Path, song: Audio, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from typer.testing import CliRunner

    from stemplug.cli.project import app

    soundfile.write(folder / "audio" / "kick.wav", song[:, RATE : 2 * RATE].T, RATE, subtype="PCM_16")
    path, new = write(folder), folder / "with stems.rpp"
    arguments = ["split", str(path), "--track", "Kick", "-o", str(new), "--fold", "vocals", "--threads", "2"]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    media = [folder / "with stems Stems" / f"kick - {stem}.wav" for stem in ("vocals", "instrumental")]
    assert done.stdout.splitlines() == [str(new), *map(str, media)]
    stems = [soundfile.read(p, dtype="float32")[0] for p in media]
    assert np.abs(sum(stems) - soundfile.read(folder / "audio/kick.wav", dtype="float32")[0]).max() <= 1e-6

    done = CliRunner().invoke(app, ["show", str(new)], catch_exceptions=False)
    lines = done.stdout.splitlines()
    assert "  2    Kick muted" in lines and "  3    Kick stems folder" in lines
    assert "          1.500       0.400  WAVE with stems Stems/kick - vocals.wav" in lines
    assert any("WAVE audio/bass.wav | WAVE audio/bass.mid.wav | *WAVE audio/bass.wav" in line for line in lines)
    done = CliRunner().invoke(app, ["show", str(new), "--json"], catch_exceptions=False)
    assert [json.loads(line)["number"] for line in done.stdout.splitlines()] == list(range(1, 16))
