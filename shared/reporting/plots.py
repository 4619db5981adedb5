"""Line plots as inline SVG. Without a plotting library a page stays small and needs no script."""

import html
import math
from collections.abc import Mapping, Sequence

_COLOURS = ["#2563a8", "#d1602f", "#3a8f4d", "#8b4aa8", "#b8902c", "#5b6b7b"]
_WIDTH, _HEIGHT = 520, 270
"""px; wider where the legend needs it."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 396, 34, 224
"""px: the frame that the lines are drawn in. The legend is right of it."""
_LETTER = 6
"""px: width of a letter in the legend, rounded up."""
_MAX_DOTS = 40
"""Points of a line up to which each is marked by a dot."""
Points = Sequence[tuple[float, float]]


def line_plot(title: str, lines: Mapping[str, Points], x: str = "", y: str = "") -> str:
    """Draw an SVG of at least 520 x 270 px with axes, round ticks and a legend.

    lines: name -> points (x, y). Points that are not finite are left out; a line of up to 40 points shows dots.
    x, y: labels of the axes.
    """
    kept = {name: [(float(a), float(b)) for a, b in points if _drawable(a, b)] for name, points in lines.items()}
    every = [point for points in kept.values() for point in points]
    if not every:
        return f"<p>{html.escape(title)}: nothing to plot</p>"
    axes = _Axes(_span([a for a, _ in every]), _span([b for _, b in every]))
    parts = [_text(_LEFT, 18, title, "font-size='13' font-weight='600'")]
    parts += axes.draw(x, y, whole=all(a.is_integer() for a, _ in every))
    for number, (name, points) in enumerate(kept.items()):
        parts += _line(name, [axes.place(a, b) for a, b in points], number)
    width = max(_WIDTH, _RIGHT + 35 + _LETTER * max(map(len, kept)))
    return (
        f"<svg class='plot' width='{width}' height='{_HEIGHT}' viewBox='0 0 {width} {_HEIGHT}' font-size='11' "
        f"fill='#1c2430' role='img' aria-label='{html.escape(title, quote=True)}'>{''.join(parts)}</svg>"
    )


class _Axes:
    """The frame of a plot, and where a point lies in it."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float]) -> None:
        """x, y: lowest and highest value."""
        self._x, self._y = x, y

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Return where the point (x, y) is drawn, px."""
        across, up = ((value - low) / (high - low) for value, (low, high) in ((x, self._x), (y, self._y)))
        return _LEFT + across * (_RIGHT - _LEFT), _BOTTOM - up * (_BOTTOM - _TOP)

    def draw(self, x: str, y: str, *, whole: bool) -> list[str]:
        """Draw grid, ticks and frame. x, y: labels; whole: x ticks at whole numbers only."""
        parts = []
        for value in ticks(*self._y):
            at = self.place(self._x[0], value)[1]
            parts.append(f"<path d='M{_LEFT},{at:.1f}H{_RIGHT}' stroke='#e3e8ee'/>")
            parts.append(_text(_LEFT - 6, at + 4, f"{value:.4g}", "text-anchor='end'"))
        for value in ticks(*self._x, whole=whole):
            at = self.place(value, self._y[0])[0]
            parts.append(_text(at, _BOTTOM + 16, f"{value:.6g}", "text-anchor='middle'"))
        parts.append(f"<path d='M{_LEFT},{_TOP}V{_BOTTOM}H{_RIGHT}' fill='none' stroke='#98a3b0'/>")
        parts.append(_text((_LEFT + _RIGHT) / 2, _BOTTOM + 34, x, "text-anchor='middle'"))
        middle = (_TOP + _BOTTOM) / 2
        return [*parts, _text(12, middle, y, f"text-anchor='middle' transform='rotate(-90 12 {middle})'")]


def _text(x: float, y: float, text: str, attributes: str = "") -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' {attributes}>{html.escape(text)}</text>"


def _line(name: str, points: Points, number: int) -> list[str]:
    """Draw a line through points in px, and its row of the legend."""
    colour = _COLOURS[number % len(_COLOURS)]
    path = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
    parts = [f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='1.8' stroke-linejoin='round'/>"]
    if len(points) <= _MAX_DOTS:
        parts += [f"<circle cx='{px:.1f}' cy='{py:.1f}' r='3' fill='{colour}'/>" for px, py in points]
    row = _TOP + 18 * number + 6
    parts.append(f"<path d='M{_RIGHT + 10},{row}h14' stroke='{colour}' stroke-width='2.5'/>")
    return [*parts, _text(_RIGHT + 29, row + 4, name)]


def ticks(low: float, high: float, count: int = 5, whole: bool = False) -> list[float]:
    """Return about `count` round numbers within [low, high], 1, 2 or 5 times a power of ten apart."""
    raw = (high - low) / count
    power = 10 ** math.floor(math.log10(raw))
    step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    if whole:
        step = max(1, round(step))
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _drawable(a: float, b: float) -> bool:
    return abs(a) < 1e30 and abs(b) < 1e30  # false for nan as well


def _span(values: Sequence[float]) -> tuple[float, float]:
    """Return lowest and highest value, apart even where all are equal."""
    low, high = min(values), max(values)
    if high - low > 1e-9 * max(abs(low), abs(high)):
        return low, high
    pad = abs(low) * 0.1 or 0.5
    return low - pad, high + pad
