"""Write the page of `export_model`."""

from components.export_model.comparison import ModelOutput
from components.export_model.exported_files import ExportedFile, ModelExport
from shared.imaging.overlays import outline, to_rgb8
from shared.reporting.page import Page

_PANELS = 3
"""Images that are shown."""


def make_page(export: ModelExport, reference: ModelOutput, files: list[ExportedFile], remark: str) -> Page:
    """Show the comparison of each file with the weights, their speed, and the instances of both.

    reference: the weights' output; remark: what became of the files.
    """
    page = Page("export_model")
    page.text(f"{remark} Compared on {len(export.images)} images.")
    megapixels = sum(image.shape[0] * image.shape[1] for image in export.images) / 1e6
    header = ["", "precision", "largest difference", "Dice", "F1 of cells", "s per megapixel", "s to write", ""]
    rows: list[list[object]] = [["weights", "float32", "", "", "", reference.seconds / megapixels, "", ""]]
    for file in files:
        compared = [file.difference.max_difference, file.difference.dice, file.difference.f1]
        shown = ["" if value is None else value for value in compared]
        seconds = [file.output.seconds / megapixels, file.seconds]
        rows.append([file.name, file.precision, *shown, *seconds, "accepted" if file.accepted else file.rejection])
    page.table(header, rows)
    for i in range(min(_PANELS, len(reference.labels))):
        rgb = to_rgb8(export.images[i])
        drawn = [(outline(rgb, file.output.labels[i]), file.name) for file in files]
        page.images([(rgb, "input"), (outline(rgb, reference.labels[i]), "weights"), *drawn])
    return page
