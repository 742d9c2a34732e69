"""The 3x3 windows of images with tasks and channels first, and their transpose, each in one pass over memory.

Both are operations of torch's dispatcher, so tracing, counters and profilers see them. On CUDA they are Triton kernels
(Triton comes with torch there). Elsewhere, and without Triton, they consist of torch's own operations.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

SIDE = 3
#: positions per program of a kernel
PLACES = 512

_LIBRARY = torch.library.Library("metabench", "DEF")
_LIBRARY.define("windows(Tensor x, int stride) -> Tensor")
_LIBRARY.define("folded(Tensor places, int height, int width, int stride) -> Tensor")


def windows(x: Tensor, stride: int) -> Tensor:
    """The image under each of the 9 positions of a 3x3 window, zero outside the image, which is padded by 1.

    ``[T, channels, n, height, width]`` to ``[T, channels, 9, n, rows, columns]``."""
    found: Tensor = torch.ops.metabench.windows(x, stride)
    return found


def folded(places: Tensor, size: tuple[int, ...], stride: int) -> Tensor:
    """The transpose of `windows`: ``[T, channels, 9, n, rows, columns]`` to ``[T, channels, n, *size]``."""
    found: Tensor = torch.ops.metabench.folded(places, *size, stride)
    return found


def positions(side: int, stride: int) -> int:
    """Number of windows along a side."""
    return (side - 1) // stride + 1


def _windows(x: Tensor, stride: int) -> Tensor:
    cut = F.pad(x, (1, 1, 1, 1)).unfold(3, SIDE, stride).unfold(4, SIDE, stride)
    return cut.permute(0, 1, 5, 6, 2, 3, 4).flatten(2, 3).contiguous()


def _folded(places: Tensor, height: int, width: int, stride: int) -> Tensor:
    tasks, channels, _, n, rows, columns = places.shape
    padded = places.new_zeros(tasks, channels, n, height + 2, width + 2)
    for y in range(SIDE):
        for x in range(SIDE):
            down = slice(y, y + stride * (rows - 1) + 1, stride)
            along = slice(x, x + stride * (columns - 1) + 1, stride)
            padded[..., down, along] += places[:, :, SIDE * y + x]
    return padded[..., 1:-1, 1:-1].contiguous()


def _windows_shape(x: Tensor, stride: int) -> Tensor:
    rows, columns = (positions(side, stride) for side in x.shape[3:])
    return x.new_empty(*x.shape[:2], SIDE * SIDE, x.shape[2], rows, columns)


def _folded_shape(places: Tensor, height: int, width: int, stride: int) -> Tensor:
    return places.new_empty(*places.shape[:2], places.shape[3], height, width)


def _windows_on_cuda(x: Tensor, stride: int) -> Tensor:
    if (kernels := _kernels()) is None:
        return _windows(x, stride)
    x, result = x.contiguous(), _windows_shape(x, stride)
    images, rows, columns = x.shape[2], *result.shape[4:]
    blocks = -(-images * rows * columns // PLACES)
    kernels[0][(x.shape[0] * x.shape[1] * blocks,)](
        x, result, images, x.shape[3], x.shape[4], rows, columns, blocks, STRIDE=stride, PLACES=PLACES
    )
    return result


def _folded_on_cuda(places: Tensor, height: int, width: int, stride: int) -> Tensor:
    if (kernels := _kernels()) is None:
        return _folded(places, height, width, stride)
    places, result = places.contiguous(), _folded_shape(places, height, width, stride)
    images, rows, columns = places.shape[3:]
    blocks = -(-images * height * width // PLACES)
    kernels[1][(result.shape[0] * result.shape[1] * blocks,)](
        places, result, images, height, width, rows, columns, blocks, STRIDE=stride, PLACES=PLACES
    )
    return result


for _name, _on_cpu, _on_cuda, _shape in (
    ("windows", _windows, _windows_on_cuda, _windows_shape),
    ("folded", _folded, _folded_on_cuda, _folded_shape),
):
    _LIBRARY.impl(_name, _on_cpu, "CPU")
    _LIBRARY.impl(_name, _on_cuda, "CUDA")
    _LIBRARY.impl(_name, _shape, "Meta")


@functools.cache
def _kernels() -> tuple[Any, Any] | None:
    """The two kernels; None without Triton."""
    try:
        from benchmarks.models.fast import window_triton
    except ImportError:
        return None
    return window_triton.windows, window_triton.folded
