"""Build self-contained HTML pages: text, tables, images and plots in one file, without a script.

>>> page = Page("extract_features")
>>> page.text("64 images.")
>>> page.table(["key", "reason"], rows)
>>> page.images([(rgb, "input"), (overlay, "clusters")])
>>> page.plot("loss", {"train": [(0, 1.0), (1, 0.5)]}, x="step", y="loss")
>>> html = page.html()
"""

import base64
import html as escape_html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import tostring as to_text

from defusedxml import ElementTree

from shared.reporting.plots import line_plot

if TYPE_CHECKING:
    import numpy as np

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Noto Sans", sans-serif; margin: 0 auto; max-width: 76rem;
  padding: 1.5rem 1.5rem 4rem; color: #1c2430; background: #fff; }
h1 { font-size: 1.6rem; margin: .5rem 0; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; padding-bottom: .25rem; border-bottom: 2px solid #e3e8ee; }
h3 { font-size: 1rem; margin: 1.3rem 0 .4rem; }
p { max-width: 60rem; margin: .4rem 0 .8rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: .5rem 0 1rem; font-size: 14px; }
th { text-align: left; color: #55606e; font-weight: 600; }
td, th { padding: .25rem .8rem .25rem 0; border-bottom: 1px solid #e3e8ee; vertical-align: top; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
figure { display: inline-block; margin: 0 .7rem .7rem 0; vertical-align: top; }
figcaption { font-size: 13px; color: #55606e; overflow-wrap: anywhere; }
img { max-width: 100%; height: auto; border-radius: 2px; display: block; }
code, pre { background: #f3f5f8; border-radius: 3px; padding: .1rem .25rem; font-size: 12.5px; }
pre { padding: .6rem; overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere; }
svg text { font-family: inherit; }
summary { cursor: pointer; }
"""
_POLICY = (
    "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; img-src data:; "
    "style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'\">"
)
"""What a browser may do with a page, also one that is opened from a disk: show it, and follow its links."""
_PLOT_TAGS = {"svg", "path", "polyline", "circle", "text"}
_PLOT_ATTRIBUTES = {"class", "width", "height", "viewBox", "font-size", "font-weight", "fill", "role", "aria-label"}
_PLOT_ATTRIBUTES |= {"stroke", "stroke-width", "stroke-linejoin", "d", "points", "cx", "cy", "r", "x", "y"}
_PLOT_ATTRIBUTES |= {"text-anchor", "transform"}
"""What a plot of `line_plot` consists of."""
_MAX_PNG = 60_000
"""Bytes of a PNG above which an image becomes a JPEG, at full colour resolution."""


class Fragment(str):
    """HTML or SVG that is put on a page as it is. Only this project's own code makes it; anything else is escaped."""


class Number(str):
    """A number that is already text; a table aligns it right, as it does int and float."""


class Page:
    """Collects sections; `html()` returns the page. All text is escaped, except for a `Fragment`."""

    def __init__(self, title: str, style: str = "") -> None:
        self.title = title
        self._style = style
        self._parts: list[str] = []

    def heading(self, text: str, level: int = 2, anchor: str = "") -> None:
        """Add a heading; level 3 is for one within a section. anchor: id that links lead to."""
        at = f" id='{escape(anchor)}'" if anchor else ""
        self._parts.append(f"<h{level}{at}>{escape(text)}</h{level}>")

    def text(self, text: str) -> None:
        """Add a paragraph."""
        self._parts.append(f"<p>{escape(text)}</p>")

    def code(self, text: str) -> None:
        """Add preformatted text, such as a command."""
        self._parts.append(f"<pre>{escape(text)}</pre>")

    def raw(self, fragment: Fragment) -> None:
        """Add HTML or SVG as it is."""
        self._parts.append(fragment)

    def table(self, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Add a table. Numbers are right-aligned, with four significant digits."""
        numeric = [any(_is_number(row[i]) for row in rows if i < len(row)) for i in range(len(header))]
        head = "".join(
            f"<th{' class=n' if right else ''}>{escape(name)}</th>" for name, right in zip(header, numeric, strict=True)
        )
        body = "".join("<tr>" + "".join(_cell(value) for value in row) + "</tr>" for row in rows)
        self._parts.append(
            f"<div class='scroll'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        )

    def images(self, images: Sequence[tuple["np.ndarray", str]], width: int = 280) -> None:
        """Add images side by side with their captions: (H, W) or (H, W, 3) uint8. Four of the default width fit.

        width: px on the page; an image more than twice as wide is scaled down.
        """
        self._parts.append("<div>" + "".join(_figure(image, caption, width) for image, caption in images) + "</div>")

    def plot(self, title: str, lines: Mapping[str, Sequence[tuple[float, float]]], x: str = "", y: str = "") -> None:
        """Add a line plot; lines: name -> points (x, y). Points that are not finite are left out."""
        self._parts.append(line_plot(title, lines, x, y))

    def html(self) -> str:
        """Return the whole page."""
        return (
            f"<!doctype html><html lang='en'><head><meta charset='utf-8'>{_POLICY}<title>{escape(self.title)}</title>"
            f"<style>{_STYLE}{self._style}</style></head>\n<body><h1>{escape(self.title)}</h1>\n"
            + "\n".join(self._parts)
            + "</body></html>\n"
        )

    def save(self, path: Path) -> None:
        """Write the page to one file."""
        path.write_text(self.html(), encoding="utf-8")


def plots_in(html: str) -> list[Fragment]:
    """Return the plots of a page that `Page.html` made, written anew; a plot that holds anything else is left out."""
    found = re.findall(r"<svg class='plot'.*?</svg>", html, re.DOTALL)
    return [plot for text in found if (plot := _plain_plot(text)) is not None]


def _plain_plot(text: str) -> Fragment | None:
    """Write a plot anew from what it consists of; None where it holds what a plot does not."""
    try:
        root = ElementTree.fromstring(text)
    except Exception:  # errors of expat and of defusedxml
        return None
    for element in root.iter():
        is_plain = element.tag in _PLOT_TAGS and set(element.attrib) <= _PLOT_ATTRIBUTES
        if not is_plain or any("url(" in value.lower() or ":" in value for value in _drawn_values(element)):
            return None
    return Fragment(to_text(root, encoding="unicode"))


def _drawn_values(element: Any) -> list[str]:
    """Values of an element's attributes, but for its name for people."""
    return [value for name, value in element.attrib.items() if name != "aria-label"]


def escape(text: Any) -> Fragment:
    """Make text safe inside HTML and its attributes; a `Fragment` stays as it is."""
    return text if isinstance(text, Fragment) else Fragment(escape_html.escape(str(text), quote=True))


def link(text: str, address: str) -> Fragment:
    """Return a link. address: a URL whose special characters are quoted."""
    return Fragment(f"<a href='{escape(address)}'>{escape(text)}</a>")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, Number)) and not isinstance(value, bool)


def _cell(value: Any) -> str:
    if not _is_number(value):
        return f"<td>{escape(value)}</td>"
    return f"<td class='n'>{format(value, '.4g') if isinstance(value, float) else escape(value)}</td>"


def _figure(image: "np.ndarray", caption: str, width: int) -> str:
    import cv2

    scale = 2 * width / image.shape[1]
    if scale < 1:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    bgr = image if image.ndim == 2 else image[..., ::-1]
    kind, data = "png", cv2.imencode(".png", bgr)[1]
    if len(data) > _MAX_PNG:
        quality = [cv2.IMWRITE_JPEG_QUALITY, 85, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
        kind, data = "jpeg", cv2.imencode(".jpg", bgr, quality)[1]
    text = base64.b64encode(data.tobytes()).decode()
    return (
        f"<figure><img width='{width}' alt='{escape(caption)}' src='data:image/{kind};base64,{text}'>"
        f"<figcaption style='max-width:{width}px'>{escape(caption)}</figcaption></figure>"
    )
