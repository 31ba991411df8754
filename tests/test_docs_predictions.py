"""What docs/predictions.md says of the fields of a prediction: they are all that rows have."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest

import rnnfarm.builtin.losses as losses
from rnnfarm.training import described

TEXT = (Path(__file__).parents[1] / "docs" / "predictions.md").read_text(encoding="utf-8")


def keys_of_rows() -> set[str]:
    """Every key that the module which makes rows writes into one, from its source."""
    assert described.__file__ is not None
    found: set[str] = set()
    for node in ast.walk(ast.parse(Path(described.__file__).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "row":
            found |= {key.value for key in [node.slice] if isinstance(key, ast.Constant)}
        if isinstance(node, ast.Dict):
            found |= {key.value for key in node.keys if isinstance(key, ast.Constant)}
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "self._text":
            found |= {key.value for key in node.args[:1] if isinstance(key, ast.Constant)}
    return found | {"low", "high"}


def test_every_field_of_a_prediction_is_told() -> None:
    cells = re.findall(r"^\| (`[^|]*) \|", TEXT, re.MULTILINE)
    told = {name for cell in cells for name in re.findall(r"`([a-z_]+)`", cell)}
    assert told == keys_of_rows()


def test_limits_are_those_of_the_program() -> None:
    assert f"more than {described.CLASSES} classes" in TEXT
    assert described.LIKELIEST == 5
    raw = 0.7
    mean, low, high = losses.Gaussian(least=1e-9).interval(np.array([[2.0, raw]]), 1)
    reach = NormalDist(0, np.logaddexp(0, raw)).inv_cdf(0.9)  # 80 % lie within it
    assert [float(mean[0, 0]), float(low[0, 0]), float(high[0, 0])] == pytest.approx(
        [2.0, 2.0 - reach, 2.0 + reach]
    )
