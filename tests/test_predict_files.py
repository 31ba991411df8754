"""Predictions of files that the reader of a run's data reads: tables, series, what stdin has."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_tools import sentence_of
from training_tools import REGISTRY

from rnnfarm.data.dataset import open_dataset
from rnnfarm.errors import DataError, JobError, RnnfarmError
from rnnfarm.job import read_job
from rnnfarm.training.evaluate import evaluate_run
from rnnfarm.training.predict import predict
from rnnfarm.training.session import train

HEAD = "hour,a,b\n"
WINDOW, HORIZON, ROWS = 24, 6, 200


def table() -> list[str]:
    """The lines of a table: hours, and two waves."""
    times = np.datetime64("2026-01-01T00", "h") + np.arange(ROWS)
    waves = np.sin(np.arange(ROWS)[:, None] / [2, 5]) * 5 + 20
    rows = zip(times.tolist(), waves.tolist(), strict=True)
    return [f"{time:%Y-%m-%d %H:%M},{a:.4f},{b:.4f}\n" for time, (a, b) in rows]


def trained(folder: Path, data: dict[str, Any], build: dict[str, Any], **model: Any) -> Path:
    raw = {
        "data": {"path": str(folder / "data"), "build": build, "scale": "standard", **data},
        "model": {"input": {"kind": "none"}, "layers": [{"cell": "gru", "hidden": 6}], **model},
        "training": {"batch": 4, "window": WINDOW, "steps": 20},
    }
    train(read_job(raw, REGISTRY, folder), REGISTRY, out=folder / "run")
    return folder / "run"


def rows(run: Path, **source: Any) -> list[dict[str, Any]]:
    return list(predict(run, REGISTRY, **source))


def said(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is said of sequences, without where they are from and what is true."""
    other = ("file", "row", "truth", "truth_text")
    return [{k: v for k, v in row.items() if k not in other} for row in found]


FORECASTS = {
    "all columns": ({"relative": "season", "period": 12}, {}),
    "another column": (
        {"relative": "last", "target": "target"},
        {"values": ["a"], "target": ["b"]},
    ),
    "a calendar": ({"target": "target"}, {"time": "hour", "calendar": ["hour"]}),
}


