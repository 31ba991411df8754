"""The report page of a run: one HTML file that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from rnnfarm.errors import DataError, JobError, RunError
from rnnfarm.report import read_metrics
from rnnfarm.svg import Point, Series, chart

POINTS = 300  # of a curve; what lies between two is shown as its mean and its range

STYLE = """
:root { color-scheme: light dark; --text: #1d2430; --quiet: #667085; --line: #e4e7ec;
  --page: #f7f8fa; --card: #fff; --a: #2563eb; --b: #d97706; --c: #059669; --d: #a21caf; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e9ef; --quiet: #98a2b3; --line: #303845;
  --page: #12161d; --card: #1a202a; --a: #6ea0ff; --b: #f5ae4f; --c: #3fcf9f; --d: #e07be8; } }
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
.early { opacity: .45; stroke-dasharray: 5 4; }
.legend { font-size: 13px; } .legend span { margin-right: 16px; }
.legend span::before { content: "\\2014\\00a0"; font-weight: 700; }
pre { overflow: auto; font: 13px/1.5 ui-monospace, monospace; }
.sheet { overflow: auto; } table { border-collapse: collapse; font-size: 14px; }
td, th { padding: 3px 18px 3px 0; text-align: right; font-variant-numeric: tabular-nums; }
th { color: var(--quiet); font-weight: 500; } td:first-child, th:first-child { text-align: left; }
"""


def write_page(run: Path, out: Path) -> Path:
    """Write the report of a run's folder to the file ``out`` and return its path.

    Raises JobError where ``run`` is no run with metrics, DataError where they are damaged, and
    RunError where the file cannot be written.
    """
    if not (run / "job.toml").is_file() or not (run / "metrics.jsonl").is_file():
        raise JobError(f"{run}: is no run, it needs a job.toml and a metrics.jsonl; mend the path")
    text = page(run)
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunError(f"{out}: cannot be written ({error.strerror}); use --out FILE") from None
    return out


def page(run: Path) -> str:
    """The HTML text of a run's report."""
    # A figure that was no number is null in the file, and left out here.
    entries = [
        {key: value for key, value in entry.items() if value is not None}
        for entry in read_metrics(run / "metrics.jsonl")
    ]
    facts = _facts(run / "run.json")
    steps = [e for e in entries if "train_loss" in e]
    valid = [e for e in entries if any(key.startswith("valid_") for key in e)]
    flow = [e for e in entries if "gradient_flow" in e]
    name = escape(run.resolve().name)
    job = escape((run / "job.toml").read_text(encoding="utf-8"))
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{name} · rnnfarm</title>'
        '<meta name="viewport" content="width=device-width">'
        f"<style>{STYLE}</style><h1>{name}</h1>{_state(steps, facts)}"
        f'<div class="tiles">{_tiles(steps, valid, facts)}</div>'
        f'<div class="charts">{"".join(_charts(steps, valid, flow))}</div>'
        f"{_evaluations(valid)}{_measured(entries)}<h2>Job</h2><pre>{job}</pre></html>\n"
    )


def _facts(path: Path) -> dict[str, Any]:
    """What the run was at its end; nothing while it goes on."""
    if not path.exists():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise DataError(f"{path}: is damaged ({error}); remove it, or restore it") from None


def _state(steps: Sequence[dict[str, Any]], facts: dict[str, Any]) -> str:
    if facts:
        ended = f"stopped: {facts['stopped']}" if facts.get("stopped") else "finished"
        where = (
            f"kernel {facts.get('kernel')}, Python {facts.get('python')}, {facts.get('machine')}"
        )
        hashed = f"parameters {str(facts.get('parameters_sha256'))[:16]}…"
        return f'<p class="quiet">{escape(f"{ended} · {where} · {hashed}")}</p>'
    return f'<p class="quiet">not finished; {len(steps):,} steps are logged</p>'


