"""Plays and renders in minihost, the host here that knows realtime mode, all buses and a transport."""

from __future__ import annotations

import time
from pathlib import Path

import minihost
import numpy as np

from tests.hosts.buses import BUSES
from tests.hosts.driver import Audio, Others, Result, serve


def load(bundle: str, rate: int, block: int) -> minihost.Plugin:
    plugin = minihost.Plugin(bundle, rate, block, 2, 2 * len(BUSES))
    names = [plugin.get_bus_info(False, number)["name"] for number in range(plugin.num_output_buses)]
    assert names == BUSES
    return plugin


def status(plugin: minihost.Plugin, number: int) -> str:
    """What the parameter Status, of this number, says; to find it, minihost asks its message thread for every name."""
    return str(plugin.param_to_text(number, plugin.get_param(number)))


def play(bundle: str, audio: Audio, rate: int, block: int, runtime: str) -> Result:
    """Play in realtime, in blocks that come when they would from a sound card, with the transport running."""
    plugin = load(bundle, rate, block)
    blocks = audio.shape[1] // block
    output = np.zeros((2 * len(BUSES), blocks * block), np.float32)
    heard = np.zeros((2 * len(BUSES), block), np.float32)
    seen, busy, number_of_status = [], [], plugin.find_param("Status")
    others = Others(Path(runtime))
    start = time.perf_counter()
    for number in range(blocks):
        at = number * block
        due = start + at / rate
        time.sleep(max(0.0, due - time.perf_counter()))
        plugin.set_transport(120.0, position_samples=at, is_playing=True)
        before = time.perf_counter()
        plugin.process(np.ascontiguousarray(audio[:, at : at + block]), heard)
        busy.append(time.perf_counter() - before)
        output[:, at : at + block] = heard
        seen.append(status(plugin, number_of_status))
    pairs = enumerate(zip([None, *seen], seen, strict=False))
    print("status:", [(round(number * block / rate, 2), now) for number, (before, now) in pairs if now != before])
    print("longest process():", max(busy), "of", block / rate, "load of others:", others.load())
    return {"output": output, "status": seen, "latency": plugin.latency_samples, "others": others.load()}


def render(bundle: str, audio: Audio, rate: int, block: int, positions: list[int], activate: bool) -> Result:
    """Render offline; the transport starts anew at each of the positions, in turn, once a second.

    Without ``activate``, blocks say offline in a plugin that was activated for realtime.
    """
    plugin = load(bundle, rate, block)
    plugin.non_realtime = True
    if activate:
        plugin.sample_rate = rate  # which sets the plugin up again
    latency, frames = plugin.latency_samples, audio.shape[1]
    padded = np.concatenate([audio, np.zeros((2, latency + block), np.float32)], axis=1)
    output = np.zeros((2 * len(BUSES), padded.shape[1]), np.float32)
    heard = np.zeros((2 * len(BUSES), block), np.float32)
    for at in range(0, padded.shape[1] - block + 1, block):
        if positions:
            seconds, inside = divmod(at, rate)
            plugin.set_transport(120.0, position_samples=positions[seconds % len(positions)] + inside, is_playing=True)
        plugin.process(np.ascontiguousarray(padded[:, at : at + block]), heard)
        output[:, at : at + block] = heard
    return {
        "output": output[:, latency : latency + frames],
        "latency": latency,
        "status": status(plugin, plugin.find_param("Status")),
    }


if __name__ == "__main__":
    serve(play=play, render=render)
