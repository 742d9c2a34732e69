"""How many tasks go through the network in one pass: an execution plan, never a different algorithm."""

from __future__ import annotations

import math

from benchmarks.models import Network
from benchmarks.models.backbones import Conv4

#: numbers of input that one pass of a convolutional network may have on a CPU, so that activations stay in the cache
CACHED_NUMBERS = 130_000


def tasks_at_once(network: Network, device: str, tasks: int, examples: int) -> int:
    """The number of tasks per pass, for ``tasks`` tasks of ``examples`` support and query examples each.

    A batch of small products gains from every further task; convolutions with a weight per task are grouped
    convolutions, which on a CPU are best in groups that stay in the cache (docs/performance.md)."""
    if device != "cpu" or not isinstance(network.backbone, Conv4):
        return tasks
    numbers = examples * math.prod(network.input_shape)
    return max(1, min(tasks, CACHED_NUMBERS // numbers))
