"""Copy files without copying their bytes, where the file system can share them until one of the two is changed."""

import contextlib
import fcntl
import shutil

_FICLONE = 0x40049409
"""Linux: let a file share the blocks of another (ioctl_ficlone(2); Btrfs, XFS and others)."""


def copy_file(source: str, target: str) -> None:
    """Copy a file with its permissions and times. The two are independent, unlike hard links."""
    with contextlib.suppress(OSError), open(source, "rb") as old, open(target, "wb") as new:  # noqa: PTH123
        fcntl.ioctl(new, _FICLONE, old.fileno())
        shutil.copystat(source, target)
        return
    shutil.copy2(source, target)
