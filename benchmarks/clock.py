"""Stopwatches, and peak memory of processes and devices."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path


def synchronise(device: str) -> None:
    """Wait until the device has finished its work; does nothing for a CPU."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)


class Clock:
    """A stopwatch for one device: counts wall time inside ``with clock:``, in seconds.

    On a GPU a lap ends when the device has finished its work. `laps` holds the length of each lap.
    """

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        self.laps: list[float] = []
        self._start = 0.0

    def __enter__(self) -> Clock:
        synchronise(self.device)
        self._start = time.perf_counter()
        return self

    def __exit__(self, *exception: object) -> None:
        if exception[0] is None:  # synchronising after a CUDA error would raise another and hide it
            synchronise(self.device)
        self.laps.append(time.perf_counter() - self._start)

    @property
    def total(self) -> float:
        """Sum of all laps in seconds."""
        return sum(self.laps)


class PeakMemory:
    """Peak memory since this object was made, in bytes.

    On a GPU: memory allocated by torch on the device. On a CPU: the process's peak resident memory minus that at the
        start, so imported libraries don't count. Linux can reset an earlier peak (``clear_refs``); elsewhere a higher
        peak from before the start counts.
    """

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        if device.startswith("cuda"):
            import torch

            torch.cuda.init()  # resetting before initialisation is an error
            torch.cuda.reset_peak_memory_stats(device)
            return
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        self._start = resident_bytes()

    def bytes(self) -> int:
        """The peak so far."""
        if self.device.startswith("cuda"):
            import torch

            return int(torch.cuda.max_memory_allocated(self.device))
        return max(0, _peak_resident_bytes() - self._start)


def _peak_resident_bytes() -> int:
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace")
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    except (OSError, IndexError):
        pass
    try:
        import resource
    except ImportError:
        return resident_bytes()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def resident_bytes(pid: int | None = None) -> int:
    """Resident memory of a process (None: this one) in bytes; 0 if it has ended.

    Pages shared with other processes count in full."""
    pid = os.getpid() if pid is None else pid
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        pass
    try:
        import psutil
    except ImportError:
        return 0
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def descendants(pid: int, recursive: bool = True) -> list[int]:
    """Process ids of a process's children and, if recursive, of all that descend from them; empty if unknown."""
    try:
        import psutil
    except ImportError:
        return []
    try:
        return [child.pid for child in psutil.Process(pid).children(recursive)]
    except psutil.Error:
        return []
