"""How a machine is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from stemplug import machine

PROCESSOR = "processor\t: {}\nmodel name\t: ACME 9\nflags\t\t: fpu sse2 avx avx2{}\n\n"


@pytest.mark.parametrize(("more", "vectors"), [("", "AVX2"), (" avx512f avx512vl", "AVX-512")])
def test_the_widest_vector_instructions_are_told(
    more: str, vectors: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text("".join(PROCESSOR.format(number, more) for number in range(2)))
    monkeypatch.setattr(machine, "CPUINFO", file)
    assert machine.describe_machine().startswith(f"ACME 9, {vectors}, ")


def test_a_machine_that_tells_nothing_has_a_name_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "missing")
    *name, cores, system = machine.describe_machine().split(", ")
    assert all(name) and name and cores.endswith(" cores") and system
