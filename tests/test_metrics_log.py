"""metrics.jsonl: a torn last line spoils nothing, and entries are what a run writes."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest
from data_tools import sentence_of

from rnnfarm.errors import DataError
from rnnfarm.metrics_log import MetricsLog, append_evaluation, cut_torn_line, read_metrics

WHOLE = '{"step": 1, "train_loss": 2.5}\n{"step": 2, "train_loss": null}\n'


@pytest.mark.parametrize("torn", ['{"step": 3, "train_lo', "\0\0\0", "{", '{"step": 3}'])
def test_a_torn_last_line_is_left_out_and_said(
    tmp_path: Path, torn: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(WHOLE + torn)
    with caplog.at_level(logging.WARNING):
        assert [entry["step"] for entry in read_metrics(path)] == [1, 2]
    assert f"{path}, line 3: is cut off, and was left out" in caplog.text
    append_evaluation(path, 2, {"split": "valid", "loss": 1.0})
    assert path.read_text().startswith(WHOLE)
    assert [entry["step"] for entry in read_metrics(path)] == [1, 2, 2]
    path.write_text(WHOLE + torn)
    metrics = MetricsLog(path)
    metrics.write({"step": 2, "train_loss": 9.0})  # was logged before
    metrics.write({"step": 3, "train_loss": 1.0})
    metrics.close()
    assert path.read_text() == WHOLE + '{"step": 3, "train_loss": 1.0}\n'


@pytest.mark.parametrize("length", [1, 65_535, 65_536, 65_537, 200_000])
@pytest.mark.parametrize("before", ["", WHOLE])
def test_a_torn_line_of_any_length_is_cut(tmp_path: Path, length: int, before: str) -> None:
    path = tmp_path / "m"
    path.write_text(before + "x" * length)
    cut_torn_line(path)
    assert path.read_text() == before
    cut_torn_line(path)
    assert path.read_text() == before


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("[1]", "which is a table"),
        ('{"train_loss": 1}', "whole number as its step"),
        ('{"step": true}', "whole number as its step"),
        ('{"step": -1}', "whole number as its step"),
        ('{"step": 9223372036854775808}', "whole number as its step"),
        ('{"step": 1, "train_loss": "low"}', "finite numbers or null"),
        ('{"step": 1, "valid_loss": 1e999}', "finite numbers or null"),
        ('{"step": 1, "lr": [1]}', "finite numbers or null"),
        ('{"step": 1, "lr": 1' + "0" * 400 + "}", "finite numbers or null"),
        ('{"step": 1, "gradient_flow": 3}', "gradient_flow is a table"),
        ('{"step": 1, "gradient_flow": {"a": [1]}}', "gradient_flow has numbers for each layer"),
        ('{"step": 1, "evaluation": {"baseline": 2}}', "baseline is a table"),
        ('{"step": NaN}', "it holds what is no number"),
        ("\xff", "it is no UTF-8"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, what: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(WHOLE.encode() + line.encode("latin-1") + b"\n" + WHOLE.encode())
    with pytest.raises(DataError, match=what) as error:
        list(read_metrics(path))
    assert f"{path}, line 3: this is no entry of a run" in sentence_of(error.value)


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("folder", "pipe"):
        with pytest.raises(DataError, match=f"{name}: is a "):
            MetricsLog(tmp_path / name)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    entries = [
        {"step": 1, "train_loss": 1.5, "lr": 0.1},
        {"step": 1, "gradient_flow": {"layer1": {"1": 0.5, "2": None}}},
        {"step": 1, "valid_loss": None, "valid_accuracy": 0.5},
        {"step": 1, "evaluation": {"split": "test", "baseline": {"loss": 1}, "text": "é"}},
    ]
    metrics = MetricsLog(tmp_path / "m")
    for entry in entries:
        metrics.write(entry)
    metrics.close()
    assert list(read_metrics(tmp_path / "m")) == entries
    assert json.loads((tmp_path / "m").read_text().splitlines()[0]) == entries[0]
