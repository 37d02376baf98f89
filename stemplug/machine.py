"""The machine we run on, in words and numbers."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def describe_machine() -> str:
    """Name the machine by its traits."""
    model = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).exists():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return f"{model}, {os.cpu_count()} cores, {platform.system()}"
