"""Bounds on seconds that mean the same on a slow machine and on a quick one."""

from __future__ import annotations

import json
import time

# CPU seconds of `_work` on the machine for which the bounds in these tests are written: a laptop of these years.
_USUAL = 0.025


def _work() -> None:
    for number in range(100):
        names = {f"name {index}": index * number % 7 for index in range(400)}
        json.loads(json.dumps(sorted(names.items(), key=str)))


def times_slower() -> float:
    """How many times longer than usual a fixed piece of Python takes on this machine now; at least 1."""
    fastest = float("inf")
    for _ in range(5):
        start = time.process_time()
        _work()
        fastest = min(fastest, time.process_time() - start)
    return max(1.0, fastest / _USUAL)
