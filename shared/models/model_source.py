"""Open the Model artifact at a path or uri that a user gives."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shared.artifacts.kinds import Model
from shared.artifacts.manifest import verify
from shared.system.errors import ArtifactError


@contextmanager
def model_at(location: str, flag: str) -> Iterator[Path]:
    """Yield the verified artifact at a path, or a temporary copy of the one at a uri.

    Raises ArtifactError where it is missing, damaged, of another type or version. flag: named in the message.
    """
    with tempfile.TemporaryDirectory(prefix="cytoloom-") as temporary:
        folder = Path(location)
        try:
            if "://" in location:
                from shared import store

                folder = Path(temporary, "model")
                store.fetch(location, folder)
            verify(folder, Model)
        except ArtifactError as error:
            raise ArtifactError(f"{flag}: {str(error).replace(str(folder), location)}") from error
        yield folder
