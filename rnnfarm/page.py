"""The report page of one run, or of several that are compared: one HTML file, all in it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from rnnfarm.axis import number
from rnnfarm.errors import RunError, printable
from rnnfarm.run_report import Entry, RunReport, differences, value_of
from rnnfarm.svg import NAN, Point, Series, chart

COLORS = "abcdefgh"
POINTS = 300  # of a curve; what lies between two is shown as its mean and its range

STYLE = """
:root { color-scheme: light dark; --text: #1d2430; --quiet: #667085; --line: #e4e7ec;
  --page: #f7f8fa; --card: #fff; --a: #2563eb; --b: #d97706; --c: #059669; --d: #a21caf;
  --e: #dc2626; --f: #0891b2; --g: #65a30d; --h: #7c3aed; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e9ef; --quiet: #98a2b3; --line: #303845;
  --page: #12161d; --card: #1a202a; --a: #6ea0ff; --b: #f5ae4f; --c: #3fcf9f; --d: #e07be8;
  --e: #ff7a7a; --f: #4fd1e8; --g: #a3d94f; --h: #b79bff; } }
body { margin: 0 auto; padding: 28px 24px; max-width: 1220px; background: var(--page);
  color: var(--text); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 24px; margin: 0 0 2px; } h2 { font-size: 17px; margin: 30px 0 10px; }
.quiet { color: var(--quiet); margin: 0 0 18px; }
.tiles { display: flex; flex-wrap: wrap; gap: 12px; margin-bottom: 16px; }
.tiles div { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 8px 16px; } .tiles b { display: block; font-size: 20px; font-weight: 600; }
.tiles span { color: var(--quiet); font-size: 13px; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 480px), 1fr));
  gap: 16px; }
