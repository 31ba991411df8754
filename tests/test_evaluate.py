"""What is measured of a trained model: all of a split, in units that are named, and no more memory
for more data."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
import warnings
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from training_tools import REGISTRY

from rnnfarm.cli import cli
from rnnfarm.data import Column, DatasetWriter, open_dataset
from rnnfarm.data.scale import Scale
from rnnfarm.errors import JobError
from rnnfarm.job import read_job
from rnnfarm.training.evaluate import evaluate_run
from rnnfarm.training.predict import predict
from rnnfarm.training.run import open_run
from rnnfarm.training.session import Result, train


def run_of(
    folder: Path, data: dict[str, Any], model: dict[str, Any] | None = None, **training: Any
) -> Result:
    """Train a small model in ``folder / "run"`` on what a reader builds there."""
    raw = {
        "data": {"path": str(folder / "data"), **data},
        "model": {
            "input": {"kind": "none"}, "layers": [{"cell": "gru", "hidden": 4}], "loss": "mse",
            **(model or {}),
        },
        "training": {"batch": 4, "window": 6, "steps": 5, **training},
    }  # fmt: skip
    return train(read_job(raw, REGISTRY, folder), REGISTRY, out=folder / "run")


def write_csv(path: Path, head: str, rows: Any) -> None:
    lines = [",".join("" if cell is None else str(cell) for cell in row) for row in rows]
    path.write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")


def seasonal(values: list[float | None], period: int) -> list[float]:
    """The absolute differences of values that are a period apart and were both observed."""
    pairs = zip(values[period:], values[:-period], strict=True)
    stored = [(np.float32(a), np.float32(b)) for a, b in pairs if a is not None and b is not None]
    return [abs(float(a) - float(b)) for a, b in stored]


FORECAST = {"mode": "forecast", "horizon": 2, "period": 3}


def groups(folder: Path, missing: bool) -> dict[str, list[float | None]]:
    """Three series on levels far from each other, the last of them too short for a forecast."""
    random = np.random.default_rng(2)
    series: dict[str, list[float | None]] = {}
    for name, level, length in (("low", 0, 50), ("high", 5000, 40), ("short", -900, 9)):
        waves = level + 3 * np.sin(np.arange(length)) + random.standard_normal(length)
        series[name] = [round(float(value), 3) for value in waves]
        if missing:
            for step in range(2, min(length, 36), 5):
                series[name][step] = None
    rows = [(name, value) for name, values in series.items() for value in values]
    write_csv(folder / "t.csv", "shop,y", rows)
    return series


@pytest.mark.parametrize("missing", [False, True])
def test_scaled_errors_are_by_differences_within_a_sequence(tmp_path: Path, missing: bool) -> None:
    series = groups(tmp_path, missing)
    build = {"reader": "csv", "files": ["t.csv"], "group": "shop", "valid": 0.4}
    build |= {"missing": "mask"} if missing else {}
    run_of(tmp_path, {**FORECAST, "build": build}, {"pool": "last"})
    report = evaluate_run(tmp_path / "run", REGISTRY)
    trained = [values[: len(values) - round(0.4 * len(values))] for values in series.values()]
    scale = np.mean([step for values in trained for step in seasonal(values, 3)])
    assert report["mase"] == pytest.approx(report["mae"] / scale, rel=1e-6)
    assert report["mae"] > 1  # an untrained model says 0 of levels of 5000
    assert report["baseline"]["mase"] == pytest.approx(report["baseline"]["mae"] / scale, rel=1e-6)


def test_baselines_of_forecasts(tmp_path: Path) -> None:
    """The last value, and that of the last season; both by hand."""
    series = groups(tmp_path, missing=False)
    build = {"reader": "csv", "files": ["t.csv"], "group": "shop", "valid": 0.4}
    run_of(tmp_path, {**FORECAST, "build": build}, {"pool": "last"})
    baseline = evaluate_run(tmp_path / "run", REGISTRY)["baseline"]
    last, season = [], []
    for values in series.values():
        part = np.array(values[len(values) - round(0.4 * len(values)) :], np.float32)
        for at in range(6, len(part) - 1):
            last += [part[at] - part[at - 1], part[at + 1] - part[at - 1]]
            season += [part[at] - part[at - 3], part[at + 1] - part[at - 2]]
    assert baseline["mse"] == pytest.approx(np.mean(np.square(last)), rel=1e-5)
    assert baseline["seasonal_mae"] == pytest.approx(np.mean(np.abs(season)), rel=1e-5)


def test_rows_that_are_looked_back_at_are_known_to_the_baseline(tmp_path: Path) -> None:
    """A season that repeats itself exactly is foretold without an error, from the first row on."""
    write_csv(tmp_path / "t.csv", "y", [(value,) for value in [1.0, 5.0, 2.0] * 40])
    build = {"reader": "csv", "files": ["t.csv"], "valid": 0.4, "lookback": 6}
    run_of(tmp_path, {**FORECAST, "build": build}, {"pool": "last"})
    baseline = evaluate_run(tmp_path / "run", REGISTRY)["baseline"]
    assert baseline["seasonal_mse"] == 0
    assert baseline["mse"] > 1


def test_forecasts_say_what_they_are_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    series = groups(tmp_path, missing=False)
    build = {"reader": "csv", "files": ["t.csv"], "group": "shop", "valid": 0.4}
    result = run_of(tmp_path, {**FORECAST, "build": build}, {"pool": "last"})
    # 5 of the 9 steps of the short one are in the training part, 4 in that for validation.
    nothing = {"steps": 0, "unobserved": 0}
    assert result.left_out == {
        "train": {"sequences": 1, **nothing},
        "valid": {"sequences": 1, **nothing},
    }
    report = evaluate_run(tmp_path / "run", REGISTRY)
    assert report["left_out"] == {"sequences": 1, **nothing}
    sentence = "1 of 3 sequences have fewer than 8 steps and are left out: short"
    assert f"valid: {sentence}" in caplog.text
    rows = list(predict(tmp_path / "run", REGISTRY, split="valid"))
    assert {(row["sequence"], row["name"], row["row"]) for row in rows} == {
        (0, "low", 2 + 30), (1, "high", 2 + 50 + 24),
    }  # fmt: skip
    assert [row["start"] for row in rows] == [*range(6, 19), *range(6, 15)]
    for row in rows:
        values = series[row["name"]]
        at = len(values) - round(0.4 * len(values)) + row["start"]
        assert np.ravel(row["truth"]) == pytest.approx(values[at : at + 2], rel=1e-6)
        assert row["columns"] == ["y"]

    caplog.clear()
    write_csv(tmp_path / "new.csv", "shop,y", [("a", 1.0)] * 5 + [("b", 2.0)] * 7 + [("c", 3)] * 6)
    rows = list(predict(tmp_path / "run", REGISTRY, input=tmp_path / "new.csv"))
    places = [(row["sequence"], row["name"], row["row"], row["start"]) for row in rows]
    assert places == [(1, "b", 7, 7), (2, "c", 14, 6)]
    assert "1 of 3 sequences have fewer than 6 steps and are left out: a" in caplog.text
    write_csv(tmp_path / "new.csv", "shop,y", [("a", 1.0)] * 5)
    with pytest.raises(JobError, match=r"a has 5 steps, and a forecast is made of 6"):
        list(predict(tmp_path / "run", REGISTRY, input=tmp_path / "new.csv"))


def test_every_target_of_a_stream_is_measured_once(tmp_path: Path) -> None:
    """The last steps are like no other, so that leaving one out would show."""
    values = np.random.default_rng(0).standard_normal(170).round(3)
    values[-7:] = 50 + np.arange(7)
    write_csv(tmp_path / "x.csv", "x", values[:, None].tolist())
    build = {"reader": "csv", "files": ["x.csv"], "valid": 0.5}
    result = run_of(tmp_path, {"build": build}, evaluate_every=5)
    report = evaluate_run(tmp_path / "run", REGISTRY)
    rows = list(predict(tmp_path / "run", REGISTRY, split="valid"))
    said = np.concatenate([row["prediction"] for row in rows])[:, 0]
    errors = values[86:].astype(np.float32) - said[:-1]
    assert report["mse"] == pytest.approx(np.mean(errors**2), rel=1e-5)
    assert report["mse"] == pytest.approx(2 * report["loss"], rel=1e-6)
    assert report["loss"] == result.valid_loss
    # Of 85 steps 4 streams of 21 have 3 whole windows of 6.
    assert result.left_out["train"] == {"sequences": 0, "steps": 85 - 4 * 18, "unobserved": 0}
    assert result.left_out["valid"] == report["left_out"]
    assert not any(report["left_out"].values())
    # The training part is measured as a whole, too.
    rows = list(predict(tmp_path / "run", REGISTRY, split="train"))
    said = np.concatenate([row["prediction"] for row in rows])[:, 0]
    report = evaluate_run(tmp_path / "run", REGISTRY, split="train")
    errors = values[1:85].astype(np.float32) - said[:-1]
    assert report["mse"] == pytest.approx(np.mean(errors**2), rel=1e-5)


@pytest.mark.parametrize("loss", ["cross_entropy", "ctc"])
def test_sequences_that_are_longer_than_a_window(tmp_path: Path, loss: str) -> None:
    columns = {"tokens": Column.tokens(4), "label": Column.tokens(3, own=True)}
    random = np.random.default_rng(0)
    with DatasetWriter(str(tmp_path / "data"), columns) as writer:
        for split, lengths in (("train", (5, 6) * 4), ("valid", (4, 9)), ("test", (3, 17, 1))):
            for length in lengths:
                label = np.array([1 + length % 2])
                writer.append(split, {"tokens": random.integers(0, 4, length), "label": label})
    model: dict[str, Any] = {
        "input": {"kind": "one_hot"}, "loss": loss,
        "layers": [{"cell": "gru", "hidden": 4, "bidirectional": True}],
    }  # fmt: skip
    model |= {} if loss == "ctc" else {"pool": "last"}
    run_of(tmp_path, {"mode": "examples", "target": "label"}, model)
    found = evaluate_run(tmp_path / "run", REGISTRY, split="test")
    rows = list(predict(tmp_path / "run", REGISTRY, split="test"))
    assert [row["truth"] for row in rows] == ([[2], [2], [2]] if loss == "ctc" else [2, 2, 2])
    if loss == "cross_entropy":
        right = np.mean([row["prediction"] == row["truth"] for row in rows])
        assert found["accuracy"] == right
        nats = [-math.log(row["probabilities"]["2"]) for row in rows]
        assert found["loss"] == pytest.approx(np.mean(nats), rel=1e-5)
    with pytest.raises(JobError, match=r"reads whole sequences, .* has 6 steps; set window = 6"):
        run_of(tmp_path / "short", {"path": str(tmp_path / "data"), "mode": "examples",
                                    "target": "label"}, model, window=5)  # fmt: skip


PEAK = """
import resource, sys
from pathlib import Path
from rnnfarm.plugins import Registry
from rnnfarm.training.evaluate import evaluate_run
evaluate_run(Path(sys.argv[1]), Registry.load())
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_split(tmp_path: Path) -> None:
    """Ten times as many forecasts take no more; each window of them is 24 KB."""
    peaks = []
    for steps in (600, 6000):
        folder = tmp_path / str(steps)
        with DatasetWriter(str(folder / "data"), {"values": Column.values(20)}) as writer:
            for split, length in (("train", 700), ("valid", steps)):
                values = np.random.default_rng(0).standard_normal((length, 20)).astype(np.float32)
                writer.append(split, {"values": values})
        run_of(folder, {"mode": "forecast", "horizon": 4}, {"pool": "last"}, window=300, steps=1,
               batch=16, evaluate_windows=1)  # fmt: skip
        command = [sys.executable, "-c", PEAK, str(folder / "run")]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        peaks.append(int(done.stdout.splitlines()[-1]) / 1024)  # MiB
    assert peaks[1] - peaks[0] < 20  # 5,400 windows together are 124 MiB


