"""Open the artifacts of a run that its pages show: images, truth, predictions and pseudo-labels.

They are found by their kind, and label sets by their origin, whatever tasks made them.
"""

from collections.abc import Iterator
from pathlib import Path

from pipelines.reporting.pictures.image_labels import LabelledImages
from pipelines.run_folder.folder import folder_within
from pipelines.run_folder.record import RunRecord
from shared.artifacts.image_set import ImageReader
from shared.artifacts.kinds import ImageSet, LabelSet
from shared.artifacts.label_set import NOTE_HAND_LABELLED, LabelReader


class RunArtifacts:
    """Readers of a run's artifacts; None where a run has no such artifact yet."""

    def __init__(self, run: Path, record: RunRecord) -> None:
        """Raises UserError or ArtifactError where an artifact is outside the run folder or damaged."""
        self.images: ImageReader | None = None
        """The first image set."""
        self.truth: LabelledImages | None = None
        """The first label set of origin truth that is not empty."""
        self.predictions: LabelledImages | None = None
        """The last label set of origin prediction."""
        self.pseudo: dict[str, LabelReader] = {}
        """Task such as `em-0/cluster` -> its label set of origin pseudo."""
        for _, folder in finished_outputs(run, record, ImageSet):
            self.images = self.images or ImageReader(folder)
        for task, folder in finished_outputs(run, record, LabelSet):
            reader = LabelReader(folder)
            if reader.info.origin == "truth" and self.truth is None and reader.contents():
                self.truth = LabelledImages(reader)
            elif reader.info.origin == "prediction":
                self.predictions = LabelledImages(reader)
            elif reader.info.origin == "pseudo":
                self.pseudo[task] = reader

    def learned(self) -> set[str]:
        """Keys of the images whose labels by a person were learned from."""
        return {key for reader in self.pseudo.values() for key in reader.info.notes.get(NOTE_HAND_LABELLED, [])}

    def predicted(self) -> set[str]:
        """Keys of the images that are there with their predictions."""
        return set(self.images.entries) & set(self.predictions.keys()) if self.images and self.predictions else set()


def finished_outputs(run: Path, record: RunRecord, kind: type) -> Iterator[tuple[str, Path]]:
    """Yield (task, folder) of the artifacts of one kind that a run computed, in the order of the run."""
    for name, task in record.tasks.items():
        for output in task.outputs.values():
            if output.kind == kind.__name__ and task.state == "done" and not task.skipped:
                folder = folder_within(run, output.path)
                if folder.is_dir():
                    yield name, folder
