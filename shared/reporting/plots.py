"""Line plots as inline SVG, without a plotting library: a page stays small and needs no script."""

import html
import math
from collections.abc import Mapping, Sequence

COLOURS = ["#2563a8", "#d1602f", "#3a8f4d", "#8b4aa8", "#b8902c", "#5b6b7b"]
WIDTH, HEIGHT = 520, 270
LEFT, RIGHT, TOP, BOTTOM = 58, 396, 34, 224
"""px: the frame that the lines are drawn in; the legend stands right of it."""
Points = Sequence[tuple[float, float]]


def line_plot(title: str, lines: Mapping[str, Points], x: str = "", y: str = "") -> str:
    """An SVG of 520 x 270 px with axes, round ticks and a legend: name -> points (x, y).

    Points that are not finite are left out; a line of up to 40 points shows them as dots.
    """
    kept = {name: [(float(a), float(b)) for a, b in points if _shown(a, b)] for name, points in lines.items()}
    every = [point for points in kept.values() for point in points]
    if not every:
        return f"<p>{html.escape(title)}: nothing to plot</p>"
    (x0, x1), (y0, y1) = (_span([point[axis] for point in every]) for axis in (0, 1))

    def at_x(value: float) -> float:
        return LEFT + (value - x0) / (x1 - x0) * (RIGHT - LEFT)

    def at_y(value: float) -> float:
        return BOTTOM - (value - y0) / (y1 - y0) * (BOTTOM - TOP)

    parts = [f"<text x='{LEFT}' y='18' font-size='13' font-weight='600'>{html.escape(title)}</text>"]
    for value in ticks(y0, y1):
        parts.append(f"<path d='M{LEFT},{at_y(value):.1f}H{RIGHT}' stroke='#e3e8ee'/>")
        parts.append(f"<text x='{LEFT - 6}' y='{at_y(value) + 4:.1f}' text-anchor='end'>{value:.4g}</text>")
    whole = all(float(point[0]).is_integer() for point in every)
    for value in ticks(x0, x1, whole=whole):
        parts.append(f"<text x='{at_x(value):.1f}' y='{BOTTOM + 16}' text-anchor='middle'>{value:.6g}</text>")
    parts.append(f"<path d='M{LEFT},{TOP}V{BOTTOM}H{RIGHT}' fill='none' stroke='#98a3b0'/>")
    parts.append(f"<text x='{(LEFT + RIGHT) / 2}' y='{BOTTOM + 34}' text-anchor='middle'>{html.escape(x)}</text>")
    middle = (TOP + BOTTOM) / 2
    parts.append(
        f"<text x='12' y='{middle}' text-anchor='middle' transform='rotate(-90 12 {middle})'>{html.escape(y)}</text>"
    )
    for i, (name, points) in enumerate(kept.items()):
        parts += _line(name, [(at_x(a), at_y(b)) for a, b in points], i)
    return (
        f"<svg class='plot' width='{WIDTH}' height='{HEIGHT}' viewBox='0 0 {WIDTH} {HEIGHT}' font-size='11' "
        f"fill='#1c2430' role='img' aria-label='{html.escape(title, quote=True)}'>{''.join(parts)}</svg>"
    )


def _line(name: str, points: Points, number: int) -> list[str]:
    colour = COLOURS[number % len(COLOURS)]
    path = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
    parts = [f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='1.8' stroke-linejoin='round'/>"]
    if len(points) <= 40:
        parts += [f"<circle cx='{px:.1f}' cy='{py:.1f}' r='3' fill='{colour}'/>" for px, py in points]
    row = TOP + 18 * number + 6
    parts.append(f"<path d='M{RIGHT + 10},{row}h14' stroke='{colour}' stroke-width='2.5'/>")
    parts.append(f"<text x='{RIGHT + 29}' y='{row + 4}'>{html.escape(name)}</text>")
    return parts


def ticks(low: float, high: float, count: int = 5, whole: bool = False) -> list[float]:
    """About `count` round numbers (1, 2 or 5 times a power of ten apart) within [low, high]."""
    raw = (high - low) / count
    power = 10 ** math.floor(math.log10(raw))
    step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    if whole:
        step = max(1, round(step))
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _shown(a: float, b: float) -> bool:
    return abs(a) < 1e30 and abs(b) < 1e30  # false for nan as well


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    if high - low > 1e-9 * max(abs(low), abs(high)):
        return low, high
    pad = abs(low) * 0.1 or 0.5
    return low - pad, high + pad
