"""The device and threads a stage computes with."""

import os
from functools import cache

from shared.system.errors import UserError
from shared.system.log import log

THREADS = "CYTOLOOM_THREADS"
LIBRARIES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Where NumPy's, PyTorch's and faiss's libraries find how many threads to use, at the moment they are loaded."""


def threads() -> int:
    """CPU threads: `CYTOLOOM_THREADS`, else the cores this process may use. Results depend on it; keep it fixed.

    Raises UserError where it is no number of threads.
    """
    asked = os.environ.get(THREADS)
    if not asked:
        return len(os.sched_getaffinity(0))
    if not asked.isdecimal() or not int(asked):
        raise UserError(f"{THREADS} is {asked!r}; give a whole number from 1 on, or unset it")
    return int(asked)


def library_threads(count: int) -> dict[str, str]:
    """Environment of a process in which every library is to compute with `count` threads."""
    return dict.fromkeys(LIBRARIES, str(count))


def device() -> str:
    """`CYTOLOOM_DEVICE`, else cuda where there is one, else cpu; says which. Fixes torch's threads as well."""
    import torch

    torch.set_num_threads(threads())
    where = os.environ.get("CYTOLOOM_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")
    if where.startswith("cuda"):
        if not torch.cuda.is_available():
            raise UserError(f"CYTOLOOM_DEVICE is {where}, and PyTorch finds no GPU; unset it, or say cpu")
        log.info("computing on %s (%s)", torch.cuda.get_device_name(where), where)
    else:
        log.info("computing on the CPU, %d threads", threads())
    return where


@cache
def faiss_gpus() -> int:
    """How many GPUs faiss has, 0 where `CYTOLOOM_DEVICE` is cpu or faiss was built without them; says which."""
    import faiss

    count = 0 if os.environ.get("CYTOLOOM_DEVICE") == "cpu" else int(faiss.get_num_gpus())
    log.info("clustering on %s", f"{count} GPUs" if count else f"the CPU, {threads()} threads")
    return count
