"""Renders in DawDreamer: all output buses, one after the other, as channels of one array."""

from __future__ import annotations

from pathlib import Path

import dawdreamer
import numpy as np

from tests.hosts.driver import Audio, Result, serve, workers


def render(
    bundle: str, audio: Audio, rate: int, block: int, parameters: dict[str, float], instances: int, runtime: str
) -> Result:
    engine = dawdreamer.RenderEngine(rate, block)
    graph = [(engine.make_playback_processor("song", audio), [])]
    names = [f"plugin {number}" for number in range(instances)]
    plugins = [engine.make_plugin_processor(name, bundle) for name in names]
    numbers = {entry["name"]: entry["index"] for entry in plugins[0].get_parameters_description()}
    for plugin in plugins:
        plugin.record = True  # else only the last one can be heard
        for name, value in parameters.items():
            plugin.set_parameter(numbers[name], value)
        graph.append((plugin, ["song"]))
    engine.load_graph(graph)
    engine.render(block / rate)  # only a plugin that has been set up tells its latency
    latency = plugins[0].get_latency_samples()
    frames = audio.shape[1]
    engine.render((frames + latency + block) / rate)
    outputs = [engine.get_audio(name)[:, latency : latency + frames] for name in names]
    return {"outputs": np.stack(outputs), "latency": latency, "workers": len(workers(Path(runtime)))}


if __name__ == "__main__":
    serve(render=render)
