"""``stemplug doctor``."""

from __future__ import annotations

from typing import Annotated

import typer


def doctor_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> int:
    """Tell what works on this machine, by trying it, and what to do about the rest."""
    import json

    from stemplug.doctor import examine

    report = examine()
    print(json.dumps(report.as_dict(), indent=1) if as_json else report.text())
    return report.exit_code