def test_nothing_observed_is_no_metric(tmp_path: Path) -> None:
    rows = [(math.sin(k), math.sin(k + 1) if k < 80 else None) for k in range(100)]
    write_csv(tmp_path / "x.csv", "x,y", rows)
    build = {"reader": "csv", "files": ["x.csv"], "values": ["x"], "target": ["y"],
             "missing": "mask", "valid": 0.2, "test": 0.2}  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ResourceWarning)  # of garbage that other tests left
        run_of(tmp_path, {"target": "target", "build": build})
        command = ["evaluate", str(tmp_path / "run"), "--split", "test", "--json"]
        done = CliRunner().invoke(cli, command)
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert found["left_out"]["unobserved"] == 20
    for name in ("loss", "mse", "mae"):
        assert found[name] is None
    assert found["baseline"] == {"mse": None, "mae": None}


def masked(folder: Path) -> np.ndarray:
    """Write two columns that begin late and have gaps; the training part's cells, NaN for none."""
    random = np.random.default_rng(3)
    cells = np.stack([1000 + random.standard_normal(80), -5 + 2 * random.standard_normal(80)], 1)
    cells = cells.round(3)
    cells[:20, 0] = np.nan
    cells[30:40, 1] = np.nan
    times = np.datetime64("2026-01-01T00", "h") + np.arange(80)
    rows = [
        (str(time).replace("T", " ") + ":00", *(None if np.isnan(v) else v for v in row))
        for time, row in zip(times, cells.tolist(), strict=True)
    ]
    write_csv(folder / "x.csv", "hour,a,b", rows)
    return cells[:64]


