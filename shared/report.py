"""Self-contained HTML pages: text, tables, pictures and plots in one file, without a script.

>>> page = Page("extract_features")
>>> page.text("64 images.")
>>> page.table(["key", "reason"], rows)
>>> page.images([(rgb, "input"), (overlay, "clusters")])
>>> page.plot("loss", {"train": [(0, 1.0), (1, 0.5)]}, x="step", y="loss")
>>> html = page.html()
"""

import base64
import html as escape_html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #1c2430; }
table { border-collapse: collapse; margin: .5rem 0 1rem; font-size: 14px; } td, th { padding: .2rem .7rem; text-align: left; border-bottom: 1px solid #dde3ea; }
td.n { text-align: right; font-variant-numeric: tabular-nums; } h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
figure { display: inline-block; margin: 0 .6rem .6rem 0; vertical-align: top; } figcaption { font-size: 13px; color: #55606e; max-width: 22rem; }
img { max-width: 100%; image-rendering: auto; } code, pre { background: #f3f5f8; border-radius: 3px; padding: .1rem .25rem; font-size: 13px; }
pre { padding: .6rem; overflow-x: auto; }
"""
COLOURS = ["#2563a8", "#d1602f", "#3a8f4d", "#8b4aa8", "#b8902c", "#5b6b7b"]


class Page:
    """Collects sections; `html()` returns the whole page. Everything given is escaped."""

    def __init__(self, title: str) -> None:
        self.title = title
        self._parts: list[str] = []

    def heading(self, text: str) -> None:
        """A section's heading."""
        self._parts.append(f"<h2>{escape(text)}</h2>")

    def text(self, text: str) -> None:
        """A paragraph."""
        self._parts.append(f"<p>{escape(text)}</p>")

    def code(self, text: str) -> None:
        """Preformatted text, such as a command."""
        self._parts.append(f"<pre>{escape(text)}</pre>")

    def raw(self, fragment: str) -> None:
        """An HTML or SVG fragment made by this project's own code."""
        self._parts.append(fragment)

    def table(self, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """A table; numbers are set right-aligned with four significant digits."""
        head = "".join(f"<th>{escape(name)}</th>" for name in header)
        body = "".join("<tr>" + "".join(_cell(value) for value in row) + "</tr>" for row in rows)
        self._parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")

    def images(self, images: Sequence[tuple["np.ndarray", str]], width: int = 320) -> None:
        """Pictures side by side: (H, W) or (H, W, 3) uint8, with captions. Wider ones are scaled down to 2 x `width`."""
        self._parts.append("<div>" + "".join(_figure(image, caption, width) for image, caption in images) + "</div>")

    def plot(self, title: str, lines: Mapping[str, Sequence[tuple[float, float]]], x: str = "", y: str = "") -> None:
        """A line plot as inline SVG: name -> points (x, y); points that are not finite are left out."""
        self._parts.append(line_plot(title, lines, x, y))

    def html(self) -> str:
        """The whole page."""
        return (
            f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{escape(self.title)}</title>"
            f"<style>{STYLE}</style></head><body><h1>{escape(self.title)}</h1>{''.join(self._parts)}</body></html>\n"
        )

    def save(self, path: Path) -> None:
        """Write the page to one file."""
        path.write_text(self.html(), encoding="utf-8")


def escape(text: Any) -> str:
    """Text safe inside HTML and its attributes."""
    return escape_html.escape(str(text), quote=True)


def _cell(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return f"<td>{escape(value)}</td>"
    return f"<td class='n'>{value if isinstance(value, int) else format(value, '.4g')}</td>"


def _figure(image: "np.ndarray", caption: str, width: int) -> str:
    import cv2

    scale = 2 * width / image.shape[1]
    if scale < 1:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    bgr = image if image.ndim == 2 else image[..., ::-1]
    data = base64.b64encode(cv2.imencode(".png", bgr)[1].tobytes()).decode()
    return (
        f"<figure><img width='{width}' alt='{escape(caption)}' src='data:image/png;base64,{data}'>"
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def line_plot(title: str, lines: Mapping[str, Sequence[tuple[float, float]]], x: str = "", y: str = "") -> str:
    """Inline SVG of 520 x 260 px with axes, ticks and a legend."""
    kept = {
        n: [(float(a), float(b)) for a, b in points if abs(a) < 1e30 and abs(b) < 1e30] for n, points in lines.items()
    }
    points = [point for line in kept.values() for point in line]
    if not points:
        return f"<p>{escape(title)}: nothing to plot</p>"
    (x0, x1), (y0, y1) = (_span([p[axis] for p in points]) for axis in (0, 1))
    left, right, top, bottom = 60, 400, 28, 220

    def at(px: float, py: float) -> str:
        return (
            f"{left + (px - x0) / (x1 - x0) * (right - left):.1f},{bottom - (py - y0) / (y1 - y0) * (bottom - top):.1f}"
        )

    parts = [f"<text x='{left}' y='16' font-weight='600'>{escape(title)}</text>"]
    parts.append(f"<path d='M{left},{top}V{bottom}H{right}' fill='none' stroke='#98a3b0'/>")
    for i in range(5):
        tx, ty = x0 + (x1 - x0) * i / 4, y0 + (y1 - y0) * i / 4
        px, py = left + (right - left) * i / 4, bottom - (bottom - top) * i / 4
        parts.append(f"<text x='{px}' y='{bottom + 16}' text-anchor='middle'>{tx:.4g}</text>")
        parts.append(f"<text x='{left - 6}' y='{py + 4}' text-anchor='end'>{ty:.3g}</text>")
    parts.append(f"<text x='{(left + right) / 2}' y='{bottom + 32}' text-anchor='middle'>{escape(x)}</text>")
    parts.append(f"<text x='{left}' y='{bottom + 32}' text-anchor='end'>{escape(y)}</text>")
    for i, (name, line) in enumerate(kept.items()):
        colour = COLOURS[i % len(COLOURS)]
        path = " ".join(at(*point) for point in line)
        parts.append(f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='1.6'/>")
        if len(line) <= 40:
            dots = (at(*point).split(",") for point in line)
            parts.extend(f"<circle cx='{cx}' cy='{cy}' r='2.4' fill='{colour}'/>" for cx, cy in dots)
        parts.append(f"<text x='{right + 12}' y='{top + 16 * i + 10}' fill='{colour}'>{escape(name)}</text>")
    return f"<svg width='520' height='260' font-size='11' fill='#1c2430' role='img'>{''.join(parts)}</svg>"


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)