def _tiles(
    steps: Sequence[dict[str, Any]], valid: Sequence[dict[str, Any]], facts: dict[str, Any]
) -> str:
    tiles: list[tuple[str, str]] = []
    if steps:
        tiles.append(("steps", f"{steps[-1]['step']:,}"))
        tiles.append(("last training loss", f"{steps[-1]['train_loss']:.4f}"))
    for key, value in (valid[-1] if valid else {}).items():
        if key != "step":
            tiles.append((f"last {key.replace('_', ' ')}", f"{value:.4g}"))
    losses = [e["valid_loss"] for e in valid if "valid_loss" in e]
    if losses:
        tiles.append(("best valid loss", f"{min(losses):.4f}"))
    if facts.get("elements_per_second"):
        tiles.append(("elements per second", f"{facts['elements_per_second']:,.0f}"))
    return "".join(f"<div><b>{escape(v)}</b><span>{escape(k)}</span></div>" for k, v in tiles)


def _charts(
    steps: Sequence[dict[str, Any]],
    valid: Sequence[dict[str, Any]],
    flow: Sequence[dict[str, Any]],
) -> Iterable[str]:
    measured = [(e["step"], e["valid_loss"]) for e in valid if "valid_loss" in e]
    loss = [_reduced("training", steps, "train_loss", "a")]
    yield chart("Loss", [*loss, Series("validation", measured, "b", dots=True)])
    yield chart("Learning rate", [_reduced("learning rate", steps, "lr", "c")])
    yield chart("Gradient norm", [_reduced("norm", steps, "grad_norm", "d")], log_y=True)
    yield chart("Steps a second", [_reduced("speed", steps, "steps_per_second", "a")])
    yield _flow_chart(flow)


def _reduced(label: str, entries: Sequence[dict[str, Any]], key: str, style: str) -> Series:
    """At most ``POINTS`` points: the mean of as many steps, and their range."""
    found = [(e["step"], e[key]) for e in entries if key in e]
    size = -(-len(found) // POINTS)
    groups = [found[k : k + size] for k in range(0, len(found), max(size, 1))]
    points = [_mean(group) for group in groups]
    band = [(min(v for _, v in g), max(v for _, v in g)) for g in groups] if size > 1 else []
    return Series(label, points, style, band)


def _mean(group: Sequence[Point]) -> Point:
    return group[len(group) // 2][0], sum(value for _, value in group) / len(group)


def _flow_chart(flow: Sequence[dict[str, Any]]) -> str:
    """How much of the last step's gradient arrives how many steps before, first and last time."""
    if not flow:
        return ""
    series = []
    for entry, early in ((flow[-1], ""), (flow[0], " early"))[: len(flow)]:
        for color, (layer, norms) in enumerate(entry["gradient_flow"].items()):
            points = [(float(k), n) for k, n in enumerate(norms.values()) if n is not None]
            label = f"{layer}, step {entry['step']}"
            series.append(Series(label, points, "abcd"[color % 4] + early, dots=not early))
    return chart(
        "Gradient flow: norm of ∂L/∂h by distance in time",
        series,
        x_label="steps back from the loss",
        x_ticks=list(next(iter(flow[-1]["gradient_flow"].values()))),
        log_y=True,
    )


def _evaluations(valid: Sequence[dict[str, Any]]) -> str:
    if not valid:
        return ""
    keys = list(valid[-1])
    head = "".join(f"<th>{escape(key.replace('_', ' '))}</th>" for key in keys)
    rows = "".join(
        "<tr>" + "".join(f"<td>{entry.get(key, '–'):,.6g}</td>" for key in keys) + "</tr>"
        for entry in valid
        if all(key in entry for key in keys)
    )
    return f'<h2>Evaluations</h2><div class="sheet"><table><tr>{head}</tr>{rows}</table></div>'


def _measured(entries: Sequence[dict[str, Any]]) -> str:
    """What ``rnnfarm evaluate`` has found, the newest of each split, beside its baseline."""
    found = {e["evaluation"]["split"]: e for e in entries if "evaluation" in e}
    rows = ""
    for split, entry in found.items():
        baseline = entry["evaluation"].get("baseline") or {}
        for name, value in entry["evaluation"].items():
            if isinstance(value, (int, float)):
                beside = f"{baseline[name]:,.6g}" if name in baseline else "–"
                label = f"{split}, step {entry['step']}: {name.replace('_', ' ')}"
                rows += f"<tr><td>{escape(label)}</td><td>{value:,.6g}</td><td>{beside}</td></tr>"
    if not rows:
        return ""
    head = "<tr><th>measured</th><th>model</th><th>baseline</th></tr>"
    return f'<h2>Measured</h2><div class="sheet"><table>{head}{rows}</table></div>\n'