MASKED = {"reader": "csv", "files": ["x.csv"], "missing": "mask", "valid": 0.2,
          "time": "hour", "calendar": ["hour"]}  # fmt: skip


def test_scales_are_of_observed_values(tmp_path: Path) -> None:
    """As scikit-learn's StandardScaler, which leaves out NaN."""
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    known = masked(tmp_path)
    data = {"mode": "forecast", "horizon": 1, "scale": "standard", "build": MASKED}
    run_of(tmp_path, data, {"pool": "last"})
    scaler = preprocessing.StandardScaler().fit(known.astype(np.float32).astype(np.float64))
    scales = open_run(tmp_path / "run", REGISTRY).model.scales
    assert scales["target"].mean == pytest.approx(scaler.mean_, rel=1e-12)
    assert scales["target"].deviation == pytest.approx(scaler.scale_, rel=1e-9)
    names = open_dataset(tmp_path / "data").columns["values"].names
    assert names is not None
    values = dict(zip(names, scales["values"].mean.tolist(), strict=True))
    assert [values["a"], values["b"]] == pytest.approx(scaler.mean_, rel=1e-12)
    # A flag is there at every step.
    assert values["a:observed"] == pytest.approx(np.mean(~np.isnan(known[:, 0])))


def test_a_constant_column_is_not_scaled(tmp_path: Path) -> None:
    """Also where the mean in float64 is not quite the value in float32."""
    with DatasetWriter(str(tmp_path / "data"), {"values": Column.values(2)}) as writer:
        values = np.stack([np.full(1001, 0.1), np.arange(1001)], 1).astype(np.float32)
        writer.append("train", {"values": values})
    scale = Scale.of(open_dataset(tmp_path / "data").split("train"), "values")
    assert scale.deviation[0] == 1.0
    assert scale.deviation[1] == pytest.approx(np.arange(1001).std())


