"""How many tasks go through the network in one pass: an execution plan, never a different algorithm."""

from __future__ import annotations

from benchmarks.models import Network
from benchmarks.models.backbones import Conv4


def tasks_at_once(network: Network, device: str, tasks: int) -> int:
    """The number of tasks per pass for a network and a device.

    A batch of small products gains from every further task; convolutions with a weight per task are grouped
    convolutions, which on a CPU are best in small groups that stay in the cache (docs/performance.md)."""
    if device != "cpu" or not isinstance(network.backbone, Conv4):
        return tasks
    return min(tasks, 4 if network.input_shape[-1] <= 28 else 1)
