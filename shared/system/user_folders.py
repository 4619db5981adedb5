"""Folders of the user for what is kept between runs. A container may run as a user without a name and a home."""

import os
import tempfile
from pathlib import Path

from shared.system.errors import UserError


def user_cache() -> Path:
    """Return the user's folder for this program below the home, or, where there is none, in the temporary folder.

    Raises UserError where another user owns that one.
    """
    home = os.environ.get("HOME") or ""
    if not home:
        try:
            home = str(Path.home())
        except RuntimeError:  # no such user
            home = ""
    if home and os.access(home, os.W_OK):
        return Path(home) / ".cache/cytoloom"
    folder = Path(tempfile.gettempdir()) / f"cytoloom-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise UserError(f"{folder}: another user's; set CYTOLOOM_CACHE and CYTOLOOM_CHECKPOINTS to folders of your own")
    return folder
