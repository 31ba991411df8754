"""What README.md says is true: its commands and snippets run, and its tables are complete."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rnnfarm.cli import cli
from rnnfarm.hookspecs import KINDS
from rnnfarm.plugins import Registry

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^`([\w./-]+)`:\n\n```\w+\n(.*?)```", README, re.M | re.S))
LINES = [
    line for block in re.findall(r"```sh\n(.*?)```", README, re.S) for line in block.splitlines()
]
#: These make an environment and download what the project needs, as make does for this test.
INSTALLING = {
    "python3 -m venv .venv",
    ".venv/bin/pip install --editable . --editable plugins/rnnfarm-cpu",
    ".venv/bin/rnnfarm train jobs/quickstart.toml",
}
PIP = (
    f"'{sys.executable}' -m pip install --quiet --disable-pip-version-check --no-deps "
    "--no-build-isolation --target site"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stranger's folder: the files that the README shows, and those that it speaks of."""
    folder = tmp_path_factory.mktemp("stranger")
    for path, text in FILES.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    (folder / "texts").mkdir()
    for name in ("emma", "persuasion"):
        (folder / "texts" / f"{name}.txt").write_text(f"{name} was clever and rich.\n" * 200)
    rows = [f"{t % 24},{t % 7},{(t % 24) * (t % 7)}\n" for t in range(500)]
    (folder / "weather.csv").write_text("hour,wind,rain\n" + "".join(rows))
    shops = {"shop": ["a"] * 100 + ["b"] * 100, "sold": [float(t % 9) for t in range(200)]}
    pq.write_table(pa.table(shops), folder / "sales.parquet")
    np.save(folder / "signals.npy", np.zeros((4, 50, 2), np.float32))
    return folder


def shell(folder: Path, command: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(folder / "site")}
    done = subprocess.run(
        command, shell=True, cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def command_of(line: str) -> str | None:
    """How a line of the README is run here; shorter runs, and pip into a folder."""
    if line.startswith("pip install --editable "):
        return f"{PIP} ./{line.split()[-1]}"
    if line.startswith("rnnfarm "):
        command = f"'{sys.executable}' -m {line}"
        if line.startswith("rnnfarm train ") and "training.steps" not in line:
            command += " --set training.steps=4"
        if line.startswith("rnnfarm train "):
            command += " --set data.build.max_bytes=300000"
        return command
    if line.startswith("make "):
        return f"make --dry-run -C '{ROOT}' {line.split()[1]}"
    return None


def test_every_command_runs(folder: Path) -> None:
    if shutil.which("make") is None or os.name != "posix":
        pytest.skip("the README is written for a system with make and a POSIX shell")
    assert {line for line in LINES if command_of(line) is None} == INSTALLING
    output = {line: shell(folder, command) for line in LINES if (command := command_of(line))}
    assert "RAN" in output["rnnfarm explain ran"]
    assert output["rnnfarm check my-cells"].split() == ["passed", "cells", "ran"]
    assert output["rnnfarm check other-cells"].split() == ["passed", "cells", "leaky"]
    assert (folder / "runs/ran/report.html").stat().st_size > 5_000
    assert "tokens" in output["rnnfarm data info data/novels"]

    generated = f"'{sys.executable}' -m pytest -q other-cells/tests"
    assert "1 passed" in shell(folder, generated)

    named = re.findall(r"^```python\n(.*?)```", README, re.M | re.S)
    (script,) = [block for block in named if block not in FILES.values()]
    steps = '"training.steps=20"'
    assert steps in script
    script = script.replace(steps, f'{steps}, "data.build.max_bytes=300000"')  # as it was built
    (folder / "script.py").write_text(script, encoding="utf-8")
    assert re.fullmatch(r"\d\.\d+ [0-9a-f]{64}\n", shell(folder, f"'{sys.executable}' script.py"))


def test_the_cell_is_ten_lines() -> None:
    source = FILES["my-cells/my_cells.py"]
    cell = source[source.index("class RAN") : source.index("@rnnfarm.hookimpl")]
    assert len([line for line in cell.splitlines() if line.strip()]) <= 10


def test_every_command_is_in_the_table() -> None:
    named = set(re.findall(r"`rnnfarm ([a-z-]+)", README))
    assert named == set(cli.commands)


@pytest.mark.parametrize("kind", KINDS)
def test_every_built_in_part_is_in_the_table(kind: str) -> None:
    (row,) = re.findall(rf"^\| {kind} \| (.*) \|$", README, re.M)
    (builtin,) = [p for p in Registry.load(()).plugins if p.distribution == "rnnfarm"]
    named = re.findall(r"`([\w-]+)`", row)
    assert {name for name in named if name != "warmup"} == set(builtin.hooks[kind])


def test_every_link_leads_somewhere() -> None:
    for page in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (ROOT / target).exists(), f"{page}: {target}"


def test_every_hook_is_explained() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for kind in KINDS:
        assert f"`rnnfarm_{kind}`" in text, kind
