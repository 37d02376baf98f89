"""What our own VST3 host sees of the plugin: what validators ask, the realtime thread, many instances, forks."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.plugin.conftest import HOST_RATE, Place, finish, native, wait_until

READY = 20
"""Seconds within which a worker has started and loaded its model, with time for a busy machine."""


def test_what_strict_validators_ask(place: Place, bundle: Path) -> None:
    found = finish(place.host("validate", bundle), 280)
    assert found["failures"] == []
    assert {"ok"} == set(found["checks"].values()) and len(found["checks"]) > 20


def test_the_audio_thread_makes_no_system_call_takes_no_lock_allocates_nothing(
    place: Place, bundle: Path, song_file: Path
) -> None:
    """From the first call on: while the worker starts, works, is killed and comes back, through parameters, bypass."""
    second = HOST_RATE
    changes = ((100, 0.5, 4), (0, 1, 5), (0, 0, 6), (201, 1, 6), (305, 1, 7), (10, 1, 8), (11, 0.5, 8))
    automation = [word for id, value, at in changes for word in ("--set", f"{id}={value}@{at * second}")]
    process = place.host(
        "render", bundle, "--input", song_file, "--rate", HOST_RATE, "--block", "512,64,1,333", "--max-block", 512,
        "--mode", "realtime", "--pace", "realtime", "--seconds", 12, "--rtcheck", *automation,
    )  # fmt: skip
    worker = place.worker()
    wait_until(lambda: "balanced" in place.log(), READY, "a stream")
    subprocess.run(["kill", "-9", str(worker)], check=True)
    found = finish(process)
    assert found["rtcheck"]["interposer"]
    assert found["rtcheck"]["violations"] == []
    assert {entry["value"] for entry in found["status_seen"]} >= {"starting", "ready"}


def test_the_realtime_check_would_notice(place: Place) -> None:
    done = subprocess.run([native("testhost"), "selftest"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


# Which model the plugin's list has at what value, and how late it may be, in seconds.
MODELS = {"default": (0, 0.060), "spleeter-2stems": (1 / 3, 0.170)}


@pytest.mark.parametrize("model", MODELS)
def test_in_real_time_the_buses_sum_to_the_input(place: Place, bundle: Path, song_file: Path, model: str) -> None:
    choice, latency = MODELS[model]
    found = finish(
        place.host(
            "render", bundle, "--input", song_file, "--rate", HOST_RATE, "--block", 512, "--mode", "realtime",
            "--pace", "realtime", "--warm", READY, "--warm-with", "input", "--seconds", 5, "--set", f"12={choice}",
        )
    )  # fmt: skip
    assert found["ready"] and found["latency"] <= latency * HOST_RATE
    assert found["main_error"] <= 1e-6 and found["aux_error"] <= 1e-6
    assert found["process_us"]["p99"] < 5000


@pytest.mark.slow
def test_a_minute_in_real_time_without_an_underrun(place: Place, bundle: Path, song_file: Path) -> None:
    found = finish(
        place.host(
            "render", bundle, "--input", song_file, "--rate", HOST_RATE, "--block", 512, "--mode", "realtime",
            "--pace", "realtime", "--warm", READY, "--warm-with", "input", "--seconds", 60,
        ),
        300,
    )  # fmt: skip
    assert found["ready"] and "overloaded" not in {entry["value"] for entry in found["status_seen"]}
    assert found["main_error"] <= 1e-6 and found["aux_error"] <= 1e-6


def test_two_hundred_instances_come_and_go(place: Place, bundle: Path) -> None:
    found = finish(place.host("instances", bundle, "--count", 200, "--at-once", 8, "--threads", 4, "--blocks", 4), 250)
    assert found["failures"] == []


def test_a_host_that_forks(place: Place, bundle: Path) -> None:
    found = finish(place.host("fork", bundle, "--bound", 10, "--run", 2.5))
    assert found["failures"] == []


def test_the_library_exports_its_entry_points_alone(bundle: Path) -> None:
    """A host and other plugins have their own copies of the C++ library in the same process."""
    (library,) = bundle.glob("Contents/*/StemPlug.so")
    listed = subprocess.run(["nm", "-D", "--defined-only", library], capture_output=True, text=True, check=True).stdout
    assert {line.split()[-1] for line in listed.splitlines()} == {"GetPluginFactory", "ModuleEntry", "ModuleExit"}


def test_golden_bytes_and_broken_frames(place: Place) -> None:
    golden = Path(__file__).parents[2] / "cpp_shim" / "tests" / "golden"
    done = subprocess.run([native("protocol_test"), golden], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