@pytest.mark.parametrize("name", FORECASTS)
def test_a_forecast_of_what_comes_after_a_table(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is that of the split for the same rows, which knows what came."""
    data, build = FORECASTS[name]
    lines = table()
    (tmp_path / "all.csv").write_text(HEAD + "".join(lines))
    build = {"reader": "csv", "files": ["all.csv"], "valid": 0.3, **build}
    data = {"mode": "forecast", "horizon": HORIZON, **data}
    run = trained(tmp_path, data, build, loss={"name": "quantile"}, pool="last")
    known = rows(run, split="valid")[5]
    assert (known["sequence"], known["row"]) == (0, 2 + round(ROWS * 0.7))
    assert known["file"] == str(tmp_path / "all.csv")
    begin = round(ROWS * 0.7) + known["start"] - WINDOW
    (tmp_path / "past.csv").write_text(HEAD + "".join(lines[begin - 9 : begin + WINDOW]))
    (found,) = rows(run, input=tmp_path / "past.csv")
    for end in ("prediction", "low", "high"):
        assert np.shape(found[end]) == np.shape(known[end])
        np.testing.assert_allclose(found[end], known[end], rtol=1e-5)
    turned = [line.split(",") for line in (tmp_path / "past.csv").read_text().splitlines()]
    text_of = "".join(f"{b},{hour},{a}\n" for hour, a, b in turned)  # columns go by their names
    (tmp_path / "turned.csv").write_text(text_of)
    (again,) = rows(run, input=tmp_path / "turned.csv")
    assert again["prediction"] == found["prediction"]
    text = (tmp_path / "past.csv").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    assert rows(run, input=Path("-")) == [found]
    (tmp_path / "short.csv").write_text(HEAD + "".join(lines[: WINDOW - 1]))
    with pytest.raises(JobError, match="has 23 steps, and a forecast is made of 24") as error:
        rows(run, input=tmp_path / "short.csv")
    sentence_of(error.value)


def test_pictures_of_a_forecast_of_a_file(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    (tmp_path / "all.csv").write_text(HEAD + "".join(table()))
    data = {"mode": "forecast", "horizon": HORIZON}
    build = {"reader": "csv", "files": ["all.csv"], "valid": 0.3}
    run = trained(tmp_path, data, build, loss="gaussian", pool="last")
    rows(run, input=tmp_path / "all.csv", plot=tmp_path / "pictures")
    assert len(list((tmp_path / "pictures").iterdir())) == 1


def test_every_step_of_a_table(tmp_path: Path) -> None:
    lines = table()
    (tmp_path / "all.csv").write_text(HEAD + "".join(lines))
    build = {"reader": "csv", "files": ["all.csv"], "valid": 0.3, "values": ["b"], "target": ["a"]}
    run = trained(tmp_path, {"target": "target"}, build, loss="mse")
    known = rows(run, split="valid")
    # What is to be found need not be there, nor the other columns.
    held = [line.split(",")[2] for line in lines[round(ROWS * 0.7) :]]
    (tmp_path / "held.csv").write_text("b\n" + "".join(held))
    assert said(rows(run, input=tmp_path / "held.csv")) == said(known)
    truth = [value for row in known for (value,) in row["truth"]]
    np.testing.assert_allclose(truth, [float(line.split(",")[1]) for line in lines[140:]], 1e-6)
    assert known[0]["columns"] == ["a"]
    # An array does as well.
    values = open_dataset(str(tmp_path / "data")).split("valid").read("values", 0, 60)
    np.save(tmp_path / "held.npy", values)
    assert said(rows(run, input=tmp_path / "held.npy")) == said(known)


def test_labels_of_series_in_a_file(tmp_path: Path) -> None:
    head = "@timeStamps false\n@classLabel true up down\n@data\n"
    random = np.random.default_rng(0)
    lines = []
    for number in range(40):
        steps = np.cumsum(random.random(5 + number % 4)) * (1 if number % 2 else -1)
        lines.append(f"{','.join(f'{x:.3f}' for x in steps)}:{'up' if number % 2 else 'down'}\n")
    for name, part in (("TRAIN", lines[:30]), ("TEST", lines[30:])):
        (tmp_path / f"{name}.ts").write_text(head + "".join(part))
    build = {"reader": "timeseries", "files": ["TRAIN.ts"], "test_files": ["TEST.ts"]}
    data = {"mode": "examples", "target": "label"}
    run = trained(tmp_path, data, build, pool="last", loss="cross_entropy")
    known = rows(run, split="test")
    assert said(rows(run, input=tmp_path / "TEST.ts")) == said(known)
    assert [row["truth_text"] for row in known] == [
        line.strip().split(":")[1] for line in lines[30:]
    ]
    for row in known:
        assert set(row["probabilities"]) == {"up", "down"}
        assert sum(row["probabilities"].values()) == pytest.approx(1)
        assert max(row["probabilities"], key=row["probabilities"].get) == row["text"]


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    lines = table()
    (tmp_path / "all.csv").write_text(HEAD + "".join(lines))
    build = {"reader": "csv", "files": ["all.csv"], "valid": 0.3}
    data = {"mode": "forecast", "horizon": HORIZON, "target": "target"}
    named = build | {"values": ["a"], "target": ["b"]}
    run = trained(tmp_path, data, named, loss="mse", pool="last")
    (tmp_path / "a.csv").write_text("a\n" + "1\n" * 50)
    (tmp_path / "c.csv").write_text("c\n" + "1\n" * 50)
    for name, wanted in {
        "a.csv": r"has no column 'b' \(setting 'target'\), which a forecast",
        "c.csv": "has no column 'a'",
        "none.csv": "there is no such file",
    }.items():
        with pytest.raises(JobError, match=wanted) as error:
            rows(run, input=tmp_path / name)
        assert name in sentence_of(error.value)
    (tmp_path / "2").mkdir()
    (tmp_path / "2" / "all.csv").write_text(HEAD + "".join(lines))
    run = trained(tmp_path / "2", {}, build, loss="mse")
    with pytest.raises(JobError, match="has no column 'b', which the run's data have; known: a"):
        rows(run, input=tmp_path / "a.csv")


MORE = {
    "mask": {"missing": "mask"},
    "calendar": {"time": "hour", "calendar": ["hour"]},
    "categories": {"categories": ["kind"], "missing": "mask"},
}
KINDS = {
    "forecast": {"mode": "forecast", "horizon": HORIZON, "relative": "last", "target": "target"},
    "steps": {"mode": "examples", "target": "target"},
}


@pytest.mark.parametrize("more", MORE)
@pytest.mark.parametrize("kind", KINDS)
def test_an_input_is_never_taken_for_the_target(more: str, kind: str, tmp_path: Path) -> None:
    """A table without the target's column has no past and no truth of it."""
    lines = [f"{line.strip()},{'uv'[i % 2]}\n" for i, line in enumerate(table())]
    head = "hour,a,b,kind\n"
    (tmp_path / "all.csv").write_text(head + "".join(lines))
    build = {"reader": "csv", "files": ["all.csv"], "values": ["a"], "target": ["b"], "valid": 0.3}
    model = {"pool": "last"} if kind == "forecast" else {}
    run = trained(tmp_path, KINDS[kind], build | MORE[more], loss="mse", **model)
    past = lines[-40:]
    (tmp_path / "both.csv").write_text(head + "".join(past))
    cells = [line.split(",") for line in [head, *past]]
    (tmp_path / "a.csv").write_text("".join(",".join([c[0], c[1], c[3]]) for c in cells))
    wanted = r"a.csv: has no column 'b' \(setting 'target'\)"
    with pytest.raises(JobError, match=wanted):
        evaluate_run(run, REGISTRY, input=tmp_path / "a.csv")
    if kind == "forecast":
        with pytest.raises(JobError, match=wanted):
            rows(run, input=tmp_path / "a.csv")
    else:
        alone, both = (rows(run, input=tmp_path / name) for name in ("a.csv", "both.csv"))
        assert [row["prediction"] for row in alone] == [row["prediction"] for row in both]
    assert evaluate_run(run, REGISTRY, input=tmp_path / "both.csv")["loss"] > 0


def hourly(*hours: int) -> list[str]:
    lines = table()
    return [lines[hour] for hour in hours]


def test_a_forecast_follows_the_last_row(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of a table that is cut at gaps in time, what is before the last gap foretells nothing."""
    (tmp_path / "all.csv").write_text(HEAD + "".join(table()))
    build = {"reader": "csv", "files": ["all.csv"], "valid": 0.3, "time": "hour", "gaps": "split"}
    run = trained(
        tmp_path, {"mode": "forecast", "horizon": HORIZON}, build, loss="mse", pool="last"
    )
    past = tmp_path / "past.csv"
    past.write_text(HEAD + "".join(hourly(*range(40), *range(50, 50 + WINDOW))))
    (found,) = rows(run, input=past)
    assert found["row"] == 42
    assert "1 sequence is left out, as a forecast" in caplog.text
    assert f"before {past}, line 42)" in caplog.text
    past.write_text(HEAD + "".join(hourly(*range(50, 50 + WINDOW))))
    caplog.clear()
    assert rows(run, input=past)[0]["prediction"] == found["prediction"]
    assert "left out" not in caplog.text
    past.write_text(HEAD + "".join(hourly(*range(40), *range(50, 60))))
    with pytest.raises(JobError, match="has 10 steps, and a forecast is made of 24"):
        rows(run, input=past)


def test_rows_that_are_added_to_be_foretold(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "all.csv").write_text(HEAD + "".join(table()))
    build = {"reader": "csv", "files": ["all.csv"], "valid": 0.3, "time": "hour", "missing": "mask"}
    run = trained(
        tmp_path, {"mode": "forecast", "horizon": HORIZON}, build, loss="mse", pool="last"
    )
    past = tmp_path / "past.csv"
    said = "the last 3 rows lack a value of the target, and the forecast is of what comes after"
    for end, wanted in (([], False), (["2027-01-01 0:00,,\n"] * 3, True)):
        caplog.clear()
        past.write_text(HEAD + "".join([*hourly(*range(40)), *end]))
        assert len(rows(run, input=past)) == 1
        assert (said in caplog.text) == wanted


def test_what_only_a_build_can_set_is_not_advised_alone(tmp_path: Path) -> None:
    (tmp_path / "all.csv").write_text(HEAD + "".join(table()))
    build = {"reader": "csv", "files": ["all.csv"], "valid": 0.3, "time": "hour"}
    run = trained(
        tmp_path, {"mode": "forecast", "horizon": HORIZON}, build, loss="mse", pool="last"
    )
    (tmp_path / "back.csv").write_text(HEAD + "".join(hourly(*reversed(range(40)))))
    with pytest.raises(DataError, match="set sort = true") as error:
        rows(run, input=tmp_path / "back.csv")
    fixed = (
        "the run's data were built with no 'group', sort = false, and it is read in the same way"
    )
    assert fixed in sentence_of(error.value)
    lines = [*hourly(*range(40)), "2027-01-01 0:00,n/k,1\n"]
    (tmp_path / "word.csv").write_text(HEAD + "".join(lines))
    with pytest.raises(DataError, match="null_values") as error:
        rows(run, input=tmp_path / "word.csv")
    _, built = sentence_of(error.value).split("the run's data were built with")
    assert 'null_values = ["", "NA"' in built
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises((DataError, JobError)) as error:
        rows(run, input=tmp_path / "empty.csv")
    assert "were built with" not in sentence_of(error.value)


def test_several_files_by_a_pattern(tmp_path: Path) -> None:
    """Their rows are those of each file by itself, and say the file."""
    (tmp_path / "all.csv").write_text(HEAD + "".join(table()))
    build = {"reader": "csv", "files": ["all.csv"], "valid": 0.3}
    run = trained(
        tmp_path, {"mode": "forecast", "horizon": HORIZON}, build, loss="mse", pool="last"
    )
    (tmp_path / "new").mkdir()
    for number in range(3):
        part = hourly(*range(30 * number, 30 * number + 40))
        (tmp_path / "new" / f"{number}.csv").write_text(HEAD + "".join(part))
    alone = [row for n in range(3) for row in rows(run, input=tmp_path / "new" / f"{n}.csv")]
    together = rows(run, input=tmp_path / "new" / "*.csv")
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one["prediction"], other["prediction"], rtol=1e-5)
    assert [row["file"] for row in together] == [
        str(tmp_path / "new" / f"{n}.csv") for n in range(3)
    ]
    assert not any("file" in row for row in alone)
    with pytest.raises(JobError, match="is a folder; name a file, or several by a pattern"):
        rows(run, input=tmp_path / "new")


def test_messages_name_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "all.csv").write_text(HEAD + "".join(table()))
    run = trained(tmp_path, {}, {"reader": "csv", "files": ["all.csv"], "valid": 0.3}, loss="mse")
    for text, wanted in {
        "a\n1\n2\n": "standard input: has no column 'b'",
        "a,b\n1,2\n1,two\n": "standard input, line 3: column 'b' is no finite number",
    }.items():
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        with pytest.raises(RnnfarmError) as error:
            rows(run, input=Path("-"))
        assert str(error.value).startswith(wanted)
