"""Memory of a process: on Linux, freed blocks stay with it.

A training step frees every activation and asks for the same sizes a moment later. glibc hands large blocks back to the
kernel in between, and every page of theirs then costs a fault: on two cores a ninth of a PPO update on a 4-layer,
256-wide GPT-2. Leaves out GPUs, where PyTorch keeps freed blocks itself, and other operating systems.
"""

import ctypes
import sys

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3  # of mallopt(3)


def keep_freed_blocks() -> bool:
    """Ask glibc to keep what is freed for the next request; False where there is no glibc. Peak memory is the same."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl has none
        return False
    settings = ((MMAP_THRESHOLD, 2**30), (TRIM_THRESHOLD, 2**31 - 1), (TOP_PAD, 2**26))
    return all(mallopt(name, value) for name, value in settings)
