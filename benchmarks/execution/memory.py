"""The C library's memory: what tensors free is used again, for cells, the gate and micro-benchmarks alike."""

from __future__ import annotations

import ctypes

#: glibc's M_MMAP_MAX, M_TRIM_THRESHOLD and M_TOP_PAD: no mappings, return free space above 1 GiB, grow by 64 MiB
MALLOC_OPTIONS = {-4: 0, -1: 2**30, -2: 2**26}


def keep_freed_memory() -> bool:
    """Let the C library reuse memory freed by tensors; returns whether it accepts the options.

    glibc maps every large block again, so the kernel zeroes a network's activations page by page in each step
    (docs/decisions.md)."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return all(mallopt(option, value) == 1 for option, value in MALLOC_OPTIONS.items())
