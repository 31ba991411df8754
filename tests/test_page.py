"""The report page: one file, whole HTML, with every curve that the run has."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from conftest import Call

from rnnfarm.errors import DataError, JobError, RunError
from rnnfarm.page import write_page
from rnnfarm.run_report import differences, read_runs, summary
from rnnfarm.svg import Series, chart

VOID = {"meta"}


class Tags(HTMLParser):
    """Whether every tag is closed in its turn, and what is loaded from elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self.seen.append(tag)
        assert not {"src", "href"} & {name for name, _ in attributes}
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: Any) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def make_run(folder: Path, steps: int = 700, **facts: Any) -> Path:
    folder.mkdir()
    (folder / "job.toml").write_text('[data]\npath = "<b>&"\n')
    lines: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        lines.append(
            {"step": step, "train_loss": 5 / step, "lr": 1e-3, "grad_norm": 1.0 / step}
            | {"steps_per_second": 20.0, "elements_per_second": 40000.0}
        )
        if step % 100 == 0:
            flow = {"layer1": {"0": 1.0, "1": 0.1, "2": 0.0}, "layer<2>": {"0": 2.0, "1": 1.0}}
            lines.append({"step": step, "gradient_flow": flow})
            lines.append({"step": step, "valid_loss": 6 / step, "valid_accuracy": 0.5})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if facts:
        (folder / "run.json").write_text(json.dumps(facts))
    return folder


def test_a_finished_run(tmp_path: Path) -> None:
    run = make_run(
        tmp_path / "a & b",
        stopped=None,
        elements_per_second=40123.0,
        parameters_sha256="0" * 64,
        **dict.fromkeys(("kernel", "python", "machine"), "this"),
    )
    text = write_page(read_runs([run]), run / "report.html").read_text(encoding="utf-8")
    tags = Tags(text)
    assert tags.open == []
    assert tags.seen.count("figure") == tags.seen.count("svg") == 5
    assert "a &amp; b" in text
    assert "&lt;b&gt;&amp;" in text
    assert "layer&lt;2&gt;" in text
    assert "40,123" in text
    assert "0.00857143" in text  # the best validation loss, 6 / 700
    assert not re.search(r"nan|inf\b|None", text)
    assert "http" not in text
    assert len(text) < 200_000


