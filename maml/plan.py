"""Which execution plan a model, a device and a budget are given: the rule, with the measurements behind it."""

from __future__ import annotations

import math

import torch

from benchmarks.models import Network
from benchmarks.models.backbones import MLP, Conv4
from benchmarks.plans import Plan

#: seconds that compiling saves per meta-step for each network pass (inner steps and queries), and seconds that it takes
#: for the first inner step and adds for each: careful guesses (0.0006 where 0.0008 was seen), not measured on a quiet
#: machine
SAVED_PER_PASS = 0.0006
COMPILING, COMPILING_PER_PASS = 12.0, 4.0
#: numbers of input that all passes of a convolutional network at once may have on a CPU
CACHED_NUMBERS = 130_000


def rule(
    network: Network, device: str, tasks: int, inner_steps: int, meta_steps: int, examples: int
) -> tuple[Plan, str]:
    """The plan for so many meta-steps to come, and in words why.

    tasks, inner_steps: of a meta-step. examples: support and queries of one task."""
    if device.startswith("cuda"):
        return Plan(tasks, mode="graph"), "launches are captured: a meta-step has many small ones"
    if isinstance(network.backbone, Conv4):
        threads = min(tasks, torch.get_num_threads())
        cached = CACHED_NUMBERS // (examples * math.prod(network.input_shape) * threads)
        at_once = max(1, min(cached, tasks // threads))
        return Plan(at_once, threads=threads), "as many tasks per pass as stay in the cache, passes in threads"
    if not isinstance(network.backbone, MLP):
        return Plan(tasks), "not compiled: what a module of torch's gains on a CPU is not known"
    passes = inner_steps + 1
    saved, spent = SAVED_PER_PASS * passes * meta_steps, COMPILING + COMPILING_PER_PASS * inner_steps
    sums = f"{meta_steps} meta-steps save about {saved:.0f} s, compiling takes {spent:.0f} s"
    if saved < spent:
        return Plan(tasks), f"not compiled: {sums}"
    return Plan(tasks, mode="compiled"), f"compiled: {sums}"
