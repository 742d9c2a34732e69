"""Costs that are counted and not timed: operations, launches and memory of one step; and two ceilings of the machine.

The functions take a callable that does one step. `Counter` applies them to the implementations of a setting.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.api import Episodes, Parameters
from benchmarks.clock import Clock
from benchmarks.cost import peers
from benchmarks.cost.peers.adapter import Adapter, Settings
from benchmarks.cost.work import Work

Step = Callable[[], Any]

#: events of CUDA's driver and runtime that start a kernel
LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx", "cudaGraphLaunch")

#: by kind of device: rows and columns of the matrices in `ceilings`, and numbers in its copy
MATRIX, COPIED = {"cpu": 1024, "cuda": 8192}, {"cpu": 16 * 2**20, "cuda": 256 * 2**20}
#: seconds after which `ceilings` repeats neither any more
CEILING_SECONDS = 2.0


class Counter:
    """Counts the steps of all implementations of a setting.

    Floating-point operations are those of the plain loop over tasks, once per order, however a step is carried out: of
    one task, times the number of tasks. For learners that the loop lacks, they are those of our own, task by task."""

    def __init__(self, work: Work, parameters: Parameters, episodes: Episodes, device: str) -> None:
        self.work, self.parameters, self.episodes, self.device = work, parameters, episodes, device
        self._flops: dict[Settings, int] = {}

    def count(self, adapter: Adapter, settings: Settings, step: Step) -> dict[str, Any]:
        """Columns of the row: ``flops``, ``peak_bytes``, ``operations`` and ``launches``; the last two are left out
        where torch does not see the implementation's operations. ``step`` must have been called before, so that its
        lasting allocations exist."""
        if settings not in self._flops:
            self._flops[settings] = self._flops_of(settings)
        found: dict[str, Any] = {"flops": self._flops[settings]}
        own_peak = adapter.peak_bytes()
        if not adapter.counted:
            return {**found, "peak_bytes": own_peak}
        alone, threads = adapter.in_one_thread()
        if threads > 1:
            step = self.work.stepper(alone, self.parameters, self.episodes, settings)
            step()
        if own_peak:
            peak, found["operations"] = own_peak, operations(step)
        else:
            peak, found["operations"] = peak_and_operations(step, self.device)
        # every thread may hold as much as one does, so this is an upper bound
        found["peak_bytes"] = threads * peak
        found["launches"] = launches(step, self.device)
        return found

    def _flops_of(self, settings: Settings) -> int:
        if settings.learner != "maml":
            return flops(self.work.stepper(peers.load("ours", "one"), self.parameters, self.episodes, settings))
        one = Episodes(self.episodes.support[:1], self.episodes.query[:1])
        of_one = flops(self.work.stepper(peers.load("loop"), self.parameters, one, settings))
        return of_one * len(self.episodes.support)


def _convolution_backward(
    grad_output: tuple[int, ...],
    x: tuple[int, ...],
    weight: tuple[int, ...],
    _bias: Any,
    _stride: Any,
    _padding: Any,
    _dilation: Any,
    transposed: bool,
    _output_padding: Any,
    _groups: int,
    output_mask: list[bool],
    out_shape: Any = None,
) -> int:
    """Each of the two gradients of a convolution has as many multiplications as the convolution itself. The formula of
    `torch.utils.flop_counter` counts the weight gradient of a grouped one once for every pair of groups."""
    positions = math.prod((x if transposed else grad_output)[2:])
    forward = 2 * x[0] * positions * math.prod(weight)
    return forward * (bool(output_mask[0]) + bool(output_mask[1]))


def flops(step: Step) -> int:
    """Floating-point operations of matrix products and convolutions (a multiplication and an addition are two)."""
    formulas = {torch.ops.aten.convolution_backward: _convolution_backward}
    with FlopCounterMode(display=False, custom_mapping=formulas) as counter:
        step()
    return int(counter.get_total_flops())


class _Dispatched(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        self.count += 1
        return function(*arguments, **(keywords or {}))


def operations(step: Step) -> int:
    """ATen operations that reach the dispatcher's backend: forward, backward and the update."""
    with _Dispatched() as counter:
        step()
    return counter.count


