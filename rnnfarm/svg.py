"""Line charts as SVG text, for the report page; colours and fonts come from its style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

Point = tuple[float, float]
WIDTH, HEIGHT = 560, 250
LEFT, RIGHT, TOP, BOTTOM = 58, 24, 12, 34


@dataclass(frozen=True)
class Series:
    """A curve.

    Attributes:
        points: x ascending.
        style: class in the page's style sheet: its colour, and dots or dashes.
        band: lowest and highest y at every point, drawn as an area.
        dots: a dot at every point.
    """

    label: str
    points: Sequence[Point]
    style: str
    band: Sequence[tuple[float, float]] = ()
    dots: bool = False


class Axis:
    """Where a value lies between two ends, in pixels, and the ticks."""

    def __init__(self, values: Sequence[float], start: float, end: float, log: bool) -> None:
        self.log = log
        self.start, self.end = start, end
        self.low, self.high = min(values), max(values)
        if log:
            self.low = math.floor(math.log10(self.low))
            self.high = max(math.ceil(math.log10(self.high)), self.low + 1)
            stride = math.ceil((self.high - self.low) / 6)
            self.ticks = [10.0**k for k in range(int(self.low), int(self.high) + 1, stride)]
        else:
            step = nice((self.high - self.low) / 5 or abs(self.high) / 2 or 1.0)
            first = math.ceil(self.low / step - 1e-9)
            last = max(math.floor(self.high / step + 1e-9), first)
            self.ticks = [k * step for k in range(first, last + 1)]
            if self.high == self.low:
                self.low, self.high = self.low - step, self.high + step

    def __call__(self, value: float) -> float:
        at = math.log10(value) if self.log else value
        return self.start + (at - self.low) / (self.high - self.low) * (self.end - self.start)


def nice(step: float) -> float:
    """The next of 1, 2, 5, 10, 20, … from ``step`` on."""
    size: float = 10.0 ** math.floor(math.log10(step))
    return next(size * k for k in (1, 2, 5, 10) if size * k >= step * 0.999)


def chart(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str = "step",
    x_ticks: Sequence[str] | None = None,
    log_y: bool = False,
) -> str:
    """A figure with a title, a legend and the curves; empty text where there is nothing to draw.

    ``x_ticks`` are texts for x = 0, 1, 2, …. On a logarithmic axis points that are not above 0 are
    left out.
    """
    shown = [_drawable(s, log_y) for s in series]
    shown = [s for s in shown if s.points]
    if not shown:
        return ""
    xs = [p[0] for s in shown for p in s.points]
    ys = [p[1] for s in shown for p in s.points] + [y for s in shown for b in s.band for y in b]
    x, y = Axis(xs, LEFT, WIDTH - RIGHT, False), Axis(ys, HEIGHT - BOTTOM, TOP, log_y)
    labels = [(t, number(t)) for t in x.ticks] if x_ticks is None else list(enumerate(x_ticks))
    keys = "".join(f'<span class="{s.style}">{escape(s.label)}</span>' for s in shown)
    legend = f'<div class="legend">{keys}</div>' if len(shown) > 1 else ""
    drawing = _axes(x, y, labels, x_label) + "".join(_curve(s, x, y) for s in shown)
    box = f'viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}"'
    return (
        f"<figure><figcaption>{escape(title)}</figcaption>{legend}"
        f"<svg {box}>{drawing}</svg></figure>"
    )


def _drawable(series: Series, log_y: bool) -> Series:
    keep = [k for k, (_, y) in enumerate(series.points) if y > 0 or not log_y]
    band = [series.band[k] for k in keep] if series.band and not log_y else []
    points = [series.points[k] for k in keep]
    return Series(series.label, points, series.style, band, series.dots)


def _axes(x: Axis, y: Axis, labels: Sequence[tuple[float, str]], x_label: str) -> str:
    lines = [
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(t):.1f}" y2="{y(t):.1f}"/>'
        f'<text class="end" x="{LEFT - 8}" y="{y(t) + 4:.1f}">{number(t)}</text>'
        for t in y.ticks
    ]
    lines += [
        f'<text class="middle" x="{x(t):.1f}" y="{HEIGHT - BOTTOM + 16}">{escape(shown)}</text>'
        for t, shown in labels
    ]
    middle = (LEFT + WIDTH - RIGHT) / 2
    return "".join(lines) + (
        f'<text class="middle label" x="{middle:.0f}" y="{HEIGHT - 4}">{escape(x_label)}</text>'
    )


def _curve(series: Series, x: Axis, y: Axis) -> str:
    parts = []
    if series.band:
        sides = [
            [(p[0], b[side]) for p, b in zip(series.points, series.band, strict=True)]
            for side in (0, 1)
        ]
        outline = _path(sides[1] + sides[0][::-1], x, y)
        parts.append(f'<path class="band {series.style}" d="{outline}Z"/>')
    parts.append(f'<path class="curve {series.style}" d="{_path(series.points, x, y)}"/>')
    if series.dots or len(series.points) == 1:
        parts += [
            f'<circle class="{series.style}" cx="{x(a):.1f}" cy="{y(b):.1f}" r="3">'
            f"<title>{number(a)}: {b:.6g}</title></circle>"
            for a, b in series.points
        ]
    return "".join(parts)


def _path(points: Sequence[Point], x: Axis, y: Axis) -> str:
    return "M" + "L".join(f"{x(a):.1f} {y(b):.1f}" for a, b in points)


def number(value: float) -> str:
    """A figure as an axis shows it."""
    if value and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")
    return f"{value:,.6g}"