def test_a_run_that_goes_on(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", steps=1)
    (run / "metrics.jsonl").open("a").write('{"step": 2, "train_l')  # being written
    text = write_page(read_runs([run]), tmp_path / "page.html").read_text(encoding="utf-8")
    assert Tags(text).open == []
    assert "not finished; 1 steps are logged" in text
    empty = make_run(tmp_path / "empty", steps=0)
    assert "<figure>" not in write_page(read_runs([empty]), tmp_path / "page.html").read_text(
        encoding="utf-8"
    )


def test_the_best_is_what_the_run_says(tmp_path: Path) -> None:
    best = {"step": 300, "monitor": "valid_accuracy", "mode": "max", "value": 0.8125}
    made = make_run(tmp_path / "monitored", stopped=None, best=best)
    text = write_page(read_runs([made]), tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<b>0.8125</b><span>best valid accuracy</span>" in text
    assert "best valid loss" not in text
    going_on = make_run(tmp_path / "going on", steps=200)
    text = write_page(read_runs([made, going_on]), tmp_path / "two.html").read_text("utf-8")
    assert "<th>best valid accuracy</th><th>best valid loss</th><th>elements per second" in text
    assert "<td>0.8125</td><td>–</td>" in text
    assert f"<td>–</td><td>{6 / 200}</td>" in text


def test_a_best_evaluation_lower_than_all_that_are_logged_is_not_overlooked(tmp_path: Path) -> None:
    """A resumed run's metrics begin where it goes on."""
    best = {"step": 3, "monitor": "valid_loss", "mode": "min", "value": 0.0025}
    run = make_run(tmp_path / "run", stopped=None, best=best)
    text = write_page(read_runs([run]), tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<b>0.0025</b><span>best valid loss</span>" in text


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="is no run"):
        write_page(read_runs([tmp_path]), tmp_path / "page.html")
    run = make_run(tmp_path / "run", steps=2)
    with pytest.raises(RunError, match="--out FILE"):
        write_page(read_runs([run]), tmp_path / "nowhere" / "page.html")
    (run / "run.json").write_text("{]")
    with pytest.raises(DataError, match=r"run.json: is damaged"):
        write_page(read_runs([run]), tmp_path / "page.html")
    (run / "metrics.jsonl").write_text("{]\n")
    with pytest.raises(DataError, match=r"metrics.jsonl, line 1"):
        write_page(read_runs([run]), tmp_path / "page.html")


def coordinates(svg: str) -> list[tuple[float, float]]:
    (path,) = re.findall(r'<path class="curve a" d="M([^"]*)"', svg)
    return [(float(x), float(y)) for x, y in (p.split() for p in path.split("L"))]


def test_points_lie_where_their_numbers_are() -> None:
    straight = chart("line", [Series("a", [(0, 0), (5, 1), (10, 2)], "a")])
    (x0, y0), (x1, y1), (x2, y2) = coordinates(straight)
    assert x1 - x0 == pytest.approx(x2 - x1)
    assert y0 - y1 == pytest.approx(y1 - y2)
    assert y0 > y1  # up is more
    powers = chart(
        "log", [Series("a", [(0, 1e-3), (1, 0.0), (2, 1e-1), (3, 10.0)], "a")], log_y=True
    )
    (path,) = re.findall(r'<path class="curve a" d="([^"]*)"', powers)
    alone, pair = path.removeprefix("M").split("M")  # 0 makes a gap
    (y0,), (y1, y2) = ([float(p.split()[1]) for p in part.split("L")] for part in (alone, pair))
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.2)


def test_odd_curves() -> None:
    assert chart("none", [Series("a", [], "a")]) == ""
    assert chart("zeros", [Series("a", [(1, 0.0)], "a")], log_y=True) == ""
    for value in (0.0, -3.0, 1e-12, 1e12):
        assert Tags(chart("flat", [Series("a", [(1, value), (2, value)], "a")])).open == []
        assert "circle" in chart("single", [Series("a", [(1, value)], "a")])


def test_a_curve_has_a_gap_where_it_was_no_number() -> None:
    nan = float("nan")
    points = [(0, 1.0), (1, 2.0), (2, nan), (3, nan), (4, 3.0), (5, nan), (6, 1.0), (7, 2.0)]
    band = [(y - 1, y + 1) for _, y in points]
    drawn = chart("gaps", [Series("a", points, "a", band)])
    (path,) = re.findall(r'<path class="curve a" d="([^"]*)"', drawn)
    assert [piece.count("L") + 1 for piece in path.removeprefix("M").split("M")] == [2, 1, 2]
    assert drawn.count("<circle") == 1  # the point that is alone
    assert drawn.count('class="band a"') == 3
    assert "nan" not in drawn
    assert chart("none", [Series("a", [(0, nan)], "a")]) == ""


def test_losses_that_were_no_numbers_are_gaps_of_the_page(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", steps=0)
    lines: list[dict[str, Any]] = [
        {"step": k, "train_loss": None if k in (3, 4) else 1.0 * k} for k in range(1, 8)
    ]
    lines.append({"step": 7, "valid_loss": None, "valid_accuracy": None})
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = write_page(read_runs([run]), tmp_path / "page.html").read_text(encoding="utf-8")
    (path,) = re.findall(r'<path class="curve a" d="([^"]*)"', text)
    assert [piece.count("L") + 1 for piece in path.removeprefix("M").split("M")] == [2, 3]
    assert "7 steps are logged" in text
    assert "<b>–</b><span>last valid loss</span>" in text
    assert not re.search(r"nan|None", text)


ODD = "<script>&\"'\x1b[31m\n{x}%s"


def test_whatever_text_comes_in_it_is_text_of_the_page(tmp_path: Path) -> None:
    """Names of runs and metrics, layers, values of the job, of the facts and of evaluations."""
    run = make_run(tmp_path / ODD, steps=2, stopped=ODD, kernel=ODD, machine=ODD)
    (run / "job.toml").write_text(tomli_w.dumps({"a": 1, "b<i>": ODD}))
    lines: list[dict[str, Any]] = [
        {"step": 2, f"valid_{ODD}": 1.0, "valid_loss": 2.0},
        {"step": 2, "gradient_flow": {ODD: {"0": 1.0, ODD: 0.5}}},
        {"step": 2, "evaluation": {"split": ODD, ODD: 3.0, "baseline": {ODD: 4.0}}},
    ]
    with (run / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    other = make_run(tmp_path / "other", steps=2)
    for runs in ([run], [run, other]):
        text = write_page(read_runs(runs), tmp_path / "page.html").read_text(encoding="utf-8")
        tags = Tags(text)
        assert tags.open == []
        assert {"script", "i"}.isdisjoint(tags.seen)
        assert "\x1b" not in text
        assert "&lt;script&gt;&amp;&quot;&#x27;\\x1b[31m\\n{x}%s" in text


def test_several_runs_are_compared(tmp_path: Path) -> None:
    first, second = make_run(tmp_path / "first", 100), make_run(tmp_path / "second", 200)
    job = '[data]\npath = "x"\nbase = "/{}"\n[training]\nsteps = {}\n[model]\nlayers = [{}]\n'
    (first / "job.toml").write_text(job.format("here", 100, '{ cell = "gru" }'))
    layers = '{ cell = "lstm" }, { cell = "gru" }'
    (second / "job.toml").write_text(job.format("there", 200, layers))
    runs = read_runs([first, second])
    assert differences(runs) == {
        "training.steps": [100, 200],
        "model.layers.0.cell": ["gru", "lstm"],
        "model.layers.1.cell": [None, "gru"],
    }
    text = write_page(runs, tmp_path / "page.html").read_text(encoding="utf-8")
    assert Tags(text).open == []
    assert "<h1>first · second</h1>" in text
    for title in ("Training loss", "Validation: loss", "Validation: accuracy", "Learning rate"):
        assert f"<figcaption>{title}</figcaption>" in text
    assert re.findall(r'<path class="curve (.)"', training_loss(text)) == ["a", "b"]
    assert "<tr><td>model.layers.1.cell</td><td>–</td><td>gru</td></tr>" in text
    assert "<tr><td>first</td><td>not finished</td><td>100</td><td>0.05</td>" in text


def training_loss(page: str) -> str:
    return page.partition("<figcaption>Training loss")[2].partition("</figure>")[0]


def test_many_runs_and_odd_ones(tmp_path: Path) -> None:
    many = [make_run(tmp_path / str(k), 3) for k in range(10)]
    text = write_page(read_runs(many), tmp_path / "page.html").read_text(encoding="utf-8")
    found = re.findall(r'<path class="curve ([a-h early]+)"', training_loss(text))
    assert len(found) == len(set(found)) == 10

    (tmp_path / "deep").mkdir()
    first, same = many[0], make_run(tmp_path / "deep" / "0", 1)
    assert [run.name for run in read_runs([first, same])] == [str(first), str(same)]
    with pytest.raises(JobError, match=r"0 is named twice; name each run once"):
        read_runs([many[1], first, tmp_path / "deep" / ".." / "0"])
    (same / "job.toml").write_text("[")
    with pytest.raises(DataError, match=r"deep/0/job.toml: is damaged"):
        differences(read_runs([first, same]))
    (same / "run.json").write_text("[1, 2]")
    with pytest.raises(DataError, match=r"deep/0/run.json: is damaged"):
        read_runs([same])


def test_the_summary_of_a_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 200, stopped=None, elements_per_second=40.0, seconds=3.5)
    evaluations: list[dict[str, Any]] = [
        {"split": "test", "loss": 0.5},
        {"split": "valid", "loss": 0.7},
        {"split": "test", "loss": 0.4, "baseline": {"loss": 2.0}},
    ]
    with (run / "metrics.jsonl").open("a") as file:
        for each in evaluations:
            file.write(json.dumps({"step": 200, "evaluation": each}) + "\n")
    found = summary(read_runs([run])[0])
    assert found["finished"] is True
    assert found["steps"] == 200
    assert found["train_loss"] == 5 / 200
    assert found["last_evaluation"] == {"step": 200, "valid_loss": 6 / 200, "valid_accuracy": 0.5}
    assert found["lowest_valid_loss"] == {"valid_loss": 6 / 200, "step": 200}
    assert found["evaluations"]["test"] == {"step": 200} | evaluations[2]
    assert found["evaluations"]["valid"]["loss"] == 0.7
    assert found["seconds"] == 3.5


def test_the_command(tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first, second = make_run(tmp_path / "first", 10), make_run(tmp_path / "second", 20)
    assert call("report", first) == (0, f"{first}/report.html\n", "")
    code, out, _ = call("report", first, second, "--json")
    assert code == 0
    told = json.loads(out)
    assert told["schema"] == 1
    assert told["page"] is None
    assert [run["steps"] for run in told["runs"]] == [10, 20]
    assert not (tmp_path / "report.html").exists()
    assert call("report", first, second) == (0, "report.html\n", "")
    assert "<h1>first · second</h1>" in (tmp_path / "report.html").read_text(encoding="utf-8")
    code, out, _ = call("report", first, "--json", "--out", "page.html")
    assert json.loads(out)["page"] == "page.html"
    assert (tmp_path / "page.html").is_file()
    assert call("report")[0] == 2
