"""Wheels that are built of plugins' folders, by pip."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from rnnfarm.cluster.wheel import build_wheel, missing_to_build, unpack_wheel
from rnnfarm.errors import PluginError

#: A build backend that packs the modules of a folder, or says why not.
BACKEND = """
import pathlib, zipfile

def build_wheel(folder, config_settings=None, metadata_directory=None):
    if pathlib.Path("broken").exists():
        raise RuntimeError("the \x1b[31mcompiler is on holiday")
    name = "oddly-0.3-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(folder, name), "w") as wheel:
        wheel.writestr("oddly.py", "x = 1")
        info = "oddly-0.3.dist-info/"
        wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\\nName: oddly\\nVersion: 0.3")
        wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\\nTag: py3-none-any")
        wheel.writestr(info + "RECORD", "")
    return name
"""


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    """A plugin whose build backend is in a wheel of its own that nobody has installed."""
    helper = tmp_path / "oddbuild-1.0-py3-none-any.whl"
    with zipfile.ZipFile(helper, "w") as wheel:
        wheel.writestr("oddbuild.py", BACKEND)
        info = "oddbuild-1.0.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: oddbuild\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    folder = tmp_path / "my plugin [1]"
    folder.mkdir()
    (folder / "pyproject.toml").write_text(
        f'[build-system]\nrequires = ["oddbuild @ {helper.as_uri()}"]\n'
        'build-backend = "oddbuild"\n[project]\nname = "oddly"\nversion = "0.3"\n'
    )
    return folder


def test_a_backend_that_is_not_installed_is_fetched(plugin: Path, tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    wheel = build_wheel(plugin, tmp_path / "pack")
    assert unpack_wheel(wheel, tmp_path / "pack") == "oddly"
    assert (tmp_path / "pack" / "oddly.py").read_text() == "x = 1"
    assert [path.name for path in plugin.iterdir()] == ["pyproject.toml"]


def test_what_the_build_says_is_shown(plugin: Path, tmp_path: Path) -> None:
    (plugin / "broken").touch()
    with pytest.raises(PluginError) as error:
        build_wheel(plugin, tmp_path / "pack")
    sentence = str(error.value)
    assert sentence.startswith(f"{plugin}: the plugin cannot be built as a wheel (")
    assert "RuntimeError: the \\x1b[31mcompiler is on holiday)" in sentence
    assert "it needs oddbuild @ file:" in sentence
    assert "hint:" not in sentence
    assert "note:" not in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("system", "setuptools", "missing"),
    [
        ({}, "84.0", []),
        ({}, "65.5", ["wheel"]),  # as in a new environment of Python 3.11
        ({}, None, ["setuptools"]),
        ({"requires": ["setuptools>=77"]}, "65.5", ["setuptools>=77", "wheel"]),
        ({"requires": ["setuptools>=77"]}, "77.0.1", []),
        ({"requires": ["hatchling"], "build-backend": "hatchling.build"}, "65.5", ["hatchling"]),
        ({"requires": ["tomli; python_version < '3'"]}, "84.0", []),
        ({"requires": ["not a requirement"]}, "84.0", ["not a requirement"]),
    ],
)
def test_what_is_missing_to_build(
    system: dict[str, Any],
    setuptools: str | None,
    missing: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In an environment that holds setuptools of one version and nothing else."""
    if setuptools is not None:
        info = tmp_path / f"setuptools-{setuptools}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Name: setuptools\nVersion: {setuptools}\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert missing_to_build(system) == missing
