"""Line charts as SVG, with axes, a legend and the values under the pointer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 520, 260
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 12, 30
COLORS = ("#2a6fdb", "#d9541e", "#2e9e5b", "#9750c9", "#c9a227", "#13a3a8", "#c2376f", "#6b7280")
LARGEST = 1e300  # beyond it the arithmetic of axes overflows
MARKERS = 60  # longer lines are drawn without dots

Points = Sequence[tuple[float, float]]


def line_chart(title: str, lines: Mapping[str, Points]) -> str:
    """One line a name, through its finite (x, y); others interrupt it. "" without any."""
    finite = [(x, y) for points in lines.values() for x, y in points if drawable(y)]
    if not finite:
        return ""
    xs, ys = ticks([x for x, _ in finite]), ticks([y for _, y in finite])

    def across(x: float) -> float:
        return LEFT + (x - xs[0]) / (xs[-1] - xs[0]) * (WIDTH - LEFT - RIGHT)

    def up(y: float) -> float:
        return HEIGHT - BOTTOM - (y - ys[0]) / (ys[-1] - ys[0]) * (HEIGHT - TOP - BOTTOM)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">']
    for y in ys:
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{up(y):.1f}" y2="{up(y):.1f}"/>'
        )
        parts.append(f'<text class="y" x="{LEFT - 6}" y="{up(y) + 4:.1f}">{number(y)}</text>')
    for x in xs:
        parts.append(f'<text class="x" x="{across(x):.1f}" y="{HEIGHT - 10}">{number(x)}</text>')
    for place, (name, points) in enumerate(lines.items()):
        color = COLORS[place % len(COLORS)]
        path, pen = [], "M"
        for x, y in points:
            if drawable(y):
                path.append(f"{pen}{across(x):.1f} {up(y):.1f}")
            pen = "L" if drawable(y) else "M"
        parts.append(f'<path d="{" ".join(path)}" stroke="{color}"><title>{escape(name)}</title></path>')
        if len(points) <= MARKERS:
            parts += [
                f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="3" fill="{color}">'
                f"<title>{escape(name)}\n{number(x)}: {number(y)}</title></circle>"
                for x, y in points
                if drawable(y)
            ]
    legend = "".join(
        f'<span><i style="background:{COLORS[place % len(COLORS)]}"></i>{escape(name)}</span>'
        for place, name in enumerate(lines)
    )
    return (
        f"<figure><figcaption>{escape(title)}</figcaption>{''.join(parts)}</svg>"
        f'<div class="legend">{legend}</div></figure>'
    )


def drawable(value: float) -> bool:
    return abs(value) < LARGEST  # false for NaN


def ticks(values: Sequence[float], wanted: int = 5) -> list[float]:
    """Round numbers, evenly spaced, from at most the least to at least the greatest value; two or more."""
    low, high = min(values), max(values)
    if low == high:
        pad = abs(low) / 2 or 1.0
        low, high = low - pad, high + pad
    step = (high - low) / wanted
    unit = 10.0 ** math.floor(math.log10(step)) if step > 0 else 0.0
    if not unit or low + step == low or high - step == high:  # beyond what arithmetic resolves
        return [low, high]
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= step * 0.999)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [place * step for place in range(first, last + 1)]


def number(value: float) -> str:
    """Short, and without the noise of binary fractions."""
    return f"{value:.4g}" if abs(value) < 10_000 or abs(value) >= 1e7 else f"{value:,.0f}"
