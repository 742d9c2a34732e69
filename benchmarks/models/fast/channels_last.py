"""A Conv-4 module on a CPU: convolution, batch-norm, ReLU and 2x2 max-pooling with channels last in memory.

On a CPU torch vectorises pooling and batch-norm over channels, and runs scalar code if channels come first. One thread
pools ``[75, 64, 28, 28]`` ten times as fast, and convolutions are a little faster too (docs/performance.md). The module
is two functions, each with its first and second derivative written out, so that a second-order step makes fewer passes
over memory. Results equal the plain form up to rounding:

- Pooling precedes the affine map and ReLU, which then process a quarter of the numbers. Both are monotone, so the
  maximum stays the maximum. If a scale is negative, the signs of scale and filter are flipped first.
- The bias of the convolution is not added: the batch mean removes it, and its gradient is zero.
- The following convolution removes the part of a gradient that ReLU blocks, in place. Nothing else uses that gradient
  yet, and batch-norm needs no second copy.

A third derivative raises `RuntimeError`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function

from benchmarks.models.normalisation import EPSILON, MOMENTUM, Statistics

_aten = torch.ops.aten
_threshold_backward = _aten.threshold_backward.default
_batch_norm_backward = _aten.native_batch_norm_backward.default


def serves(x: Tensor) -> bool:
    """Whether channels should be last for this input: on a CPU, eager and without mixed precision."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling() and not torch.is_autocast_enabled("cpu")


def fuses(statistics: Statistics) -> bool:
    """Whether batch-norm is that of `module`: each channel by mean and variance of the whole batch."""
    return statistics.groups == 1 and statistics.first is None and statistics.running is None


def channels_last(x: Tensor) -> Tensor:
    """The same numbers with channels-last strides; for a single channel torch can't tell the orders apart."""
    if x.shape[1] > 1:
        return x.contiguous(memory_format=torch.channels_last)
    height, width = x.shape[2:]
    return x.contiguous().as_strided(x.shape, (height * width, 1, width, 1))


def module(
    x: Tensor, weight: Tensor, bias: Tensor, scale: Tensor, shift: Tensor, *, stride: int, pooled: bool, rectified: bool
) -> Tensor:
    """``relu(batch_norm(conv2d(x)))`` with 3x3 filters and padding 1, then 2x2 max-pooling if ``pooled``.

    x: ``[n, channels, height, width]``
    weight: ``[filters, channels, 3, 3]``
    bias, scale, shift: ``[filters]``
    stride: of the convolution
    rectified: x is the result of such a module

    The gradient by the result must be zero where the result is. The next module with ``rectified`` ensures that, and so
    does ``relu`` of the last one."""
    if pooled and bool((scale.detach() < 0).any()):
        sign = torch.where(scale.detach() < 0, -1.0, 1.0).to(scale.dtype)
        weight, scale = weight * sign.view(-1, 1, 1, 1), scale * sign
    weight = channels_last(weight) if weight.shape[1] == 1 else weight
    y = _Convolution.apply(channels_last(x), weight, stride, rectified)
    return _Normalisation.apply(y, scale, shift, bias, pooled)


