"""``stemplug plugin check``: whether the plugin, in a host, gives what `Separator` gives.

The host is pedalboard in a process of its own: a plugin that crashes must not take the program with it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stemplug.engine import Separator
from stemplug.errors import PluginError

RATE, SECONDS = 44_100, 6
TOLERANCE = 1e-5
NULL = 1e-6
LOAD_MS = 300
_LIMIT = 120


@dataclass(frozen=True)
class Check:
    """One row of the table."""

    what: str
    passed: bool
    found: str


def check(bundle: Path) -> list[Check]:
    """Load ``bundle`` in a child process and compare; raises `PluginError` where it cannot even be loaded."""
    song = _song()
    with tempfile.TemporaryDirectory(prefix="stemplug-check-") as folder:
        source, target = Path(folder, "song.npy"), Path(folder, "rendered.npz")
        np.save(source, song)
        report = _render(bundle, source, target)
        with np.load(target) as rendered:
            mix, vocals = rendered["mix"], rendered["vocals"]
    null = float(np.abs(mix - song).max())
    expected = Separator().separate(song, RATE)["vocals"]
    difference = float(np.abs(vocals - expected).max())
    loads = report["load_ms"]
    return [
        Check("loads in a host", loads < LOAD_MS, f"{loads:.0f} ms (at most {LOAD_MS})"),
        Check("latency", report["latency"] >= 0, f"{report['latency'] / RATE:.2f} s, compensated by the host"),
        Check("Mix at 0 dB is the input", null <= NULL, f"largest difference {null:.1e} (at most {NULL:.0e})"),
        Check("Vocals are those of Python", difference <= TOLERANCE, f"{difference:.1e} (at most {TOLERANCE:.0e})"),
        Check("vocals sound", bool(np.abs(vocals).max() > 0), f"peak {np.abs(vocals).max():.3f}"),
    ]


def _song() -> np.ndarray[Any, np.dtype[np.float32]]:
    """A tone with vibrato over noise bursts: something for each stem."""
    seconds = np.arange(SECONDS * RATE) / RATE
    voice = np.sin(2 * np.pi * 330 * seconds + 4 * np.sin(2 * np.pi * 5 * seconds)) * 0.3
    beat = np.random.default_rng(0).normal(0, 0.3, len(seconds)) * np.exp(-30 * (seconds % 0.5))
    return np.stack([voice + beat, voice - 0.5 * beat]).astype(np.float32)


def _render(bundle: Path, source: Path, target: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "stemplug.plugin_check", str(bundle), str(source), str(target)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        raise PluginError(f"'{bundle}': the host did not end within {_LIMIT} s. See 'stemplug worker logs'.") from None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
        raise PluginError(f"'{bundle}' cannot be loaded: {reason}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _host(bundle: str, source: str, target: str) -> None:
    """What the child process does."""
    import pedalboard

    song = np.load(source)
    pedalboard.load_plugin(bundle)  # the first one waits for the disk
    began = time.perf_counter()
    plugin: Any = pedalboard.load_plugin(bundle)
    load_ms = (time.perf_counter() - began) * 1e3
    mix = plugin.process(song, RATE)
    plugin.vocals_solo = True
    np.savez(target, mix=mix, vocals=plugin.process(song, RATE))
    print(json.dumps({"load_ms": load_ms, "latency": plugin.reported_latency_samples}))


if __name__ == "__main__":
    _host(*sys.argv[1:])