def test_a_forecast_is_of_the_columns_alone(tmp_path: Path) -> None:
    """Without a target in the job it foretells neither the calendar nor what was observed."""
    masked(tmp_path)
    data: dict[str, Any] = {"mode": "forecast", "horizon": 3, "build": MASKED}
    run_of(tmp_path, data, {"pool": "last"})
    assert open_run(tmp_path / "run", REGISTRY).model.target == "target"
    row = next(predict(tmp_path / "run", REGISTRY, split="valid"))
    assert row["columns"] == ["a", "b"]
    assert np.shape(row["prediction"]) == (3, 2)
    everything = run_of(tmp_path / "all", {**data, "path": str(tmp_path / "data"),
                                           "target": "next"}, {"pool": "last"})  # fmt: skip
    assert everything.steps == 5
    row = next(predict(tmp_path / "all" / "run", REGISTRY, split="valid"))
    assert row["columns"] == ["a", "b", "hour:sin", "hour:cos", "a:observed", "b:observed"]


def test_a_missing_cell_takes_the_forecasts_of_it_along(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They are counted as forecasts, by train, evaluate and predict."""
    cells: list[float | None] = [float(i % 7) for i in range(100)]
    cells[20] = cells[85] = None
    write_csv(tmp_path / "x.csv", "a,b", [(cell, 1) for cell in cells])
    build = {"reader": "csv", "files": ["x.csv"], "values": ["a"], "missing": "mask", "valid": 0.3}
    result = run_of(tmp_path, {"mode": "forecast", "horizon": 3, "build": build}, {"pool": "last"})
    said = "{} of {} forecasts have a target that was not observed, or is only looked back"
    # 30 rows are for validation: windows of 6, and 3 rows after them.
    assert result.left_out["train"]["unobserved"] == 3
    assert evaluate_run(tmp_path / "run", REGISTRY)["left_out"]["unobserved"] == 3
    assert f"valid: {said.format(3, 30 - 8)}" in caplog.text
    caplog.clear()
    assert len(list(predict(tmp_path / "run", REGISTRY, split="valid"))) == 30 - 8 - 3
    assert f"valid: {said.format(3, 30 - 8)}" in caplog.text


def test_metrics_are_in_the_units_of_the_data_and_in_scaled_ones(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    values = random.standard_normal((120, 2)) * [100, 0.1] + [5000, 3]
    write_csv(tmp_path / "x.csv", "wide,narrow", values.round(4).tolist())
    build = {"reader": "csv", "files": ["x.csv"], "valid": 0.25}
    loss = {"name": "quantile", "quantiles": [0.1, 0.5, 0.9]}
    data = {"mode": "forecast", "horizon": 2, "scale": "standard", "build": build}
    run_of(tmp_path, data, {"pool": "last", "loss": loss})
    report = evaluate_run(tmp_path / "run", REGISTRY)
    rows = list(predict(tmp_path / "run", REGISTRY, split="valid"))
    said, truth, low, high = (
        np.array([row[name] for row in rows]) for name in ("prediction", "truth", "low", "high")
    )
    unit = open_run(tmp_path / "run", REGISTRY).model.scales["values"].deviation
    close = {"rel": 1e-6}
    error = said - truth
    assert report["mse"] == pytest.approx(np.mean(error**2), **close)
    assert report["mae_scaled"] == pytest.approx(np.mean(np.abs(error / unit)), **close)
    assert report["mse_scaled"] == pytest.approx(np.mean((error / unit) ** 2), **close)
    assert report["interval_width"] == pytest.approx(np.mean(high - low), **close)
    assert report["interval_width_scaled"] == pytest.approx(np.mean((high - low) / unit), **close)
    assert report["coverage"] == np.mean((low <= truth) & (truth <= high))
    assert list(report["columns"]) == ["wide", "narrow"]
    for place, column in enumerate(report["columns"].values()):
        assert column["mse"] == pytest.approx(np.mean(error[..., place] ** 2), **close)
        assert column["mae"] == pytest.approx(np.mean(np.abs(error[..., place])), **close)
    shown = CliRunner().invoke(cli, ["evaluate", str(tmp_path / "run")]).stdout
    assert "mse_scaled of the baseline" in shown
    narrow = [line.split() for line in shown.splitlines() if line.startswith("narrow")]
    assert narrow == [["narrow", *(f"{v:.6g}" for v in report["columns"]["narrow"].values())]]


TEXTS = ("good fine nice", "bad poor sad", "so so fair")


def labelled(count: int, seed: int) -> list[tuple[str, str]]:
    random = np.random.default_rng(seed)
    kinds = random.integers(0, 3, count)
    return [
        (("pos", "neg", "mid")[kind], " ".join(random.permutation(TEXTS[kind].split())))
        for kind in kinds
    ]


def write_labelled(path: Path, rows: list[tuple[str, str]]) -> None:
    path.write_text("".join(f"{label} {text}\n" for label, text in rows), encoding="utf-8")


def test_a_confusion_matrix_and_a_file_with_labels(tmp_path: Path) -> None:
    test = labelled(25, 1)
    write_labelled(tmp_path / "train.txt", labelled(60, 0))
    write_labelled(tmp_path / "test.txt", test)
    build = {"reader": "labelled-text", "files": ["train.txt"], "test_files": ["test.txt"]}
    run_of(
        tmp_path,
        {"mode": "examples", "target": "label", "build": build},
        {"input": {"kind": "embedding", "size": 4}, "pool": "mean", "loss": "cross_entropy"},
        steps=8,
    )
    report = evaluate_run(tmp_path / "run", REGISTRY, split="test")
    rows = list(predict(tmp_path / "run", REGISTRY, split="test"))
    classes = report["confusion"]["classes"]
    counts = np.zeros((3, 3), int)
    for row in rows:
        counts[classes.index(row["truth_text"]), classes.index(row["text"])] += 1
    assert report["confusion"]["counts"] == counts.tolist()
    assert report["accuracy"] == np.trace(counts) / 25
    assert [row["truth_text"] for row in rows] == [label for label, _ in test]
    # The same lines in another order, so that other labels come first.
    write_labelled(tmp_path / "again.txt", test[::-1])
    plots = tmp_path / "plots" if _has("matplotlib") else None
    again = evaluate_run(tmp_path / "run", REGISTRY, input=tmp_path / "again.txt", plot=plots)
    assert again["confusion"] == report["confusion"]
    assert again["loss"] == pytest.approx(report["loss"], rel=1e-6)
    assert (again["input"], "split" in again) == (str(tmp_path / "again.txt"), False)
    if plots is not None:
        assert (plots / "confusion.png").read_bytes()[:4] == b"\x89PNG"
    shown = CliRunner().invoke(cli, ["evaluate", str(tmp_path / "run"), "--split", "test"]).stdout
    assert "truth \\ prediction" in shown
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert sum('"evaluation"' in line for line in lines) == 2  # those of splits alone


def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def test_the_perplexity_of_a_file(tmp_path: Path) -> None:
    """That of the split which was made of the same text, in whatever windows it is read."""
    text = "".join(np.random.default_rng(0).choice(list("abcd "), 900))
    (tmp_path / "train.txt").write_text(text[:600], encoding="utf-8")
    (tmp_path / "valid.txt").write_text(text[600:], encoding="utf-8")
    build = {"reader": "characters", "files": ["train.txt"], "valid_files": ["valid.txt"]}
    model = {"input": {"kind": "one_hot"}, "loss": "cross_entropy"}
    run_of(tmp_path, {"build": build}, model, steps=20)
    report = evaluate_run(tmp_path / "run", REGISTRY)
    found = evaluate_run(tmp_path / "run", REGISTRY, input=tmp_path / "valid.txt")
    for name in ("loss", "perplexity", "accuracy", "baseline"):
        assert found[name] == report[name]
    both = ["evaluate", str(tmp_path / "run"), "--split", "valid", "--input", "x"]
    assert "at most one of" in CliRunner().invoke(cli, both).output


def test_a_table_with_its_targets(tmp_path: Path) -> None:
    waves = np.sin(np.arange(120) / 3).round(4)
    write_csv(tmp_path / "x.csv", "x,y", np.stack([waves, np.roll(waves, 2)], 1).tolist())
    build = {"reader": "csv", "files": ["x.csv"], "values": ["x"], "target": ["y"], "valid": 0.25}
    run_of(tmp_path, {"target": "target", "build": build, "scale": "standard"})
    rows = np.stack([waves, np.roll(waves, 2)], 1)[90:].tolist()
    write_csv(tmp_path / "test.csv", "x,y", rows)
    report = evaluate_run(tmp_path / "run", REGISTRY)
    found = evaluate_run(tmp_path / "run", REGISTRY, input=tmp_path / "test.csv")
    for name in ("loss", "mse", "mae", "mse_scaled", "baseline"):
        assert found[name] == report[name]
    write_csv(tmp_path / "test.csv", "x", [row[:1] for row in rows])
    with pytest.raises(JobError, match=r"has no column 'y' \(setting 'target'\), .* measured by"):
        evaluate_run(tmp_path / "run", REGISTRY, input=tmp_path / "test.csv")


def test_tags_are_told_by_name_and_confused(tmp_path: Path) -> None:
    """A class at every step: probabilities by name, the truth, and a confusion matrix."""
    random = np.random.default_rng(0)
    columns = {"tokens": Column.tokens(5), "tag": Column.tokens(3)}
    with DatasetWriter(str(tmp_path / "data"), columns) as writer:
        for split, lengths in (("train", (30, 40)), ("valid", (13, 7))):
            for length in lengths:
                tokens = random.integers(0, 5, length)
                writer.append(split, {"tokens": tokens, "tag": tokens % 3})
    model = {"input": {"kind": "one_hot"}, "loss": "cross_entropy"}
    run_of(tmp_path, {"target": "tag"}, model, steps=30)
    report = evaluate_run(tmp_path / "run", REGISTRY)
    rows = list(predict(tmp_path / "run", REGISTRY, split="valid"))
    counts = np.zeros((3, 3), int)
    nats = []
    for row in rows:
        for step, (said, truth) in enumerate(zip(row["prediction"], row["truth"], strict=True)):
            counts[truth, said] += 1
            nats.append(-math.log(row["probabilities"][str(truth)][step]))
    assert counts.sum() == 20
    assert report["confusion"] == {"classes": ["0", "1", "2"], "counts": counts.tolist()}
    assert report["loss"] == pytest.approx(np.mean(nats), rel=1e-5)
    assert {"accuracy", "perplexity"} <= set(report["baseline"])


def test_of_many_classes_the_most_frequent_confusions_are_told(tmp_path: Path) -> None:
    columns = {"tokens": Column.tokens(80), "tag": Column.tokens(80)}
    with DatasetWriter(str(tmp_path / "data"), columns) as writer:
        for split in ("train", "valid"):
            tokens = np.arange(200) % 80
            writer.append(split, {"tokens": tokens, "tag": tokens})
    model = {"input": {"kind": "one_hot"}, "loss": "cross_entropy"}
    run_of(tmp_path, {"target": "tag"}, model, steps=1)
    report = evaluate_run(tmp_path / "run", REGISTRY)
    assert "confusion" not in report
    assert 0 < len(report["confused"]) <= 20
    assert all(pair["truth"] != pair["prediction"] for pair in report["confused"])
    row = next(predict(tmp_path / "run", REGISTRY, split="valid"))
    assert [len(step) for step in row["probabilities"]] == [5] * 6
    with pytest.raises(JobError, match="this evaluation has none"):
        evaluate_run(tmp_path / "run", REGISTRY, plot=tmp_path / "plots")


def test_the_baseline_of_tokens_is_measured_on_the_same_targets(tmp_path: Path) -> None:
    """The first token of a sequence is no target, and neither is one that the loss ignores."""
    columns = {"tokens": Column.tokens(4)}
    train_part, valid = [0, 0, 0, 0, 1, 1, 2], [[1, 2, 0, 3, 1, 0], [3, 1, 1, 2]]
    with DatasetWriter(str(tmp_path / "data"), columns) as writer:
        for _ in range(10):
            writer.append("train", {"tokens": np.array(train_part)})
        for tokens in valid:
            writer.append("valid", {"tokens": np.array(tokens)})
    loss = {"name": "cross_entropy", "ignore": 0}
    run_of(tmp_path, {}, {"input": {"kind": "one_hot"}, "loss": loss})
    baseline = evaluate_run(tmp_path / "run", REGISTRY)["baseline"]
    targets = [token for tokens in valid for token in tokens[1:] if token]
    shares = {1: 21 / 34, 2: 11 / 34, 3: 1 / 34}  # (count + 1) / (30 + 4)
    nats = -np.mean([math.log(shares[token]) for token in targets])
    assert baseline["loss"] == pytest.approx(nats, rel=1e-12)
    assert baseline["accuracy"] == np.mean(np.array(targets) == 1)


def test_a_sound_and_a_series_with_their_labels(tmp_path: Path) -> None:
    """A file of the test part has the metrics that its answer has."""
    for number in range(12):
        with wave.open(str(tmp_path / f"{'ab'[number % 2]}_{number}.wav"), "wb") as file:
            file.setparams((1, 2, 4000, 0, "NONE", ""))
            tone = np.sin(np.arange(1200) * (0.2 + 0.5 * (number % 2)) + number)
            file.writeframes((tone * 20000).astype("<i2").tobytes())
    build = {"reader": "wav", "files": ["*.wav"], "pattern": "(?P<label>[ab])_[0-9]+",
             "valid": 0.3, "mels": 8}  # fmt: skip
    model = {"pool": "last", "loss": "cross_entropy"}
    data = {"mode": "examples", "target": "label"}
    run_of(tmp_path, {**data, "build": build}, model, window=200)
    rows = list(predict(tmp_path / "run", REGISTRY, split="valid"))
    for row in rows:
        found = evaluate_run(tmp_path / "run", REGISTRY, input=Path(row["file"]))
        assert found["accuracy"] == (row["prediction"] == row["truth"])
        odds = row["probabilities"][row["truth_text"]]
        assert found["loss"] == pytest.approx(-math.log(odds), rel=1e-4)
        assert Path(row["file"]).name.startswith(row["truth_text"])
    several = CliRunner().invoke(
        cli, ["predict", str(tmp_path / "run"), "--input", str(tmp_path / "a_*.wav")]
    )
    told = [json.loads(line) for line in several.stdout.splitlines()]
    assert [row["file"] for row in told] == sorted(map(str, tmp_path.glob("a_*.wav")))
    by_file = {row["file"]: row["probabilities"]["a"] for row in rows}
    both = [row for row in told if row["file"] in by_file]
    assert both
    for row in both:
        assert row["probabilities"]["a"] == pytest.approx(by_file[row["file"]], rel=1e-4)
    report = evaluate_run(tmp_path / "run", REGISTRY, input=tmp_path / "a_*.wav")
    assert report["accuracy"] == np.mean([row["text"] == "a" for row in told])

    folder = tmp_path / "series"
    folder.mkdir()
    head = "@timeStamps false\n@classLabel true {}\n@data\n"
    lines = [f"{','.join(map(str, range(k, k + 5)))}:{'xy'[k % 2]}\n" for k in range(20)]
    (folder / "train.ts").write_text(head.format("x y") + "".join(lines[:14]))
    (folder / "test.ts").write_text(head.format("x y") + "".join(lines[14:]))
    build = {"reader": "timeseries", "files": ["train.ts"], "test_files": ["test.ts"]}
    run_of(folder, {**data, "build": build}, model)
    report = evaluate_run(folder / "run", REGISTRY, split="test")
    found = evaluate_run(folder / "run", REGISTRY, input=folder / "test.ts")
    for name in ("loss", "accuracy", "confusion", "baseline"):
        assert found[name] == report[name]
