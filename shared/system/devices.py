"""Choose the device and the number of threads that a stage computes with."""

import os
from functools import cache

from shared.system.errors import UserError
from shared.system.log import log

THREADS = "CYTOLOOM_THREADS"
"""Environment variable: number of CPU threads."""
_LIBRARY_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Environment variables that the libraries of NumPy, PyTorch and faiss read when they are loaded."""
KERNEL_VARIABLES = (
    "ATEN_CPU_CAPABILITY",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "NPY_DISABLE_CPU_FEATURES",
    "NPY_ENABLE_CPU_FEATURES",
    "ONEDNN_MAX_CPU_ISA",
    "OPENBLAS_CORETYPE",
)
"""Environment variables by which these libraries choose their kernels for the processor. Results depend on them in
their last digits, so a container gets those of the machine.
"""


def threads() -> int:
    """Return the number of CPU threads: `CYTOLOOM_THREADS`, else the cores that this process may use.

    Results depend on it in their last digits; keep it fixed. Raises UserError where the variable is no such number.
    """
    text = os.environ.get(THREADS)
    if not text:
        return len(os.sched_getaffinity(0))
    if not text.isdecimal() or not int(text):
        raise UserError(f"{THREADS}: {text!r} is not a number of threads; give 1 or more, or unset it")
    return int(text)


def library_threads(count: int) -> dict[str, str]:
    """Return the environment of a process in which every library computes with `count` threads."""
    return dict.fromkeys(_LIBRARY_VARIABLES, str(count))


def device() -> str:
    """Return `CYTOLOOM_DEVICE`, else cuda where there is a GPU, else cpu; log it, and set torch's number of threads."""
    import torch

    torch.set_num_threads(threads())
    name = os.environ.get("CYTOLOOM_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda"):
        if not torch.cuda.is_available():
            raise UserError(f"CYTOLOOM_DEVICE: {name}, but PyTorch finds no GPU; unset it, or set it to cpu")
        log.info("computing on %s (%s)", torch.cuda.get_device_name(name), name)
    else:
        log.info("computing on the CPU, %d threads", threads())
    return name


@cache
def faiss_gpus() -> int:
    """Return the number of GPUs that faiss can use, and log it.

    It is 0 where `CYTOLOOM_DEVICE` is cpu or faiss was built for the CPU.
    """
    import faiss

    count = 0 if os.environ.get("CYTOLOOM_DEVICE") == "cpu" else int(faiss.get_num_gpus())
    log.info("clustering on %s", f"{count} GPUs" if count else f"the CPU, {threads()} threads")
    return count
