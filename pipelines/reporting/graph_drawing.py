"""Draw the graph of a run as inline SVG: a box for each task, a frame for each nested pipeline, arrows for the order.

Tasks run from left to right. Each nested pipeline is a row of its own, and so are the tasks between two of them.
"""

from dataclasses import dataclass, field

from pipelines.run_folder.record import RunRecord, TaskRecord
from shared.reporting.page import escape

_BOX_W, _BOX_H, _GAP_X, _GAP_Y, _ROW_GAP, _PAD, _TITLE = 158, 54, 34, 14, 46, 14, 20
"""px"""
_LEGEND_HEIGHT = 34
"""px"""


@dataclass(frozen=True)
class _Style:
    fill: str
    stroke: str
    legend: str
    dashed: bool = False


_STYLES = {
    "computed": _Style("#e7f3ea", "#3a8f4d", "computed"),
    "cached": _Style("#e8f0f9", "#2563a8", "from the cache"),
    "skipped": _Style("#f3f5f8", "#98a3b0", "passed through", dashed=True),
    "failed": _Style("#fbe6e3", "#c0392b", "failed"),
    "running": _Style("#fdf3dc", "#b8902c", "running"),
    "waiting": _Style("#ffffff", "#c5ccd5", "not run", dashed=True),
}
"""Appearance of a task -> how it is drawn."""


@dataclass(frozen=True)
class _Box:
    """Upper left corner of a task's box, px."""

    x: int
    y: int


def appearance(task: TaskRecord) -> str:
    """Return how a task appears: computed, cached, skipped, failed, running or waiting."""
    if task.state == "done":
        if task.skipped:
            return "skipped"
        return "computed" if task.origin in ("", "computed") else "cached"
    return {"failed": "failed", "running": "running"}.get(task.state, "waiting")


def arrows(record: RunRecord) -> list[tuple[str, str]]:
    """Return (task, task that waits for it), without the pairs that follow from others (transitive reduction)."""
    before: dict[str, set[str]] = {}
    for name, task in record.tasks.items():  # predecessors come first
        direct = [other for other in task.after if other in before]
        before[name] = set(direct).union(*(before[other] for other in direct))
    return [
        (other, name)
        for name, task in record.tasks.items()
        for other in task.after
        if other in before and not any(other in before[third] for third in task.after if third != other)
    ]


def rows_of(record: RunRecord) -> list[tuple[str, list[list[str]]]]:
    """Return (nested pipeline or empty, columns of tasks) of each row, top to bottom."""
    rows: list[tuple[str, list[list[str]]]] = []
    for name in _by_group(record):
        group = name.rpartition("/")[0]
        if not rows or rows[-1][0] != group:
            rows.append((group, []))
        columns = rows[-1][1]
        inside = {task: i for i, column in enumerate(columns) for task in column}
        at = max((inside[other] + 1 for other in record.tasks[name].after if other in inside), default=0)
        while len(columns) <= at:
            columns.append([])
        columns[at].append(name)
    return rows


def _by_group(record: RunRecord) -> list[str]:
    """Sort task names so that a nested pipeline's are together, after all that they wait for."""
    left = list(record.tasks)
    ordered: list[str] = []
    while left:
        ready = [n for n in left if not set(record.tasks[n].after) & set(left)] or left[:1]
        last = ordered[-1].rpartition("/")[0] if ordered else ""
        ordered.append(next((n for n in ready if n.rpartition("/")[0] == last), ready[0]))
        left.remove(ordered[-1])
    return ordered


@dataclass
class _Layout:
    """Where everything is drawn, px."""

    boxes: dict[str, _Box] = field(default_factory=dict)
    frames: list[str] = field(default_factory=list)
    """SVG of the frames around nested pipelines."""
    width: int = 0
    height: int = _PAD

    def add_row(self, group: str, columns: list[list[str]]) -> None:
        """Put a row of tasks below what is there."""
        tallest = max(len(column) for column in columns)
        height = tallest * _BOX_H + (tallest - 1) * _GAP_Y
        width = len(columns) * _BOX_W + (len(columns) - 1) * _GAP_X
        top = self.height + (_TITLE + 8 if group else 0)
        for i, column in enumerate(columns):
            for j, name in enumerate(column):
                self.boxes[name] = _Box(_PAD * 2 + i * (_BOX_W + _GAP_X), top + j * (_BOX_H + _GAP_Y))
        if group:
            self.frames.append(_frame(group, self.height, width + 2 * _PAD, top - self.height + height + _PAD))
        self.height = top + height + (_PAD if group else 0) + _ROW_GAP
        self.width = max(self.width, width + 4 * _PAD)