def saved_bytes(step: Step) -> int:
    """Bytes of the distinct storages that autograd saves for a backward pass, over the whole step.

    Parameters count where they are saved. A first-order step that kept graphs of its inner gradients would show."""
    storages: dict[int, tuple[Tensor, int]] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        # keep the tensor, so that its address is not reused
        storages.setdefault(storage.data_ptr(), (tensor.detach(), storage.nbytes()))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        step()
    return sum(size for _, size in storages.values())


def peak_bytes(step: Step, device: str = "cpu") -> int:
    """The most memory that a step holds at once, beyond the memory held before it.

    On a CPU: the allocations that torch's profiler logs, without the buffers that libraries below torch (oneDNN)
    allocate themselves. On CUDA: the peak of the caching allocator."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        torch.cuda.synchronize(device)
        return int(torch.cuda.max_memory_allocated(device)) - before
    held = peak = 0
    memory = [event for event in _events(step, profile_memory=True) if event.name() == "[memory]"]
    for event in sorted(memory, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def peak_and_operations(step: Step, device: str = "cpu") -> tuple[int, int]:
    """`peak_bytes` and `operations` of the same step: counting allocates nothing."""
    counted: list[int] = []
    peak = peak_bytes(lambda: counted.append(operations(step)), device)
    return peak, counted[0]


def launches(step: Step, device: str) -> int | None:
    """CUDA kernels (or graphs) that a step starts; None on a CPU."""
    if not device.startswith("cuda"):
        return None
    return sum(event.name() in LAUNCHES for event in _events(step, cuda=True))


def _events(step: Step, cuda: bool = False, profile_memory: bool = False) -> list[Any]:
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities, profile_memory=profile_memory) as profiler:
        step()
    results: Any = profiler.profiler.kineto_results  # type: ignore[union-attr]
    return list(results.events())


def ceilings(device: str, repeats: int = 5) -> dict[str, float]:
    """The best that this machine reaches now, with torch's present threads: ``flops_per_second`` in a large product of
    float32 matrices or on a CPU in a convolution, whichever is faster, and ``bytes_per_second`` (read and written) in a
    large copy.

    torch passes products to MKL and convolutions to oneDNN; MKL has no AVX-512 for processors of AMD."""
    side, numbers = (sizes[device.partition(":")[0]] for sizes in (MATRIX, COPIED))
    # all numbers differ: some devices multiply zeros and ones faster
    left = torch.linspace(-1, 1, side * side, device=device).view(side, side)
    product = torch.empty_like(left)
    source = torch.linspace(-1, 1, numbers, device=device)
    target = torch.empty_like(source)
    multiply = _least_seconds(lambda: torch.mm(left, left, out=product), device, repeats)
    copy = _least_seconds(lambda: target.copy_(source), device, repeats)
    flops_per_second = 2 * side**3 / multiply
    if device == "cpu":
        images, filters = torch.linspace(-1, 1, 32 * 64 * 28 * 28), torch.linspace(-1, 1, 64 * 64 * 9)
        images, filters = images.view(32, 64, 28, 28), filters.view(64, 64, 3, 3)
        convolve = _least_seconds(lambda: torch.conv2d(images, filters, padding=1), device, repeats)
        flops_per_second = max(flops_per_second, 2 * images.numel() * 64 * 9 / convolve)
    return {"flops_per_second": flops_per_second, "bytes_per_second": 2 * source.nbytes / copy}


def _least_seconds(step: Step, device: str, repeats: int) -> float:
    clock = Clock(device)
    until = time.perf_counter() + CEILING_SECONDS
    step()
    while len(clock.laps) < repeats and (not clock.laps or time.perf_counter() < until):
        with clock:
            step()
    return min(clock.laps)