def _convolve(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    return torch.convolution(x, weight, None, (stride, stride), (1, 1), (1, 1), False, (0, 0), 1)


def _convolve_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, stride: int, wanted: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    both: Any = _aten.convolution_backward.default(
        gradient, x, weight, None, (stride, stride), (1, 1), (1, 1), False, (0, 0), 1, (*wanted, False)
    )
    return both[0], both[1]


class _Convolution(Function):
    """Convolution; with ``rectified``, x is a result of ReLU and the gradient by x is masked accordingly."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, rectified: bool) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.rectified = stride, rectified
        return _convolve(x, weight, stride)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:2]
        differentiate = _ConvolutionBackward.apply if torch.is_grad_enabled() else _gradients_of_convolution
        return *differentiate(channels_last(gradient), x, weight, ctx.stride, ctx.rectified, wanted), None, None


def _gradients_of_convolution(
    gradient: Tensor, x: Tensor, weight: Tensor, stride: int, rectified: bool, wanted: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    of_x, of_weight = _convolve_backward(gradient, x, weight, stride, wanted)
    return _pass(of_x, x) if rectified and of_x is not None else of_x, of_weight


def _pass(gradient: Tensor, x: Tensor) -> Tensor:
    """Mask a gradient by ReLU's result x, in place."""
    passed: Tensor = _aten.threshold_backward.grad_input(gradient, x, 0, grad_input=gradient)
    return passed


class _ConvolutionBackward(Function):
    """Gradients of a convolution. They are bilinear, so their gradients are convolutions and such gradients again."""

    @staticmethod
    def forward(
        ctx: Any, gradient: Tensor, x: Tensor, weight: Tensor, stride: int, rectified: bool, wanted: tuple[bool, bool]
    ) -> Any:
        ctx.save_for_backward(gradient, x, weight)
        ctx.stride, ctx.rectified = stride, rectified
        ctx.set_materialize_grads(False)
        return _gradients_of_convolution(gradient, x, weight, stride, rectified, wanted)

    @staticmethod
    def backward(ctx: Any, by_x: Tensor | None, by_weight: Tensor | None) -> Any:
        _refuse_a_third()
        gradient, x, weight = ctx.saved_tensors
        of_gradient: Any = None
        of_x: Any = None
        of_weight: Any = None
        if by_x is not None:
            by_x = channels_last(by_x)
            by_x = _threshold_backward(by_x, x, 0) if ctx.rectified else by_x
            of_gradient = _convolve(by_x, weight, ctx.stride)
            of_weight = _convolve_backward(gradient, by_x, weight, ctx.stride, (False, True))[1]
        if by_weight is not None:
            by_weight = channels_last(by_weight)
            more = _convolve(x, by_weight, ctx.stride)
            of_gradient = more if of_gradient is None else of_gradient.add_(more)
            if ctx.needs_input_grad[1]:
                of_x = _gradients_of_convolution(gradient, x, by_weight, ctx.stride, ctx.rectified, (True, False))[0]
        return of_gradient, of_x, of_weight, None, None, None


class _Normalisation(Function):
    """Batch-norm, ReLU and optional pooling of ``[n, channels, height, width]``, for gradients masked by ReLU."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, scale: Tensor, shift: Tensor, bias: Tensor, pooled: bool) -> Tensor:
        mean, variance = torch.batch_norm_update_stats(y, None, None, MOMENTUM)
        largest, places = torch.nn.functional.max_pool2d(y, 2, return_indices=True) if pooled else (y, None)
        output = torch.native_batch_norm(largest, scale, shift, mean, variance, False, MOMENTUM, EPSILON)[0].relu_()
        # the arguments of `_normalise_backward`; without pooling ``largest`` would keep y twice
        ctx.save_for_backward(y, scale, largest if pooled else None, places, mean, variance)
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        saved = ctx.saved_tensors
        differentiate = _NormalisationBackward.apply if torch.is_grad_enabled() else _normalise_backward
        of_y, of_scale, of_shift = differentiate(channels_last(gradient), *saved)
        return of_y, of_scale, of_shift, torch.zeros_like(of_shift), None


def _normalise_backward(
    passed: Tensor,
    y: Tensor,
    scale: Tensor,
    largest: Tensor | None,
    places: Tensor | None,
    mean: Tensor,
    variance: Tensor,
) -> Any:
    """Gradients by y, scale and shift (Ioffe and Szegedy 2015, section 3).

    With pooling, the gradient that passes ReLU goes to the position of each maximum. The rest of the gradient is an
    affine function of y."""
    inverse = torch.rsqrt(variance + EPSILON)
    if largest is None or places is None:
        wanted = (True, True, True)
        return _batch_norm_backward(passed, y, scale, None, None, mean, inverse, True, EPSILON, wanted)
    of_largest, of_scale, of_shift = _batch_norm_backward(
        passed, largest, scale, mean, variance, None, None, False, EPSILON, (True, True, True)
    )
    factor = scale * inverse / -_each(y)
    slope = factor * inverse * of_scale
    of_y = torch.addcmul(_channels(factor * of_shift - slope * mean), y, _channels(slope))
    _places(of_y).scatter_add_(1, _places(places), _places(of_largest))
    return of_y, of_scale, of_shift


class _NormalisationBackward(Function):
    @staticmethod
    def forward(ctx: Any, passed: Tensor, *saved: Any) -> Any:
        of_y, of_scale, of_shift = _normalise_backward(passed, *saved)
        ctx.save_for_backward(passed, *saved, of_scale, of_shift)
        return of_y, of_scale, of_shift

    @staticmethod
    def backward(ctx: Any, by_y: Tensor, by_scale: Tensor, by_shift: Tensor) -> Any:
        """Gradient of <by_y, of_y> + <by_scale, of_scale> + <by_shift, of_shift>.

        With n numbers in a channel, xhat = (y - mean) * inverse, and <a, b> at the maxima or over all of y: of_shift =
        <1, passed>, of_scale = <xhat, passed> and of_y = scale * inverse * (passed at the maxima - of_shift / n - xhat
        * of_scale / n)."""
        _refuse_a_third()
        passed, y, scale, largest, places, mean, variance, of_scale, of_shift = ctx.saved_tensors
        by_y, n = channels_last(by_y), _each(y)
        inverse = torch.rsqrt(variance + EPSILON)
        _, with_xhat, total = _batch_norm_backward(
            by_y, y, scale, mean, variance, None, None, False, EPSILON, (False, True, True)
        )
        at_maxima = by_y if places is None else _at(by_y, places)
        with_passed = (at_maxima * passed).sum((0, 2, 3))
        factor = scale * inverse

        of_inverse = with_passed - (of_shift * total + of_scale * with_xhat) / n
        by_scale = by_scale - factor * with_xhat / n
        slope = by_scale * inverse
        level = by_shift - factor * total / n - slope * mean
        of_passed = torch.addcmul(_channels(level), y if largest is None else largest, _channels(slope))
        of_passed.addcmul_(at_maxima, _channels(factor))

        # by xhat: ``by_scale`` times passed at the maxima, and ``-toward`` times by_y; xhat and inverse depend on y
        toward = factor * of_scale / n
        slope = inverse**2 * (toward * with_xhat - by_scale * of_scale - factor * of_inverse) / n
        level = inverse * (toward * total - by_scale * of_shift) / n - slope * mean
        of_y = torch.addcmul(_channels(level), y, _channels(slope)).addcmul_(by_y, _channels(-inverse * toward))
        direct = passed * _channels(by_scale * inverse)
        if places is None:
            of_y.add_(direct)
        else:
            _places(of_y).scatter_add_(1, _places(places), _places(direct))
        return of_passed, of_y, inverse * of_inverse, None, None, None, None


def _refuse_a_third() -> None:
    """Raise `RuntimeError` for a third derivative.

    torch.autograd.grad ignores `once_differentiable`, and the third derivative would be wrong."""
    if torch.is_grad_enabled():
        raise RuntimeError("Conv-4 on a CPU has no third derivative, but create_graph was set for the second")


def _each(y: Tensor) -> int:
    """Numbers per channel."""
    return y.numel() // y.shape[1]


def _channels(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1)


def _places(x: Tensor) -> Tensor:
    """``[n, channels, height, width]`` as ``[n, height * width, channels]``, sharing memory."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _at(x: Tensor, places: Tensor) -> Tensor:
    """The numbers of x at ``places`` within each plane, in the shape of ``places``."""
    n, _, height, width = places.shape
    return _places(x).gather(1, _places(places)).view(n, height, width, -1).permute(0, 3, 1, 2)