figure, pre, .sheet { margin: 0; background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; padding: 14px 16px; }
figcaption { font-weight: 600; } svg { width: 100%; height: auto; display: block; }
svg text { fill: var(--quiet); font-size: 12px; }
.end { text-anchor: end; } .middle { text-anchor: middle; }
.grid { stroke: var(--line); }
.curve { fill: none; stroke-width: 1.8; stroke-linejoin: round; stroke: currentColor; }
.band { fill: currentColor; opacity: .18; } circle { fill: currentColor; }
.a { color: var(--a); } .b { color: var(--b); } .c { color: var(--c); } .d { color: var(--d); }
.e { color: var(--e); } .f { color: var(--f); } .g { color: var(--g); } .h { color: var(--h); }
.early { opacity: .45; stroke-dasharray: 5 4; }
.legend { font-size: 13px; } .legend span { margin-right: 16px; }
.legend span::before { content: "\\2014\\00a0"; font-weight: 700; }
pre { overflow: auto; font: 13px/1.5 ui-monospace, monospace; }
.sheet { overflow: auto; } table { border-collapse: collapse; font-size: 14px; }
td, th { padding: 3px 18px 3px 0; text-align: right; font-variant-numeric: tabular-nums; }
th { color: var(--quiet); font-weight: 500; } td:first-child, th:first-child { text-align: left; }
"""


def write_page(runs: Sequence[RunReport], out: Path) -> Path:
    """Write the report of runs to the file ``out`` and return its path.

    Raises RunError where the file cannot be written.
    """
    text = page(runs)
    try:
        # A folder's name need not be UTF-8.
        out.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise RunError(f"{out}: cannot be written ({error.strerror}); use --out FILE") from None
    return out


def page(runs: Sequence[RunReport]) -> str:
    """The HTML text of the report of one run, or of several that are compared."""
    title = _text(" · ".join(run.name for run in runs))
    inside = _one(runs[0]) if len(runs) == 1 else _several(runs)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title} · rnnfarm</title>'
        '<meta name="viewport" content="width=device-width">'
        f"<style>{STYLE}</style><h1>{title}</h1>{inside}</html>\n"
    )


def _one(run: RunReport) -> str:
    return (
        f'<p class="quiet">{_text(_state(run))}</p><div class="tiles">{_tiles(run)}</div>'
        f'<div class="charts">{"".join(_charts(run))}</div>'
        f"{_evaluations(run)}{_measured([run])}<h2>Job</h2><pre>{_job(run)}</pre>"
    )


def _several(runs: Sequence[RunReport]) -> str:
    jobs = "".join(f"<details><summary>{_text(r.name)}</summary><pre>{_job(r)}</pre></details>"
                   for r in runs)  # fmt: skip
    return (
        f'{_overview(runs)}<div class="charts">{"".join(_compared(runs))}</div>'
        f"{_differences(runs)}{_measured(runs)}<h2>Jobs</h2>{jobs}"
    )


def _text(text: str) -> str:
    """Text as HTML, on one line."""
    return escape(printable(text))


def _job(run: RunReport) -> str:
    return "\n".join(_text(line) for line in run.job.splitlines())


def _table(title: str, head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """A table under a heading; nothing where it has no rows."""

    def line(tag: str, cells: Iterable[Any]) -> str:
        return "<tr>" + "".join(f"<{tag}>{_text(_cell(c))}</{tag}>" for c in cells) + "</tr>"

    lines = "".join(line("td", row) for row in rows)
    if not lines:
        return ""
    return (
        f'<h2>{_text(title)}</h2><div class="sheet"><table>{line("th", head)}{lines}</table></div>'
    )


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    shown = value_of(value)
    return str(value) if shown is None else number(shown)


def _words(key: str) -> str:
    return key.replace("_", " ")


# -- one run --------------------------------------------------------------------------------------


def _state(run: RunReport) -> str:
    facts = run.facts
    if not facts:
        return f"not finished; {len(run.steps):,} steps are logged"
    ended = f"stopped: {facts['stopped']}" if facts.get("stopped") else "finished"
    where = f"kernel {facts.get('kernel')}, Python {facts.get('python')}, {facts.get('machine')}"
    return f"{ended} · {where} · parameters {str(facts.get('parameters_sha256'))[:16]}…"


def _tiles(run: RunReport) -> str:
    tiles: list[tuple[str, Any]] = []
    if run.steps:
        tiles.append(("steps", run.steps[-1]["step"]))
        tiles.append(("last training loss", run.last("train_loss")))
    for key, value in (run.valid[-1] if run.valid else {}).items():
        if key != "step":
            tiles.append((f"last {_words(key)}", value))
    tiles += [(f"best {_words(name)}", value) for name, value in _best(run)]
    if speed := value_of(run.facts.get("elements_per_second")):
        tiles.append(("elements per second", round(speed)))
    return "".join(f"<div><b>{_text(_cell(v))}</b><span>{_text(k)}</span></div>" for k, v in tiles)


def _best(run: RunReport) -> list[tuple[str, Any]]:
    """The metric that the run's best evaluation is the best by, and its value there, where it has
    one: as run.json says it, and while there is none the lowest validation loss."""
    best = run.facts.get("best")
    if isinstance(best, dict) and "monitor" in best:
        return [(str(best["monitor"]), best.get("value"))]
    losses = [value_of(e.get("valid_loss")) for e in run.valid]
    return [("valid_loss", min(found))] if (found := [x for x in losses if x is not None]) else []


def _charts(run: RunReport) -> Iterable[str]:
    loss = [_reduced("training", run.steps, "train_loss", "a")]
    loss.append(_reduced("validation", run.valid, "valid_loss", "b", dots=True))
    yield chart("Loss", loss)
    yield chart("Learning rate", [_reduced("learning rate", run.steps, "lr", "c")])
    yield chart("Gradient norm", [_reduced("norm", run.steps, "grad_norm", "d")], log_y=True)
    yield chart("Steps a second", [_reduced("speed", run.steps, "steps_per_second", "a")])
    yield _flow_chart(run.flow)


def _reduced(
    label: str, entries: Sequence[Entry], key: str, style: str, dots: bool = False
) -> Series:
    """At most ``POINTS`` points: the mean of as many steps, and their range; a gap where no value
    is a number."""
    found = [(float(e["step"]), value_of(e[key])) for e in entries if key in e]
    size = -(-len(found) // POINTS)
    groups = [found[k : k + size] for k in range(0, len(found), max(size, 1))]
    points, band = [], []
    for group in groups:
        values = [value for _, value in group if value is not None]
        mean = math.fsum(v / len(values) for v in values) if values else NAN
        points.append((group[len(group) // 2][0], mean))
        band.append((min(values, default=NAN), max(values, default=NAN)))
    return Series(label, points, style, band if size > 1 else [], dots)


def _flow_chart(flow: Sequence[Entry]) -> str:
    """How much of the last step's gradient arrives how many steps before, first and last time."""
    if not flow:
        return ""
    series = []
    for entry, early in ((flow[-1], ""), (flow[0], " early"))[: len(flow)]:
        for color, (layer, norms) in enumerate(entry["gradient_flow"].items()):
            values = [value_of(norm) for norm in norms.values()]
            points: list[Point] = [
                (float(k), NAN if n is None else n) for k, n in enumerate(values)
            ]
            label = f"{layer}, step {entry['step']}"
            series.append(Series(label, points, "abcd"[color % 4] + early, dots=not early))
    return chart(
        "Gradient flow: norm of ∂L/∂h by distance in time",
        series,
        x_label="steps back from the loss",
        x_ticks=list(next(iter(flow[-1]["gradient_flow"].values()), {})),
        log_y=True,
    )


