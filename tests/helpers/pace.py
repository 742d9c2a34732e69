"""Bounds on seconds that mean the same on a slow machine and on a quick one."""

from benchmarks import machine


def times_slower() -> float:
    """How many times longer than usual a fixed piece of Python takes on this machine now; at least 1."""
    return max(1.0, machine.pace())
