"""The commands for authors of plugins: check and new-plugin."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from textwrap import dedent

import pytest
from conftest import Call

PARTS = """
    from rnnfarm import Cell, Loss, Optimizer, affine, hookimpl, sqrt, tanh

    class Good(Cell):
        def step(self, x, h):
            return tanh(affine(x, h))

    class Scaled(Good):
        scale: float

    class Kinked(Cell):
        def step(self, x, h):
            return tanh(affine(x, h)) + sqrt(abs(h))

    class Branches(Cell):
        def step(self, x, h):
            return h if x > 0 else x

    class Uphill(Optimizer):
        def step(self, param, grad, *, lr, t):
            return param + lr * grad

    class Crashing(Loss):
        @staticmethod
        def evaluate(output, target, valid, d_output):
            return {}["no such key"]

    @hookimpl
    def rnnfarm_cells():
        return {"good": Good, "scaled": Scaled, "kinked": Kinked, "branches": Branches}

    @hookimpl
    def rnnfarm_optimizers():
        return {"uphill": Uphill}

    @hookimpl
    def rnnfarm_losses():
        return {"crashing": Crashing, "gone": "demo_parts:Gone"}
"""


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed distribution, as pip leaves one behind."""
    info = tmp_path / "demo_parts-0.3.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: demo-parts\nVersion: 0.3\n")
    (info / "entry_points.txt").write_text("[rnnfarm]\nparts = demo_parts\n")
    (tmp_path / "demo_parts.py").write_text(dedent(PARTS))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "demo_parts", raising=False)


@pytest.mark.usefixtures("demo")
def test_check_tells_good_parts_from_bad_ones(call: Call) -> None:
    code, out, err = call("check", "Demo_Parts", "--set", "scaled.scale=2.0", "--json")
    assert code == 3
    report = json.loads(out)
    assert (report["schema"], report["distribution"], report["version"]) == (1, "demo-parts", "0.3")
    assert report["passed"] is False
    results = {part["name"]: part["result"] for part in report["parts"]}
    assert results == {
        "good": "passed",
        "scaled": "passed",
        "kinked": "failed",
        "branches": "failed",
        "uphill": "failed",
        "crashing": "failed",
        "gone": "failed",
    }
    notes = {part["name"]: part["note"] for part in report["parts"]}
    assert notes["good"] is None
    assert "gradient of state h is not finite" in notes["kinked"]
    assert "Branches" in notes["branches"]
    assert "where" in notes["branches"]
    assert "is the sign right" in notes["uphill"]
    assert "KeyError: 'no such key'" in notes["crashing"]
    assert "'demo_parts:Gone' does not load" in notes["gone"]
    assert "branches, kinked, crashing, gone, uphill failed" in err


@pytest.mark.usefixtures("demo")
def test_check_asks_for_settings(call: Call) -> None:
    _, out, _ = call("check", "demo-parts")
    assert "--set scaled.scale=" in next(line for line in out.splitlines() if "scaled" in line)
    code, _, err = call("check", "demo-parts", "--set", "scald.scale=1")
    assert code == 2
    assert "did you mean 'scaled'?" in err


def test_check_of_what_is_not_there(call: Call) -> None:
    code, _, err = call("check", "rnnfrm")
    assert code == 3
    assert "there is no plugin 'rnnfrm' installed; did you mean 'rnnfarm'?" in err


@pytest.mark.usefixtures("demo")
def test_check_of_what_was_refused(call: Call, tmp_path: Path) -> None:
    (tmp_path / "demo_parts.py").write_text("import no_such_module\n")
    code, _, err = call("check", "demo-parts")
    assert code == 3
    assert "fails to import" in err


def test_a_new_plugin_installs_passes_and_trains(call: Call, tmp_path: Path) -> None:
    if importlib.util.find_spec("setuptools") is None:  # not imported: it minds who came before
        pytest.skip("the package is built without a network, by setuptools")
    folder, site = tmp_path / "my.new-cells", tmp_path / "site"
    code, out, _ = call("new-plugin", "my.new-cells", "--out", folder)
    assert code == 0
    assert f"rnnfarm train {folder.as_posix()}/job.toml" in out
    tomllib.loads((folder / "pyproject.toml").read_text())

    def run(*command: str, cwd: Path = tmp_path) -> str:
        environment = os.environ | {"PYTHONPATH": str(site)}
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    pip = ("pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index")
    run(*pip, "--target", str(site), str(folder))
    assert run("rnnfarm", "check", "my.new-cells").split() == ["passed", "cells", "leaky"]
    assert "1 passed" in run("pytest", "-q", str(folder / "tests"))
    small = ["training.steps=3", "data.build.max_bytes=200000", "training.evaluate_windows=1"]
    settings = [word for setting in small for word in ("--set", setting)]
    result = run("rnnfarm", "train", f"{folder}/job.toml", "--json", *settings)
    assert json.loads(result)["steps"] == 3
    assert (folder / "data").is_dir()

    pytest.importorskip("ruff", reason="its style is checked by ruff")
    for tool in (["ruff", "check"], ["ruff", "format", "--check"]):
        run(*tool, cwd=folder)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("re", "would hide one"),
        ("class", "would hide one"),
        ("rnnfarm", "would hide one"),
        ("3cells", "no name for a package"),
        ("../cells", "no name for a package"),
        ("my cells", "no name for a package"),
        ("cells-", "no name for a package"),
    ],
)
def test_names_that_no_package_can_have(
    call: Call, tmp_path: Path, name: str, sentence: str
) -> None:
    code, _, err = call("new-plugin", name, "--out", tmp_path / "made")
    assert (code, (tmp_path / "made").exists()) == (2, False)
    assert sentence in err


def test_a_folder_that_is_there_is_left_alone(call: Call, tmp_path: Path) -> None:
    code, _, err = call("new-plugin", "cells", "--out", tmp_path)
    assert code == 2
    assert "--out" in err
    assert not list(tmp_path.iterdir())