def _evaluations(run: RunReport) -> str:
    keys = list(run.valid[-1]) if run.valid else []
    rows = [[entry.get(key) for key in keys] for entry in run.valid]
    return _table("Evaluations", map(_words, keys), rows)


# -- several runs ---------------------------------------------------------------------------------


def _overview(runs: Sequence[RunReport]) -> str:
    keys = list(dict.fromkeys(key for run in runs for e in run.valid[-1:] for key in e))
    metrics = [key for key in keys if key != "step"]
    head = ["run", "state", "steps", "last training loss"]
    head += [f"last {_words(key)}" for key in metrics]
    monitored = list(dict.fromkeys(name for run in runs for name, _ in _best(run)))
    head += [*(f"best {_words(name)}" for name in monitored), "elements per second"]
    rows = []
    for run in runs:
        steps = run.steps[-1]["step"] if run.steps else 0
        last: Mapping[str, Any] = run.valid[-1] if run.valid else {}
        speed = value_of(run.facts.get("elements_per_second"))
        state = "not finished" if not run.facts else run.facts.get("stopped") or "finished"
        row: list[Any] = [run.name, state, steps, run.last("train_loss")]
        row += [last.get(key) for key in metrics]
        row += [dict(_best(run)).get(name) for name in monitored]
        rows.append([*row, None if speed is None else round(speed)])
    return _table("Runs", head, rows)


def _compared(runs: Sequence[RunReport]) -> Iterable[str]:
    metrics = dict.fromkeys(k for run in runs for e in run.valid for k in e if k != "step")
    for title, key, logarithmic in (
        ("Training loss", "train_loss", False),
        *((f"Validation: {_words(key.removeprefix('valid_'))}", key, False) for key in metrics),
        ("Learning rate", "lr", False),
        ("Gradient norm", "grad_norm", True),
        ("Steps a second", "steps_per_second", False),
    ):
        series = []
        for n, run in enumerate(runs):
            entries = run.valid if key in metrics else run.steps
            style = COLORS[n % len(COLORS)] + " early" * (n // len(COLORS) % 2)
            series.append(_reduced(run.name, entries, key, style, dots=key in metrics))
        yield chart(title, series, log_y=logarithmic)


def _differences(runs: Sequence[RunReport]) -> str:
    head = ["key of the job", *(run.name for run in runs)]
    rows = [[key, *values] for key, values in differences(runs).items()]
    return _table("Where the jobs differ", head, rows)


def _measured(runs: Sequence[RunReport]) -> str:
    """What ``rnnfarm evaluate`` has found, the newest of each split, beside its baseline."""
    rows = []
    for run in runs:
        for split, entry in run.measured.items():
            evaluation = entry["evaluation"]
            baseline = evaluation.get("baseline") or {}
            for name, value in evaluation.items():
                if value_of(value) is not None:
                    label = f"{split}, step {entry['step']}: {_words(name)}"
                    label = label if len(runs) == 1 else f"{run.name}: {label}"
                    rows.append([label, value, baseline.get(name)])
    return _table("Measured", ["measured", "model", "baseline"], rows)
