"""The device and threads a stage computes with."""

import os


def threads() -> int:
    """CPU threads: `CYTOLOOM_THREADS`, else the cores this process may use. Results depend on it; keep it fixed."""
    return int(os.environ.get("CYTOLOOM_THREADS") or len(os.sched_getaffinity(0)))


def device() -> str:
    """`CYTOLOOM_DEVICE`, else cuda where there is one, else cpu. Fixes torch's threads as well."""
    import torch

    torch.set_num_threads(threads())
    return os.environ.get("CYTOLOOM_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")
