"""JSON that any parser reads: of values, of everything that writes it, and of every command."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from training_tools import make_job, value_job

import rnnfarm
from rnnfarm.cli import cli
from rnnfarm.data import Column, DatasetWriter
from rnnfarm.plugins import Registry
from rnnfarm.strict_json import finite, to_json
from rnnfarm.training.session import train

#: Where ``json.dumps`` is called, and why not ``to_json``.
ALLOWED = {
    "strict_json.py": "it is what writes",
    "settings.py": "settings on their way to pydantic, which itself refuses NaN",
    "training/loop.py": "only whether a part's state can be written as it is",
    "setting_help.py": "a default on a help page, of settings that are finite",
    "equations/fingerprint.py": "what is hashed, where NaN and infinity must differ, not be null",
    "testing/tools.py": "whether settings come back from JSON",
    "testing/schedules.py": "whether a state comes back from JSON",
}


def strictly(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} in {text[:200]}")

    return json.loads(text, parse_constant=refuse)


def test_what_is_not_finite_is_null() -> None:
    nested = {"a": [math.nan, (1.5, -math.inf)], "b": {"c": np.float32("inf"), "d": np.arange(2)}}
    assert strictly(to_json(nested)) == {"a": [None, [1.5, None]], "b": {"c": None, "d": [0, 1]}}
    assert strictly(to_json(np.array([np.nan, 2.0]))) == [None, 2.0]
    assert finite({"x": 1, "y": "NaN"}) == {"x": 1, "y": "NaN"}
    assert to_json({"b": 1, "a": 0.1}, sort_keys=True) == '{"a": 0.1, "b": 1}'
    with pytest.raises(TypeError, match="Path"):
        to_json({"x": Path("here")})


def test_nothing_else_writes_json() -> None:
    package = Path(rnnfarm.__file__).parent
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if re.search(r"\bjson\.dumps?\(", path.read_text(encoding="utf-8"))
    }
    assert found == set(ALLOWED)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A forecast whose training part is constant: its scaled error is not defined."""
    folder = tmp_path_factory.mktemp("json")
    with DatasetWriter(str(folder / "data"), {"values": Column.values(2)}) as writer:
        writer.append("train", {"values": np.ones((60, 2), np.float32)})
        writer.append("valid", {"values": np.arange(60.0).reshape(30, 2).astype(np.float32)})
    raw = value_job(folder / "data", data={"mode": "forecast", "horizon": 2}, steps=2, window=6)
    raw["model"]["pool"] = "last"
    train(make_job(raw), Registry.load(), out=folder / "run")
    return folder / "run"


@pytest.mark.parametrize(
    "arguments",
    [
        ("evaluate", "RUN", "--json"),
        ("predict", "RUN", "--split", "valid"),
        ("data", "info", "DATA", "--json"),
        ("data", "verify", "DATA", "--json"),
        ("plugins", "--json"),
        ("explain", "gru", "--json"),
        ("doctor", "--json"),
        ("schema",),
    ],
)
def test_commands(run: Path, arguments: tuple[str, ...]) -> None:
    places = {"RUN": str(run), "DATA": str(run.parent / "data")}
    done = CliRunner().invoke(cli, [places.get(word, word) for word in arguments])
    assert done.exit_code == 0, done.output
    lines = [done.stdout] if arguments[0] != "predict" else done.stdout.splitlines()
    found = [strictly(line) for line in lines]
    if arguments[0] == "evaluate":
        assert found[0]["mase"] is None


def test_files_of_a_run(run: Path) -> None:
    for path in [run / "run.json", *run.glob("checkpoints/*/checkpoint.json")]:
        strictly(path.read_text(encoding="utf-8"))
    for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        strictly(line)
