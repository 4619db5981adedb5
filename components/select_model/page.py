"""The page of `gate`."""

from components.select_model.component import SelectModel
from components.select_model.evaluation_set import Assessed, EvaluationSet
from shared.imaging.overlays import outline, to_rgb8
from shared.reporting.page import Page

PANELS = 3


def make_page(
    stage: SelectModel, jury: EvaluationSet, judged: dict[str, Assessed], accepted: bool, remarks: list[str]
) -> Page:
    """What became of the candidate, the figures of everything judged, and pictures.

    judged: the candidate first, then what was best before, where there was a segmentor, and their average.
    """
    page = Page("select_model")
    if len(judged) == 1:
        page.text("The first segmentor: there is nothing to compare it with.")
    elif accepted:
        page.text(f"Round {stage.round_number} is better than what was best before, and is handed on.")
    else:
        page.text(
            f"Round {stage.round_number} is not better than what was best before"
            + (", but handed on, as was asked for." if stage.always_accept else "; the earlier one is handed on.")
        )
    header = ["", "edge score", "foreground, %", "Dice with the labels looked at", "F1 of instances"]
    rows = []
    for name, one in judged.items():
        found = one.assessment
        known = [value for value in (found.dice, found.f1) if value is not None]
        rows.append([name, found.edge, 100 * found.area, *known])
    page.table(header[: max(len(row) for row in rows)], rows)
    for i, image in enumerate(jury.images[:PANELS]):
        rgb = to_rgb8(image)
        page.images([(rgb, "input"), *((outline(rgb, one.masks[i], width=2), name) for name, one in judged.items())])
    for remark in remarks:
        page.text(remark)
    return page
