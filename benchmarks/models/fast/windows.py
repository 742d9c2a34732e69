"""Convolutions with separate weights for each of T tasks, as batched matrix products over windows.

On a GPU the usual form is a grouped convolution (`torch.vmap` makes one of per-task weights). Libraries serve its
gradients badly, with one call per task. Over windows (Chellapilla et al., "High Performance Convolutional Neural
Networks for Document Processing", 2006) all of them are batched products. Tasks come first, then channels: ``[T,
channels, n, height, width]``. So products need no transposed copies, and batch-norm and pooling treat it as an image of
T * channels channels. docs/performance.md has the gain.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import Function

from benchmarks.models.fast import window_kernels
from benchmarks.models.fast.channels_last import fuses
from benchmarks.models.normalisation import EPSILON, MOMENTUM, Statistics

#: A product with fewer blocks of 64 x 64 results than FEW_BLOCKS leaves a large GPU idle. It is then computed task by
#: task, with its sum cut into pieces until there are BUSY_BLOCKS blocks.
#: task, each cut into pieces of its sum until there are as many blocks as the second says
FEW_BLOCKS, BUSY_BLOCKS, BLOCK = 32, 256, 64
#: least summands per piece
PIECE = 512


def serves(x: Tensor, statistics: Statistics) -> bool:
    """Whether this form is faster for the input: on a GPU, with each channel normalised by its whole batch."""
    return x.device.type == "cuda" and fuses(statistics)


def module(x: Tensor, weight: Tensor, bias: Tensor, scale: Tensor, shift: Tensor, *, stride: int) -> Tensor:
    """``batch_norm(conv2d(x))`` with 3x3 filters and padding 1, before ReLU.

    x: ``[T, channels, n, height, width]``
    weight: ``[T, filters, channels, 3, 3]``
    bias, scale, shift: ``[T, filters]``

    The bias is not added, because the batch mean removes it: its gradient is zero."""
    x = convolution(x, weight, stride)
    flat = x.flatten(0, 1).flatten(1).unsqueeze(0)  # [1, T * filters, n * height * width]
    shift = shift + 0 * bias  # gives the bias its zero gradient
    normalised = F.batch_norm(flat, None, None, scale.flatten(), shift.flatten(), True, MOMENTUM, EPSILON)
    return normalised.view(x.shape)


def convolution(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """``conv2d`` with 3x3 filters, padding 1 and no bias; shapes as in `module`."""
    columns: Tensor = _Windows.apply(x, stride)
    product: Tensor = _Product.apply(weight.flatten(2), columns.flatten(1, 2).flatten(2))
    return product.unflatten(2, columns.shape[3:])


def max_pooling(x: Tensor) -> Tensor:
    """2x2 max-pooling of ``[T, channels, n, height, width]``."""
    pooled = F.max_pool2d(x.flatten(0, 1), 2)
    return pooled.unflatten(0, x.shape[:2])


class _Windows(Function):
    """``[T, channels, n, height, width]`` to the 9 positions of each window, ``[T, channels, 9, n, rows, columns]``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, stride: int) -> Tensor:
        ctx.stride, ctx.size = stride, x.shape[3:]
        return window_kernels.windows(x, stride)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        return _Folded.apply(gradient, ctx.size, ctx.stride), None


class _Folded(Function):
    """The transpose of `_Windows`: each image position sums the windows that contain it."""

    @staticmethod
    def forward(ctx: Any, places: Tensor, size: torch.Size, stride: int) -> Tensor:
        ctx.stride = stride
        return window_kernels.folded(places, size, stride)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        return _Windows.apply(gradient, ctx.stride), None, None


class _Product(Function):
    """``left @ right`` of ``[T, rows, k]`` and ``[T, k, m]``, m large."""

    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor) -> Tensor:
        ctx.save_for_backward(left, right)
        return torch.bmm(left, right)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        left, right = ctx.saved_tensors
        wanted, also = ctx.needs_input_grad
        by_left = _LongSum.apply(gradient, right) if wanted else None
        return by_left, torch.bmm(left.transpose(1, 2), gradient) if also else None


class _LongSum(Function):
    """``left @ right'`` of ``[T, rows, m]`` and ``[T, k, m]``: few results, each a sum over m."""

    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor) -> Tensor:
        ctx.save_for_backward(left, right)
        return long_sum(left, right)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        left, right = ctx.saved_tensors
        wanted, also = ctx.needs_input_grad
        by_left = torch.bmm(gradient, right) if wanted else None
        return by_left, torch.bmm(gradient.transpose(1, 2), left) if also else None


def long_sum(left: Tensor, right: Tensor) -> Tensor:
    """``left @ right'`` of ``[T, rows, m]`` and ``[T, k, m]``, ``[T, rows, k]``.

    With too few results to keep a GPU busy, the sum is cut into pieces, which the library would not do."""
    tasks, rows, m = left.shape
    k = right.shape[1]
    pieces = pieces_of(m, tasks, math.ceil(rows / BLOCK) * math.ceil(k / BLOCK))
    if pieces == 1:
        return torch.bmm(left, right.transpose(1, 2))
    left, right = left.contiguous(), right.contiguous().to(left.dtype)  # autocast ignores ``out=``
    parts = left.new_empty(tasks, pieces, rows, k)
    for task in range(tasks):
        torch.bmm(
            left[task].unflatten(1, (pieces, -1)).transpose(0, 1),
            right[task].unflatten(1, (pieces, -1)).permute(1, 2, 0),
            out=parts[task],
        )
    return parts.sum(1)


def pieces_of(m: int, tasks: int, blocks: int) -> int:
    """Number of equal pieces for a sum over m, where each task has ``blocks`` blocks of results."""
    if tasks * blocks >= FEW_BLOCKS:
        return 1
    most = min(math.ceil(BUSY_BLOCKS / blocks), m // PIECE)
    return next((count for count in range(most, 1, -1) if m % count == 0), 1)
