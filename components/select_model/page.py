"""Write the page of `select_model`."""

from components.select_model.evaluation_set import AssessedModel, EvaluationSet
from shared.imaging.overlays import outline, to_rgb8
from shared.reporting.page import Page

_PANELS = 3
"""Images that are shown."""


def make_page(evaluation_set: EvaluationSet, assessed: dict[str, AssessedModel], remarks: list[str]) -> Page:
    """Show the remarks, a table of the criteria, and pictures; assessed: name of each model -> its assessment."""
    page = Page("select_model")
    for remark in remarks:
        page.text(remark)
    header = ["", "edge score", "foreground, %", "Dice with the labels", "F1 of instances"]
    rows = []
    for name, model in assessed.items():
        found = model.assessment
        known = [value for value in (found.dice, found.f1) if value is not None]
        rows.append([name, found.edge_score, 100 * found.foreground_share, *known])
    page.table(header[: max(len(row) for row in rows)], rows)
    for i, image in enumerate(evaluation_set.images[:_PANELS]):
        rgb = to_rgb8(image)
        drawn = [(outline(rgb, model.masks[i], width=2), name) for name, model in assessed.items()]
        page.images([(rgb, "input"), *drawn])
    return page
