"""The machine we run on, in words and numbers."""

from __future__ import annotations

import os
import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2", "avx": "AVX", "sse2": "SSE2"}
"""Widest first: one model's name may stand for processors of which one is twice as fast as the other."""


def describe_machine() -> str:
    """Name the machine by its traits: processor, its widest vector instructions where Linux tells, cores, system."""
    model, told = platform.processor() or platform.machine(), {}
    if CPUINFO.exists():
        first = CPUINFO.read_text().split("\n\n")[0]
        told = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}
    flags = told.get("flags", "").split()
    vectors = [name for flag, name in VECTORS.items() if flag in flags][:1]
    return ", ".join([told.get("model name", model), *vectors, f"{os.cpu_count()} cores", platform.system()])
