"""Renders in pedalboard."""

from __future__ import annotations

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from pedalboard import VST3Plugin, load_plugin

from tests.hosts.driver import Audio, Result, serve, workers

Parameters = dict[str, Any]


def load(bundle: str, parameters: Parameters | None = None) -> VST3Plugin:
    plugin = load_plugin(bundle)
    assert isinstance(plugin, VST3Plugin)
    change(plugin, parameters or {})
    return plugin


def change(plugin: VST3Plugin, parameters: Parameters) -> None:
    """Numbers are raw values from 0 to 1, all else what pedalboard shows."""
    for name, value in parameters.items():
        assert name in plugin.parameters, name  # pedalboard would accept any attribute
        if isinstance(value, float):
            plugin.parameters[name].raw_value = value
        else:
            setattr(plugin, name, value)


def render(bundle: str, audio: Audio, rate: int, block: int, settings: list[Parameters]) -> Result:
    """Render the song once for each setting, one after the other, in one plugin."""
    plugin = load(bundle)
    outputs = []
    for parameters in settings:
        change(plugin, parameters)
        outputs.append(plugin(audio, rate, buffer_size=block))
    return {"outputs": np.stack(outputs), "latency": plugin.reported_latency_samples}


def restore(bundle: str, audio: Audio, rate: int, parameters: Parameters, attribute: str, first: bool) -> Result:
    """Save the state before or after a render, load it into another plugin, and render in that one too."""
    plugin = load(bundle, parameters)
    state = getattr(plugin, attribute)
    expected = plugin(audio, rate)
    if not first:
        state = getattr(plugin, attribute)
    copy = load(bundle)
    setattr(copy, attribute, state)
    values = [parameter.raw_value for parameter in plugin.parameters.values()]
    restored = [parameter.raw_value for parameter in copy.parameters.values()]
    return {"expected": expected, "restored": copy(audio, rate), "values": values, "restored_values": restored}


def automate(bundle: str, audio: Audio, rate: int, block: int, start: Parameters, name: str, values: Audio) -> Result:
    """Stream, with a parameter that takes the next of ``values`` before each block, over and over."""
    plugin = load(bundle, start)
    plugin.reset()  # the silent blocks with which pedalboard loads a plugin would come out first
    outputs, raw = [], []
    latency = 0
    for number, at in enumerate(range(0, 1 << 40, block)):
        value = float(values[number % len(values)])
        change(plugin, {name: value})
        piece = audio[:, at : at + block]
        silence = np.zeros((len(audio), block - piece.shape[1]), np.float32)
        outputs.append(plugin(np.concatenate([piece, silence], axis=1), rate, buffer_size=512, reset=False))
        raw.append(value)
        latency = plugin.reported_latency_samples
        if at + block >= audio.shape[1] + latency:
            break
    lengths = [output.shape[1] for output in outputs]
    return {"output": np.concatenate(outputs, axis=1), "lengths": lengths, "raw": raw, "latency": latency}


def load_time(bundle: str, runtime: str) -> Result:
    """The median of five loads, after one that fills the system's caches, and the workers that this has started."""
    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        plugin = load_plugin(bundle)
        del plugin
        seconds.append(time.perf_counter() - start)
    print("seconds to load:", seconds)
    time.sleep(1)
    return {"seconds": statistics.median(seconds[1:]), "workers": len(workers(Path(runtime)))}


def together(bundle: str, audio: Audio, rate: int, instances: int, parameters: Parameters, runtime: str) -> Result:
    """Several instances side by side, in threads."""
    plugins = [load(bundle, parameters) for _ in range(instances)]
    with ThreadPoolExecutor(instances) as pool:
        outputs = list(pool.map(lambda plugin: plugin(audio, rate), plugins))
    return {"outputs": np.stack(outputs), "workers": len(workers(Path(runtime)))}


def side_by_side(bundle: str, audio: Audio, rate: int, rounds: int) -> Result:
    """How long the plugin and the Separator take for the same song, in turn."""
    from stemplug import Separator

    plugin, separator = load(bundle), Separator()
    seconds: dict[str, list[float]] = {"plugin": [], "separator": []}
    for _ in range(rounds + 1):
        start = time.perf_counter()
        plugin(audio, rate, buffer_size=8192)
        between = time.perf_counter()
        separator.separate(audio, rate)
        seconds["plugin"].append(between - start)
        seconds["separator"].append(time.perf_counter() - between)
    print(seconds)
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


if __name__ == "__main__":
    serve(
        render=render,
        restore=restore,
        automate=automate,
        load_time=load_time,
        together=together,
        side_by_side=side_by_side,
    )
