"""``stemplug render`` and ``stemplug session schema``, as the program runs them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer

from stemplug import SessionError
from stemplug.cli.session import app as session_app
from stemplug.cli.session import render_command
from stemplug.session.schema import Session
from tests.conftest import files_below
from tests.session.conftest import one_track


def run(*arguments: object) -> Any:
    app = typer.Typer()
    app.command("render")(render_command)
    app.add_typer(session_app, name="session")
    with typer.main.get_command(app).make_context("stemplug", [str(each) for each in arguments]) as context:
        return context.command.invoke(context)


@pytest.fixture
def session(folder: Path) -> Path:
    path = folder / "mix.yaml"
    path.write_text(json.dumps(one_track({"gain_db": 12}, deliverables={"one": {"bit_depth": "32f"}, "two": {}})))
    return path


def test_paths_go_to_stdout_and_the_rest_to_stderr(
    session: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "cache"
    run("render", session, "-o", tmp_path / "out", "--cache", cache)
    out, err = capfd.readouterr()
    assert out.splitlines() == [str(tmp_path / "out" / name) for name in ("one.wav", "two.wav", "render.json")]
    assert "render  tracks.song: fader" in err and "stemplug: two.wav: true peak +" in err
    run("render", session, "-o", tmp_path / "again", "--cache", cache, "--only", "two", "--json")
    out, err = capfd.readouterr()
    assert [each["file"] for each in json.loads(out)["deliverables"]] == ["two.wav"] and "render  " not in err


def test_a_dry_run_lists_stages_and_files(session: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run("render", session, "-o", tmp_path / "out", "--cache", tmp_path / "cache", "--dry-run")
    out, err = capfd.readouterr()
    assert err.splitlines() == ["render  tracks.song.clips[0]: clip", "render  tracks.song: fader"]
    assert len(out.splitlines()) == 3 and not files_below(tmp_path / "out") and not files_below(tmp_path / "cache")


def test_errors_are_the_programs(tmp_path: Path) -> None:
    with pytest.raises(SessionError, match="missing.yaml: no such file"):
        run("render", tmp_path / "missing.yaml", "-o", tmp_path / "out")
    assert SessionError.exit_code == 3


def test_the_schema_describes_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    run("session", "schema")
    schema = json.loads(capsys.readouterr().out)
    assert schema["$schema"].startswith("https://json-schema.org/") and schema["additionalProperties"] is False
    assert set(schema["properties"]) == set(Session.model_fields)
    assert set(schema["required"]) == {"version", "tracks", "deliverables"}


def test_help_fits_on_a_screen(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(typer.Exit):
        run("render", "--help")
    assert len(capsys.readouterr().out.splitlines()) <= 40
