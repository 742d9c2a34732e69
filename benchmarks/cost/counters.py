"""What a step costs beside time, counted rather than timed: floating-point operations, dispatched operations, bytes
saved for the backward pass, and the peak of what it allocates. And what the machine could do: two ceilings.

Each counter is a function of a callable that does one step.
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

Step = Callable[[], Any]

#: events of CUDA's driver and runtime that start a kernel
LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx", "cudaGraphLaunch")

#: the matrices of `ceilings` have so many rows and columns, and the copy so many numbers: on a CPU and on CUDA
MATRIX, COPIED = {"cpu": 1024, "cuda": 8192}, {"cpu": 16 * 2**20, "cuda": 256 * 2**20}


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
    with FlopCounterMode(
        display=False, custom_mapping={torch.ops.aten.convolution_backward: _convolution_backward}
    ) as counter:
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
    """Bytes of the different storages that autograd keeps for a backward pass, over the whole step.

    Parameters count where they are saved. A first-order step that kept graphs of its inner gradients would show."""
    storages: dict[int, tuple[Tensor, int]] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        # the tensor is kept, so that its address is not given to another one
        storages.setdefault(storage.data_ptr(), (tensor.detach(), storage.nbytes()))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        step()
    return sum(size for _, size in storages.values())


def peak_bytes(step: Step, device: str = "cpu") -> int:
    """The most memory that a step holds at once beyond what was held before it, as torch's allocator counts it.

    On a CPU torch's profiler logs every allocation; what libraries below torch allocate for themselves (oneDNN's
    scratch buffers) is not seen. On CUDA: the caching allocator's peak."""
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
    """What `peak_bytes` and `operations` say, of one step instead of two: counting allocates nothing."""
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
    """What this machine reaches now, with the threads that torch has: floating-point operations per second of a large
    product of float32 matrices, and bytes per second (read and written) of a large copy; the best of ``repeats``."""
    side, numbers = (sizes[device.partition(":")[0]] for sizes in (MATRIX, COPIED))
    # numbers of which no two are alike: some devices multiply zeros and ones faster
    left = torch.linspace(-1, 1, side * side, device=device).view(side, side)
    product = torch.empty_like(left)
    source = torch.linspace(-1, 1, numbers, device=device)
    target = torch.empty_like(source)
    multiply = _best_seconds(lambda: torch.mm(left, left, out=product), device, repeats)
    copy = _best_seconds(lambda: target.copy_(source), device, repeats)
    return {"flops_per_second": 2 * side**3 / multiply, "bytes_per_second": 2 * source.nbytes / copy}


def _best_seconds(step: Step, device: str, repeats: int) -> float:
    from benchmarks.clock import Clock

    clock = Clock(device)
    until = time.perf_counter() + 2.0
    step()
    while len(clock.laps) < repeats and (not clock.laps or time.perf_counter() < until):
        with clock:
            step()
    return min(clock.laps)
