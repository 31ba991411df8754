"""Wheels of plugins: built from a folder by pip, and unpacked as an installation would lie."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import Distribution, PackageNotFoundError, version
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import Version

from rnnfarm.errors import PluginError, printable
from rnnfarm.small_files import UnreadableError, read_toml

NOT_SOURCE = shutil.ignore_patterns("build", "*.egg-info", "__pycache__", ".venv")
SETUPTOOLS = "setuptools.build_meta"
#: Lines in which pip speaks of itself and not of what went wrong.
PIPS_OWN = re.compile(
    r"note:|hint:|\[notice\]|\[end of output\]|error: subprocess-exited|"
    r"ERROR: Failed (building|to build)|error: metadata-generation-failed|exit code:|\^+$|"
    r"Encountered error while|See above for"
)


def build_wheel(source: Path, folder: Path) -> Path:
    """Build a wheel of a folder with a pyproject.toml; PluginError where that fails.

    Where this environment has what the build needs, nothing is downloaded for it.
    """
    if not (source / "pyproject.toml").is_file():
        raise PluginError(
            f"{source}: this is no wheel and no folder with a pyproject.toml; give one of both"
        )
    missing = missing_to_build(_build_system(source))
    wheels = folder.with_name(f"{folder.name}-wheels")
    # Built from a copy: setuptools leaves things in a source folder, and takes them up again.
    # pip takes the end of a path such as a[1] for an extra: it is given none.
    copy = wheels / f"source{len(list(wheels.glob('*.whl')))}"
    shutil.copytree(source, copy, ignore=NOT_SOURCE, dirs_exist_ok=True)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    command += [] if missing else ["--no-build-isolation"]
    before = set(wheels.glob("*.whl"))
    done = subprocess.run(
        [*command, "--wheel-dir", str(wheels), "."], cwd=copy, capture_output=True, text=True
    )
    made = set(wheels.glob("*.whl")) - before
    if done.returncode or not made:
        raise PluginError(_failed(source, done.stderr, missing))
    return made.pop()


def _failed(source: Path, output: str, missing: list[str]) -> str:
    said = [line.strip(" │╰─>×") for line in output.splitlines()]
    said = [line for line in said if line and not PIPS_OWN.match(line)]
    why = " / ".join(said[-2:]) or "pip made no wheel"
    needs = f"; it needs {', '.join(missing)}, which pip has to fetch" if missing else ""
    return printable(
        f"{source}: the plugin cannot be built as a wheel ({why}){needs}; correct its "
        "pyproject.toml ('pip wheel --no-deps .' there shows everything), or give a wheel that you "
        "have built with --plugin"
    )


def _build_system(source: Path) -> dict[str, Any]:
    file = source / "pyproject.toml"
    try:
        project = read_toml(file)
    except UnreadableError as error:
        raise PluginError(f"{file}: {error}; correct it") from None
    found = project.get("build-system", {})
    return found if isinstance(found, dict) else {}


def missing_to_build(system: dict[str, Any]) -> list[str]:
    """Return what this environment lacks of what a pyproject.toml's ``build-system`` needs."""
    setuptools = str(system.get("build-backend", SETUPTOOLS)).startswith("setuptools")
    needed = [*map(str, system.get("requires", ["setuptools"]))]
    if setuptools and (found := _version("setuptools")) and Version(found) < Version("70.1"):
        needed.append("wheel")  # which the later ones can do without
    return [text for text in needed if not _is_here(text)]


def _is_here(requirement: str) -> bool:
    try:
        wanted = Requirement(requirement)
    except InvalidRequirement:
        return False  # pip says what is wrong with it
    if wanted.marker is not None and not wanted.marker.evaluate():
        return True
    found = _version(wanted.name)
    return found is not None and wanted.specifier.contains(found, prereleases=True)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def unpack_wheel(wheel: Path, folder: Path) -> str:
    """Unpack a wheel; the name of its distribution."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
    except (OSError, zipfile.BadZipFile) as error:
        raise PluginError(f"{wheel}: not readable as a wheel ({error}); build it again") from None
    stem = "-".join(wheel.name.split("-")[:2])
    info = folder / f"{stem}.dist-info"
    if not info.is_dir():
        raise PluginError(f"{wheel}: there is no {info.name} in it; build the wheel again")
    return str(Distribution.at(info).metadata["Name"])
