"""The report page: one file, whole HTML, with every curve that the run has."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from rnnfarm.errors import DataError, JobError, RunError
from rnnfarm.page import write_page
from rnnfarm.svg import Series, chart, nice, number

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
    text = write_page(run, run / "report.html").read_text(encoding="utf-8")
    tags = Tags(text)
    assert tags.open == []
    assert tags.seen.count("figure") == tags.seen.count("svg") == 5
    assert "a &amp; b" in text
    assert "&lt;b&gt;&amp;" in text
    assert "layer&lt;2&gt;" in text
    assert "40,123" in text
    assert "0.0086" in text  # the best validation loss, 6 / 700
    assert not re.search(r"nan|inf\b|None", text)
    assert "http" not in text
    assert len(text) < 200_000


def test_a_run_that_goes_on(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", steps=1)
    (run / "metrics.jsonl").open("a").write('{"step": 2, "train_l')  # being written
    text = write_page(run, tmp_path / "page.html").read_text(encoding="utf-8")
    assert Tags(text).open == []
    assert "not finished; 1 steps are logged" in text
    empty = make_run(tmp_path / "empty", steps=0)
    assert "<figure>" not in write_page(empty, tmp_path / "page.html").read_text(encoding="utf-8")


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="is no run"):
        write_page(tmp_path, tmp_path / "page.html")
    run = make_run(tmp_path / "run", steps=2)
    with pytest.raises(RunError, match="--out FILE"):
        write_page(run, tmp_path / "nowhere" / "page.html")
    (run / "run.json").write_text("{]")
    with pytest.raises(DataError, match=r"run.json: is damaged"):
        write_page(run, tmp_path / "page.html")
    (run / "metrics.jsonl").write_text("{]\n")
    with pytest.raises(DataError, match=r"metrics.jsonl, line 1"):
        write_page(run, tmp_path / "page.html")


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
    (_, y0), (_, y1), (_, y2) = coordinates(powers)  # 0 is left out
    assert y0 - y1 == pytest.approx(y1 - y2)


def test_odd_curves() -> None:
    assert chart("none", [Series("a", [], "a")]) == ""
    assert chart("zeros", [Series("a", [(1, 0.0)], "a")], log_y=True) == ""
    for value in (0.0, -3.0, 1e-12, 1e12):
        assert Tags(chart("flat", [Series("a", [(1, value), (2, value)], "a")])).open == []
        assert "circle" in chart("single", [Series("a", [(1, value)], "a")])


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (1000, "1,000"), (0.25, "0.25"), (1e-5, "1e-5"), (2e7, "2e7"), (-3e-4, "-3e-4")],
)
def test_figures_on_an_axis(value: float, shown: str) -> None:
    assert number(value) == shown


def test_steps_of_an_axis() -> None:
    assert [nice(v) for v in (0.11, 1, 1.2, 3, 7, 900)] == pytest.approx([0.2, 1, 2, 5, 10, 1000])
