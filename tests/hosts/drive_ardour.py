"""Makes sessions in Ardour 7, bounces and plays them: without a display, by its own tools.

Ardour has no command that imports audio: the song is written into the session's folder and its file.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import soundfile

from tests.hosts.driver import Audio, Result, serve

HERE = Path(__file__).parent
LIBRARY = Path("/usr/lib/ardour7")
SUPERCLOCK = 282_240_000
"""Ticks a second, in which Ardour 7 writes times."""
NAME = "song"


class Ardour:
    """One installation with settings, a plugin cache, and one session of its own."""

    def __init__(self, folder: Path, bundle: Path, rate: int) -> None:
        self.rate = rate
        self.session = folder / NAME
        self.env = {
            **os.environ,
            "HOME": str(folder),
            "XDG_CONFIG_HOME": str(folder / "config"),
            "XDG_CACHE_HOME": str(folder / "cache"),
        }
        link = folder / ".vst3" / bundle.name
        link.parent.mkdir()
        link.symlink_to(bundle.resolve())
        time.sleep(max(0.0, 1.5 - (time.time() - max(p.stat().st_mtime for p in bundle.rglob("*.so")))))
        scanner = {**self.env, "LD_LIBRARY_PATH": str(LIBRARY)}
        self.call(str(LIBRARY / "ardour-vst3-scanner"), "-f", str(link), env=scanner)

    def call(
        self, *command: str, env: dict[str, str] | None = None, timeout: float = 120, may_abort: bool = False
    ) -> str | None:
        """Run one of Ardour's tools; None if it aborted. They do not always tell a failure by their exit status."""
        result = subprocess.run(
            command,
            env=env or self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )
        print("$", *command, f"\n{result.stdout}\nexit code {result.returncode}", flush=True)
        if may_abort and result.returncode in (-signal.SIGABRT, -signal.SIGSEGV):
            return None
        assert result.returncode == 0 and "Error:" not in result.stdout
        return result.stdout

    def lua(self, script: str, *arguments: str, timeout: float = 120) -> dict[str, str]:
        """Run a script; what it prints as NAME=VALUE."""
        said = self.call("ardour7-lua", str(HERE / script), str(self.session), NAME, *arguments, timeout=timeout)
        return dict(re.findall(r"^(\w+)=(.*)$", said or "", re.MULTILINE))

    def create(self, song: Audio, plugin: str, strict: bool, buses: dict[str, int]) -> dict[str, str]:
        routes = [f"{name}={first}" for name, first in buses.items()]
        told = self.lua("session.lua", str(self.rate), plugin, "strict" if strict else "flexible", *routes)
        self.place(song)
        return told

    def place(self, song: Audio) -> None:
        """Put the song at the start of its track, and the session's range around it."""
        files = [f"{NAME}%{side}.wav" for side in "LR"]
        for file, channel in zip(files, song, strict=True):
            path = self.session / "interchange" / NAME / "audiofiles" / file
            soundfile.write(path, channel, self.rate, subtype="FLOAT")
        tree, root = self.read()
        first = int(root.get("id-counter", "0")) + 1
        left, right, whole, placed, location = map(str, range(first, first + 5))
        root.set("id-counter", str(first + 5))
        root.set("session-range-is-free", "0")
        end = f"a{song.shape[1] * SUPERCLOCK // self.rate}"
        off = ["muted", "locked", "automatic", "external", "hidden", "layering-index"]
        off += ["envelope-active", "fade-in-active", "fade-out-active"]
        on = ["opaque", "import", "stretch", "shift", "scale-amplitude"]
        region = {
            **dict.fromkeys(off, "0"),
            **dict.fromkeys(on, "1"),
            "name": NAME,
            "type": "audio",
            "first-edit": "nothing",
            "channels": "2",
            "start": "a0",
            "length": f"{end}@a0",
            "sync-position": "a0",
            "ancestral-start": "a0@a0",
            "ancestral-length": f"{end}@a0",
            "source-0": left,
            "source-1": right,
            "master-source-0": left,
            "master-source-1": right,
        }
        source = {"type": "audio", "flags": "", "channel": "0", "origin": "", "gain": "1", "take-id": ""}
        for number, file in zip((left, right), files, strict=True):
            add(root, "Sources", "Source", {**source, "name": file, "id": number})
        add(root, "Regions", "Region", {**region, "whole-file": "1", "id": whole})
        add(root, "Playlists/Playlist", "Region", {**region, "whole-file": "0", "id": placed})
        span = {"name": "session", "start": "a0", "end": end, "flags": "IsSessionRange", "locked": "0", "cue": "0"}
        add(root, "Locations", "Location", {**span, "id": location})
        self.write(tree)

    def mute(self, names: set[str]) -> None:
        """Mute these tracks and buses, and no others."""
        tree, root = self.read()
        for route in root.iterfind("Routes/Route"):
            control = route.find("Controllable[@name='mute']")
            assert control is not None
            control.set("value", "1" if route.get("name") in names else "0")
        self.write(tree)

    def bounce(self) -> Audio:
        """Export what the master bus plays, in 32-bit float.

        The exporter of Ardour 7.3 spoils its own heap: one bounce in ten ends in abort() or a fault, with any plugin
        that has buses beside the main one (AuxProbe of tests/probe too: 3 of 25; LatencyProbe: 0 of 40).
        """
        path = self.session.parent / "bounce.wav"
        options = ["-b", "float", "-s", str(self.rate), "-o", str(path)]
        for _ in range(6):
            path.unlink(missing_ok=True)
            if self.call("ardour7-export", *options, str(self.session), NAME, may_abort=True) is not None:
                break
        audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
        assert rate == self.rate
        return np.ascontiguousarray(audio.T)

    def read(self) -> tuple[ElementTree.ElementTree, ElementTree.Element]:
        tree = ElementTree.parse(self.session / f"{NAME}.ardour")
        return tree, tree.getroot()

    def write(self, tree: ElementTree.ElementTree) -> None:
        tree.write(self.session / f"{NAME}.ardour", encoding="UTF-8", xml_declaration=True)


def add(root: ElementTree.Element, path: str, tag: str, attributes: dict[str, str]) -> None:
    parent = root.find(path)
    assert parent is not None, path
    ElementTree.SubElement(parent, tag, attributes)


def bounce(bundle: str, audio: Audio, rate: int, strict: bool, buses: dict[str, int], heard: list[str]) -> Result:
    """Bounce once for each entry of ``heard``: the buses it names, with a plus between them, the others muted."""
    with tempfile.TemporaryDirectory() as folder:
        ardour = Ardour(Path(folder), Path(bundle), rate)
        told = ardour.create(audio, Path(bundle).stem, strict, buses)
        outputs = {}
        for names in heard:
            ardour.mute(set(buses) - set(names.split("+")))
            outputs[names] = ardour.bounce()
        return {**outputs, "outputs": int(told["outputs"]), "latency": int(told["latency"])}


def roll(bundle: str, audio: Audio, rate: int, block: int, seconds: float) -> Result:
    """Play in realtime."""
    with tempfile.TemporaryDirectory() as folder:
        ardour = Ardour(Path(folder), Path(bundle), rate)
        ardour.create(audio, Path(bundle).stem, strict=True, buses={})
        told = ardour.lua("roll.lua", str(rate), str(seconds), str(block), timeout=seconds + 60)
        return {"xruns": int(told["xruns"]), "position": float(told["position"])}


if __name__ == "__main__":
    serve(bounce=bounce, roll=roll)
