"""The graph of a run as inline SVG: a box for each task, a frame for each nested round, arrows for what waits for what.

Tasks run from left to right; each nested pipeline, and what lies between two of them, is a row of its own.
"""

from dataclasses import dataclass

from pipelines.run_folder.record import RunRecord, TaskRecord
from shared.reporting.page import escape

BOX_W, BOX_H, GAP_X, GAP_Y, ROW_GAP, PAD, TITLE = 158, 54, 34, 14, 46, 14, 20
"""px"""
LOOKS = {
    "computed": ("#e7f3ea", "#3a8f4d", "computed"),
    "cached": ("#e8f0f9", "#2563a8", "from the cache"),
    "skipped": ("#f3f5f8", "#98a3b0", "passed through"),
    "failed": ("#fbe6e3", "#c0392b", "failed"),
    "running": ("#fdf3dc", "#b8902c", "running"),
    "waiting": ("#ffffff", "#c5ccd5", "not run"),
}
"""Look of a task -> fill, stroke, word in the legend."""


@dataclass
class Box:
    """Where one task is drawn, px from the top left."""

    x: int
    y: int


def appearance_of(task: TaskRecord) -> str:
    """Which of `LOOKS` a task has."""
    if task.state == "done":
        if task.skipped:
            return "skipped"
        return "computed" if task.origin in ("", "computed") else "cached"
    return {"failed": "failed", "running": "running"}.get(task.state, "waiting")


def arrows(record: RunRecord) -> list[tuple[str, str]]:
    """What waits for what, without the arrows that follow from others: everything waits for the images."""
    before: dict[str, set[str]] = {}
    for name, task in record.tasks.items():  # in an order in which they could have run
        direct = [other for other in task.after if other in before]
        before[name] = set(direct).union(*(before[other] for other in direct))
    return [
        (other, name)
        for name, task in record.tasks.items()
        for other in task.after
        if other in before and not any(other in before[third] for third in task.after if third != other)
    ]


def rows_of(record: RunRecord) -> list[tuple[str, list[list[str]]]]:
    """(group, columns of tasks) of each row, top to bottom; tasks of no nested pipeline form rows of their own."""
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
    """Task names with those of a group together, each group where the last of what it waits for is done."""
    left = list(record.tasks)
    ordered: list[str] = []
    while left:
        ready = [n for n in left if not set(record.tasks[n].after) & set(left)] or left[:1]
        last = ordered[-1].rpartition("/")[0] if ordered else ""
        ordered.append(next((n for n in ready if n.rpartition("/")[0] == last), ready[0]))
        left.remove(ordered[-1])
    return ordered


def drawing(record: RunRecord) -> str:
    """The whole picture with its legend."""
    boxes: dict[str, Box] = {}
    frames = []
    y = PAD
    right = 0
    for group, columns in rows_of(record):
        tall = max(len(column) for column in columns)
        height = tall * BOX_H + (tall - 1) * GAP_Y
        width = len(columns) * BOX_W + (len(columns) - 1) * GAP_X
        top = y + (TITLE + 8 if group else 0)
        for i, column in enumerate(columns):
            for j, name in enumerate(column):
                boxes[name] = Box(PAD * 2 + i * (BOX_W + GAP_X), top + j * (BOX_H + GAP_Y))
        if group:
            frames.append(_frame(group, y, width + 2 * PAD, top - y + height + PAD))
        y = top + height + (PAD if group else 0) + ROW_GAP
        right = max(right, width + 4 * PAD)
    height = y - ROW_GAP + PAD + 34
    parts = [*frames, *(_arrow(boxes[a], boxes[b]) for a, b in arrows(record))]
    parts += [_box(name, record.tasks[name], box) for name, box in boxes.items()]
    parts.append(_legend(record, height - 12))
    marker = (
        "<defs><marker id='tip' viewBox='0 0 8 8' refX='7' refY='4' markerWidth='7' markerHeight='7' orient='auto'>"
        "<path d='M0,0L8,4L0,8z' fill='#7b8794'/></marker></defs>"
    )
    return (
        f"<div class='scroll'><svg width='{right}' height='{height}' viewBox='0 0 {right} {height}' font-size='12' "
        f"fill='#1c2430' role='img' aria-label='graph of the run'>{marker}{''.join(parts)}</svg></div>"
    )


def _frame(group: str, y: int, width: int, height: int) -> str:
    return (
        f"<rect x='{PAD}' y='{y}' width='{width}' height='{height}' rx='8' fill='#fafbfc' stroke='#d5dbe2'/>"
        f"<text x='{PAD + 12}' y='{y + 18}' font-weight='600' fill='#55606e'>{escape(group)}</text>"
    )


def _box(name: str, task: TaskRecord, box: Box) -> str:
    fill, stroke, word = LOOKS[appearance_of(task)]
    dash = " stroke-dasharray='4 3'" if appearance_of(task) in ("skipped", "waiting") else ""
    seconds = f"{task.seconds:.1f} s" if task.seconds else ""
    note = {"computed": seconds, "cached": f"cached ({seconds} when made)"}.get(appearance_of(task), word)
    return (
        f"<g><title>{escape(name)}: {escape(task.state)}{escape(': ' + task.error if task.error else '')}</title>"
        f"<rect x='{box.x}' y='{box.y}' width='{BOX_W}' height='{BOX_H}' rx='6' fill='{fill}' stroke='{stroke}' "
        f"stroke-width='1.4'{dash}/>"
        f"<text x='{box.x + 11}' y='{box.y + 23}' font-weight='600' font-size='13'>"
        f"{escape(name.rpartition('/')[2])}</text>"
        f"<text x='{box.x + 11}' y='{box.y + 41}' fill='#55606e'>{escape(note)}</text></g>"
    )


def _arrow(a: Box, b: Box) -> str:
    middle = a.y + BOX_H // 2, b.y + BOX_H // 2
    if a.x + BOX_W <= b.x and abs(a.y - b.y) < 3 * BOX_H and b.y - a.y < ROW_GAP + BOX_H:  # in one row
        x0, x1 = a.x + BOX_W, b.x - 1
        bend = (x0 + x1) / 2
        path = f"M{x0},{middle[0]}C{bend},{middle[0]} {bend},{middle[1]} {x1},{middle[1]}"
    else:  # down into a later row
        x0, y0, x1, y1 = a.x + BOX_W // 2, a.y + BOX_H, b.x + BOX_W // 2, b.y - 1
        bend = y0 + (y1 - y0) // 2
        side = 1 if x1 > x0 else -1
        turn = min(12, abs(x1 - x0) // 2)
        path = (
            f"M{x0},{y0}V{bend - turn}Q{x0},{bend} {x0 + side * turn},{bend}H{x1 - side * turn}"
            f"Q{x1},{bend} {x1},{bend + turn}V{y1}"
        )
    return f"<path d='{path}' fill='none' stroke='#7b8794' stroke-width='1.4' marker-end='url(#tip)'/>"


def _legend(record: RunRecord, y: int) -> str:
    parts, x = [], 2 * PAD
    present = {appearance_of(task) for task in record.tasks.values()}
    for name, (fill, stroke, word) in LOOKS.items():
        if name in present:
            parts.append(f"<rect x='{x}' y='{y - 11}' width='14' height='14' rx='3' fill='{fill}' stroke='{stroke}'/>")
            parts.append(f"<text x='{x + 20}' y='{y}'>{word}</text>")
            x += 44 + 7 * len(word)
    return "".join(parts)
