"""Declaration of `import_model`."""

from typing import Annotated, ClassVar, Literal

from shared.artifacts.kinds import Model
from shared.stage.declaration import External, Out, Stage


class ImportModel(Stage):
    """Bring a model of an earlier run into this one, verified.

    Its content digest stays the same, so the lineage of what is made with it leads back to the run that trained it.
    """

    image: ClassVar[str] = "cpu"

    source: Annotated[str, External] = ""
    """Path or uri of a Model artifact, such as `runs/mine/export-model/exported`. Empty: no model; the stages that take
    this one do without it."""
    model: Out[Model]
    """The same model."""
    kind: Literal["encoder", "segmentor", "classifier", "detector"]
    """What the model must be."""
