import base64
import math
import re
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from page_dom import Dom

from shared.reporting.page import Fragment, Number, Page, escape, link, plots_in
from shared.reporting.plots import line_plot, ticks


@pytest.fixture
def page(nuclei):
    page = Page("title <&>")
    page.heading("a heading")
    page.text('<script>alert(1)</script> & "quotes"')
    page.table(["name", "n"], [["<b>", 3], ["x", 0.123456], ["y", float("nan")]])
    page.images([((nuclei[:64, :64, 0] // 256).astype(np.uint8), "<grey>")])
    page.plot("loss", {"train": [(0, 1.0), (1, 0.5), (2, math.nan), (3, math.inf)]}, x="step", y="loss")
    page.code("ls > /dev/null")
    return page


def test_a_page_is_well_formed_and_self_contained(page):
    dom = Dom(page.html())
    assert {"script", "link", "iframe", "b"}.isdisjoint(dom.tags)
    addresses = dom.values("src", "href")
    assert addresses and all(value.startswith("data:image/") for value in addresses)
    assert "url(" not in page.html() and "://" not in re.sub(r"base64,[^']*", "", page.html())
    assert "alert(1)" in dom.text and "ls > /dev/null" in dom.text


def test_numbers_have_four_digits_and_are_right_aligned(page):
    assert Dom(page.html()).table("name", "n") == [["<b>", "3"], ["x", "0.1235"], ["y", "nan"]]
    assert page.html().count("<td class='n'>") == 3
    page.table(["text"], [[Number("1,234 <")]])
    assert Dom(page.html()).tables[-1] == [["text"], ["1,234 <"]] and page.html().count("<td class='n'>") == 4


def test_only_fragments_are_put_on_a_page_as_they_are():
    page = Page("x")
    page.table(["a", "b"], [[link("<files>", "./a?b&c"), "<i>text</i>"]])
    page.heading("here", anchor="<at>")
    page.raw(Fragment("<hr/>"))
    dom = Dom(page.html())
    assert dom.tables[0][1] == ["<files>", "<i>text</i>"] and dom.values("href", "id") == ["./a?b&c", "<at>"]
    assert "hr" in dom.tags and "i" not in dom.tags
    assert escape(escape("a & b")) == "a &amp; b"


def test_a_small_image_comes_back_pixel_by_pixel():
    rgb = np.random.default_rng(0).integers(0, 255, (40, 30, 3), np.uint8)
    page = Page("x")
    page.images([(rgb, "noise")])
    data = re.search(r"data:image/png;base64,([^']+)", page.html())[1]
    back = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
    assert (back[..., ::-1] == rgb).all()


def test_a_large_image_is_scaled_down_and_compressed():
    rgb = np.random.default_rng(0).integers(0, 255, (3000, 4000, 3), np.uint8)
    page = Page("x")
    page.images([(rgb, "noise")], width=200)
    kind, data = re.search(r"data:image/(\w+);base64,([^']+)", page.html()).groups()
    back = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
    assert kind == "jpeg" and back.shape == (300, 400, 3) and len(data) < 200_000


def points_of(svg: str) -> list[tuple[float, float]]:
    line = ElementTree.fromstring(svg).find("polyline")
    return [tuple(map(float, point.split(","))) for point in line.get("points").split()]


def test_a_plot_draws_finite_points_in_proportion():
    svg = line_plot("t", {"a": [(0, 0), (1, 5), (2, 10), (3, math.nan), (4, math.inf)]})
    (x0, y0), (x1, y1), (x2, y2) = points_of(svg)
    assert x0 < x1 < x2 and y0 > y1 > y2
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2) and y0 - y1 == pytest.approx(y1 - y2, abs=0.2)


@pytest.mark.parametrize("value", [0, 3.7, -2, 1e-12, 1e12])
def test_a_constant_line_is_drawn_level(value):
    points = points_of(line_plot("t", {"a": [(0, value), (1, value)]}))
    assert points[0][1] == points[1][1] and 34 < points[0][1] < 224


def test_a_plot_is_as_wide_as_its_legend_needs():
    widths = [
        float(ElementTree.fromstring(line_plot("t", {name: [(0, 0), (1, 1)]})).get("width"))
        for name in ("a", "b" * 20, "c" * 40)
    ]
    assert widths[0] == 520 < widths[1] < widths[2] and widths[2] - widths[1] == 120


def test_nothing_to_plot_says_so():
    assert "nothing to plot" in line_plot("t", {"a": [(0, math.nan)]})
    assert "nothing to plot" in line_plot("t", {})


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.13, 0.92), (-5, 300), (1e-6, 3e-6), (0, 7), (99.5, 100)])
def test_ticks_are_round_and_inside(low, high):
    found = ticks(low, high)
    assert 3 <= len(found) <= 8 and low - 1e-9 <= found[0] and found[-1] <= high * (1 + 1e-9)
    mantissa = f"{found[1] - found[0]:e}"[0]
    assert mantissa in "125"
    assert all(value == int(value) for value in ticks(0, 3, whole=True))


def test_plots_are_found_again(page):
    (plot,) = plots_in(page.html())
    assert ElementTree.fromstring(plot).get("aria-label") == "loss"


def test_a_page_forbids_scripts_and_other_addresses_wherever_it_is_opened():
    policy = Dom(Page("x").html()).values("content")
    assert any("default-src 'none'" in text and "script" not in text for text in policy)


@pytest.mark.parametrize(
    "inside",
    [
        "<script>alert(1)</script>",
        "<path d='M0,0' onload='alert(1)'/>",
        "<a href='http://x'><text>y</text></a>",
        "<image href='http://x/y.png'/>",
        "<foreignObject><p>x</p></foreignObject>",
        "<path fill='URL(http://x)'/>",
        "<style>@import 'http://x'</style>",
        "<path style='background:red'/>",
        "<text>",
        "<!DOCTYPE x [<!ENTITY a 'b'>]>",
        "<meta http-equiv='refresh' content='0;url=http://x'/>",
    ],
)
def test_plots_of_a_page_from_elsewhere_hold_nothing_but_a_plot(inside):
    page = Page("x")
    page.plot("loss of <b>", {"train": [(0, 1.0), (1, 0.5)]}, x="step", y="loss")
    html = page.html()
    (plot,) = plots_in(html)
    assert Dom(plot).values("aria-label") == ["loss of <b>"] and "polyline" in Dom(plot).tags
    assert plots_in(html.replace("</svg>", f"{inside}</svg>")) == []
