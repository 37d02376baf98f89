"""`stemplug.plugin` and ``stemplug plugin``: the bundle finds its interpreter wherever it is put."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stemplug import PluginError, plugin
from tests.plugin.conftest import Place

EMBEDDED = ("spleeter-2stems", "stemplug-4s", "stemplug-live")


def settings_of(bundle: Path) -> dict[str, object]:
    found = json.loads((bundle / plugin.SETTINGS).read_text())
    assert isinstance(found, dict)
    return found


def test_the_path_is_a_bundle_that_knows_this_interpreter_and_its_models(bundle: Path) -> None:
    assert (bundle / "Contents").is_dir() and bundle.name == "StemPlug.vst3"
    settings = settings_of(bundle)
    assert settings["python"] == sys.executable
    assert [model["name"] for model in settings["models"]] == sorted(EMBEDDED)  # type: ignore[attr-defined]
    assert settings["defaults"] == {"live": "stemplug-live", "offline": "stemplug-4s"}


def test_asking_again_writes_nothing(bundle: Path) -> None:
    before = (bundle / plugin.SETTINGS).stat().st_mtime_ns
    assert plugin.path() == bundle
    assert (bundle / plugin.SETTINGS).stat().st_mtime_ns == before


def test_install_and_uninstall(bundle: Path, tmp_path: Path) -> None:
    installed = plugin.install(tmp_path / "a" / "b")
    assert installed == tmp_path / "a" / "b" / "StemPlug.vst3"
    assert settings_of(installed) == settings_of(bundle)
    (installed / "old").write_text("of an older version")
    assert plugin.install(tmp_path / "a" / "b") == installed
    assert not (installed / "old").exists()
    assert [path.name for path in installed.parent.iterdir()] == ["StemPlug.vst3"]
    assert plugin.uninstall(tmp_path / "a" / "b") == installed
    assert not installed.exists()
    with pytest.raises(PluginError, match="nothing to uninstall"):
        plugin.uninstall(tmp_path / "a" / "b")


def test_what_is_not_ours_is_left_alone(bundle: Path, tmp_path: Path) -> None:
    other = tmp_path / "StemPlug.vst3"
    other.write_text("precious")
    for act in (plugin.install, plugin.uninstall):
        with pytest.raises(PluginError, match="no plugin of ours"):
            act(tmp_path)
    assert other.read_text() == "precious"


def test_a_folder_that_cannot_be_made(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PluginError, match="Give another --dir"):
        plugin.install(tmp_path / "file" / "below")


def test_without_a_bundle_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin, "BUNDLE", "Nothing.vst3")
    with pytest.raises(PluginError, match="juce-modules-source-data"):
        plugin.path()


def test_the_command_installs_checks_and_uninstalls(place: Place, bundle: Path) -> None:
    folder = place.folder / "plugins"
    installed = place.stemplug("plugin", "install", "--dir", str(folder))
    assert installed.returncode == 0 and installed.stdout.strip() == str(folder / "StemPlug.vst3")
    checked = place.stemplug("plugin", "check", str(folder / "StemPlug.vst3"))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert checked.stdout.count("ok ") == 5
    assert place.stemplug("plugin", "uninstall", "--dir", str(folder)).returncode == 0
    again = place.stemplug("plugin", "uninstall", "--dir", str(folder))
    assert again.returncode == 5 and "Traceback" not in again.stderr and "nothing to uninstall" in again.stderr


def test_the_command_installs_for_the_user(place: Place, bundle: Path) -> None:
    env = place.env | {"HOME": str(place.folder)}
    done = subprocess.run(
        [sys.executable, "-m", "stemplug", "plugin", "install", "--user"], env=env, capture_output=True, text=True
    )
    assert done.stdout.strip() == str(place.folder / ".vst3" / "StemPlug.vst3")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["plugin", "install", "--user", "--dir", "x"], 2, "give one of them"),
        (["plugin", "check", "/nowhere/StemPlug.vst3"], 5, "cannot be loaded"),
        (["plugin", "check", "/etc/hostname"], 5, "cannot be loaded"),
        (["worker", "logs", "-n", "0"], 2, "-n"),
    ],
)
def test_wrong_uses_end_in_one_message(
    place: Place, bundle: Path, arguments: list[str], code: int, message: str
) -> None:
    done = place.stemplug(*arguments)
    assert done.returncode == code
    assert message in done.stderr and "Traceback" not in done.stderr


def test_a_worker_that_does_not_answer_is_told_of(place: Place) -> None:
    process = place.start_worker()
    os.kill(process.pid, 19)  # SIGSTOP
    done = place.stemplug("worker", "status")
    os.kill(process.pid, 18)
    assert done.returncode == 5 and "does not answer" in done.stderr