def drawing(record: RunRecord) -> str:
    """Draw the graph with its legend."""
    layout = _Layout()
    for group, columns in rows_of(record):
        layout.add_row(group, columns)
    width, height = layout.width, layout.height - _ROW_GAP + _PAD + _LEGEND_HEIGHT
    parts = [*layout.frames, *(_arrow(layout.boxes[a], layout.boxes[b]) for a, b in arrows(record))]
    parts += [_box(name, record.tasks[name], box) for name, box in layout.boxes.items()]
    parts.append(_legend(record, height - 12))
    marker = (
        "<defs><marker id='tip' viewBox='0 0 8 8' refX='7' refY='4' markerWidth='7' markerHeight='7' orient='auto'>"
        "<path d='M0,0L8,4L0,8z' fill='#7b8794'/></marker></defs>"
    )
    return (
        f"<div class='scroll'><svg width='{width}' height='{height}' viewBox='0 0 {width} {height}' font-size='12' "
        f"fill='#1c2430' role='img' aria-label='graph of the run'>{marker}{''.join(parts)}</svg></div>"
    )


def _frame(group: str, y: int, width: int, height: int) -> str:
    return (
        f"<rect x='{_PAD}' y='{y}' width='{width}' height='{height}' rx='8' fill='#fafbfc' stroke='#d5dbe2'/>"
        f"<text x='{_PAD + 12}' y='{y + 18}' font-weight='600' fill='#55606e'>{escape(group)}</text>"
    )


def _box(name: str, task: TaskRecord, box: _Box) -> str:
    style = _STYLES[appearance(task)]
    dash = " stroke-dasharray='4 3'" if style.dashed else ""
    seconds = f"{task.seconds:.1f} s" if task.seconds else ""
    note = {"computed": seconds, "cached": f"cached ({seconds} when made)"}.get(appearance(task), style.legend)
    return (
        f"<g><title>{escape(name)}: {escape(task.state)}{escape(': ' + task.error if task.error else '')}</title>"
        f"<rect x='{box.x}' y='{box.y}' width='{_BOX_W}' height='{_BOX_H}' rx='6' fill='{style.fill}' "
        f"stroke='{style.stroke}' stroke-width='1.4'{dash}/>"
        f"<text x='{box.x + 11}' y='{box.y + 23}' font-weight='600' font-size='13'>"
        f"{escape(name.rpartition('/')[2])}</text>"
        f"<text x='{box.x + 11}' y='{box.y + 41}' fill='#55606e'>{escape(note)}</text></g>"
    )


def _arrow(a: _Box, b: _Box) -> str:
    middle = a.y + _BOX_H // 2, b.y + _BOX_H // 2
    if a.x + _BOX_W <= b.x and abs(a.y - b.y) < 3 * _BOX_H and b.y - a.y < _ROW_GAP + _BOX_H:  # in one row
        x0, x1 = a.x + _BOX_W, b.x - 1
        bend = (x0 + x1) / 2
        path = f"M{x0},{middle[0]}C{bend},{middle[0]} {bend},{middle[1]} {x1},{middle[1]}"
    else:  # down into a later row
        x0, y0, x1, y1 = a.x + _BOX_W // 2, a.y + _BOX_H, b.x + _BOX_W // 2, b.y - 1
        bend = y0 + (y1 - y0) // 2
        side = 1 if x1 > x0 else -1
        turn = min(12, abs(x1 - x0) // 2)
        path = (
            f"M{x0},{y0}V{bend - turn}Q{x0},{bend} {x0 + side * turn},{bend}H{x1 - side * turn}"
            f"Q{x1},{bend} {x1},{bend + turn}V{y1}"
        )
    return f"<path d='{path}' fill='none' stroke='#7b8794' stroke-width='1.4' marker-end='url(#tip)'/>"


def _legend(record: RunRecord, y: int) -> str:
    parts, x = [], 2 * _PAD
    present = {appearance(task) for task in record.tasks.values()}
    for style in (style for name, style in _STYLES.items() if name in present):
        colours = f"fill='{style.fill}' stroke='{style.stroke}'"
        parts.append(f"<rect x='{x}' y='{y - 11}' width='14' height='14' rx='3' {colours}/>")
        parts.append(f"<text x='{x + 20}' y='{y}'>{style.legend}</text>")
        x += 44 + 7 * len(style.legend)
    return "".join(parts)
