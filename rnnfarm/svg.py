"""Line charts as SVG text, for the report page; colours and fonts come from its style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby

from rnnfarm.axis import Axis, number
from rnnfarm.errors import printable

Point = tuple[float, float]
NAN = float("nan")
WIDTH, HEIGHT = 560, 250
LEFT, RIGHT, TOP, BOTTOM = 58, 24, 12, 34


@dataclass(frozen=True)
class Series:
    """A curve.

    Attributes:
        points: x ascending; the curve has a gap where y is NaN.
        style: class in the page's style sheet: its colour, and dots or dashes.
        band: lowest and highest y at every point, drawn as an area.
        dots: a dot at every point.
    """

    label: str
    points: Sequence[Point]
    style: str
    band: Sequence[tuple[float, float]] = ()
    dots: bool = False


def chart(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str = "step",
    x_ticks: Sequence[str] | None = None,
    log_y: bool = False,
) -> str:
    """A figure with a title, a legend and the curves; empty text where there is nothing to draw.

    ``x_ticks`` are texts for x = 0, 1, 2, …. On a logarithmic axis there is a gap where y is not
    above 0.
    """
    shown = [_drawable(s, log_y) for s in series]
    shown = [s for s in shown if any(map(_is_there, s.points))]
    if not shown:
        return ""
    xs = [p[0] for s in shown for p in s.points]
    ys = [p[1] for s in shown for p in s.points if _is_there(p)]
    ys += [y for s in shown for b in s.band for y in b if math.isfinite(y)]
    x = Axis(xs, LEFT, WIDTH - RIGHT, whole=True)
    y = Axis(ys, HEIGHT - BOTTOM, TOP, log=log_y)
    labels = [(t, x.label(t)) for t in x.ticks] if x_ticks is None else list(enumerate(x_ticks))
    keys = "".join(f'<span class="{s.style}">{_text(s.label)}</span>' for s in shown)
    legend = f'<div class="legend">{keys}</div>' if len(shown) > 1 else ""
    drawing = _axes(x, y, labels, x_label) + "".join(_curve(s, x, y) for s in shown)
    box = f'viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{_text(title)}"'
    return (
        f"<figure><figcaption>{_text(title)}</figcaption>{legend}"
        f"<svg {box}>{drawing}</svg></figure>"
    )


def _text(text: str) -> str:
    return escape(printable(text))


def _drawable(series: Series, log_y: bool) -> Series:
    points = [
        (x, y if math.isfinite(y) and (y > 0 or not log_y) else NAN) for x, y in series.points
    ]
    band = [] if log_y else series.band
    return Series(series.label, points, series.style, band, series.dots)


def _is_there(point: Point) -> bool:
    return not math.isnan(point[1])


def _axes(x: Axis, y: Axis, labels: Sequence[tuple[float, str]], x_label: str) -> str:
    lines = [
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(t):.1f}" y2="{y(t):.1f}"/>'
        f'<text class="end" x="{LEFT - 8}" y="{y(t) + 4:.1f}">{y.label(t)}</text>'
        for t in y.ticks
    ]
    lines += [
        f'<text class="middle" x="{x(t):.1f}" y="{HEIGHT - BOTTOM + 16}">{_text(shown)}</text>'
        for t, shown in labels
    ]
    middle = (LEFT + WIDTH - RIGHT) / 2
    return "".join(lines) + (
        f'<text class="middle label" x="{middle:.0f}" y="{HEIGHT - 4}">{_text(x_label)}</text>'
    )


def _curve(series: Series, x: Axis, y: Axis) -> str:
    parts = []
    pieces = [list(piece) for there, piece in groupby(series.points, _is_there) if there]
    if series.band:
        bands = zip(series.points, series.band, strict=True)
        for there, group in groupby(bands, lambda item: _is_there(item[0])):
            if there:
                sides = [(point[0], low, high) for point, (low, high) in group]
                outline = [(a, high) for a, _, high in sides]
                outline += [(a, low) for a, low, _ in reversed(sides)]
                parts.append(f'<path class="band {series.style}" d="{_path(outline, x, y)}Z"/>')
    drawn = "".join(_path(piece, x, y) for piece in pieces)
    parts.append(f'<path class="curve {series.style}" d="{drawn}"/>')
    # A point alone is no line: it gets a dot, as all of them may.
    for piece in pieces:
        if series.dots or len(piece) == 1:
            parts += [
                f'<circle class="{series.style}" cx="{x(a):.1f}" cy="{y(b):.1f}" r="3">'
                f"<title>{number(a)}: {number(b)}</title></circle>"
                for a, b in piece
            ]
    return "".join(parts)


def _path(points: Sequence[Point], x: Axis, y: Axis) -> str:
    return "M" + "L".join(f"{x(a):.1f} {y(b):.1f}" for a, b in points)
