"""The module of Conv-4 on a CPU against the same module made of torch's own functions, two derivatives included."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.models import BACKBONES, Network
from benchmarks.models.backbones import Conv4
from benchmarks.models.fast import channels_last
from benchmarks.models.normalisation import Statistics

FILTERS = 4
Module = Callable[..., Tensor]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def inputs(channels: int, scales: tuple[float, ...] = (1.2, 0.4, 0.7, 2.0)) -> list[Tensor]:
    """Images ``[3, channels, 6, 7]``, filters, bias, scale and shift."""
    x = normal(3, channels, 6, 7)
    weight, bias, shift = (normal(*shape, seed=n) for n, shape in enumerate([(FILTERS, channels, 3, 3), (4,), (4,)], 1))
    return [x, weight, bias, torch.tensor(scales, dtype=torch.float64), shift]


def plain(*arguments: Tensor, stride: int, pooled: bool) -> Tensor:
    x, weight, bias, scale, shift = arguments
    y = F.conv2d(x, weight, bias, stride=stride, padding=1)
    y = F.batch_norm(y, None, None, scale, shift, training=True).relu()
    return F.max_pool2d(y, 2) if pooled else y


def quick(*arguments: Tensor, stride: int, pooled: bool) -> Tensor:
    return channels_last.module(*arguments, stride=stride, pooled=pooled, rectified=False).relu()


def two(of: Module) -> Module:
    """The module behind another one without pooling; arguments: those of the first, then the rest of the second."""

    def both(*arguments: Tensor, stride: int, pooled: bool) -> Tensor:
        first, second = arguments[:5], arguments[5:]
        if of is plain:
            return plain(plain(*first, stride=1, pooled=False), *second, stride=stride, pooled=pooled)
        x = channels_last.module(*first, stride=1, pooled=False, rectified=False)
        return channels_last.module(x, *second, stride=stride, pooled=pooled, rectified=True).relu()

    return both


FORMS = pytest.mark.parametrize(("stride", "pooled"), [(1, True), (2, False), (1, False)])


def derivatives(of: Module, given: list[Tensor], stride: int, pooled: bool) -> list[Tensor]:
    """The output, the gradients of a loss, and the gradients of a function of those gradients."""
    leaves = [value.clone().requires_grad_() for value in given]
    output = of(*leaves, stride=stride, pooled=pooled)
    loss = (output * normal(*output.shape, seed=9)).square().sum()
    first = torch.autograd.grad(loss, leaves, create_graph=True)
    each = [(g * normal(*g.shape, seed=20 + n) + g.square()).sum() for n, g in enumerate(first)]
    return [output, *first, *torch.autograd.grad(torch.stack(each).sum(), leaves)]


@FORMS
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("scales", [(1.2, 0.4, 0.7, 2.0), (1.2, -0.4, 0.7, -2.0)], ids=["positive", "some negative"])
def test_the_module_is_its_plain_form(scales: tuple[float, ...], channels: int, stride: int, pooled: bool) -> None:
    given = inputs(channels, scales)
    expected = derivatives(plain, given, stride, pooled)
    found = derivatives(quick, given, stride, pooled)
    for number, (one, other) in enumerate(zip(found, expected, strict=True)):
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-9), f"result {number}"


@FORMS
def test_a_module_behind_another_is_its_plain_form(stride: int, pooled: bool) -> None:
    given = [*inputs(2), *inputs(FILTERS)[1:]]
    expected = derivatives(two(plain), given, stride, pooled)
    found = derivatives(two(quick), given, stride, pooled)
    for number, (one, other) in enumerate(zip(found, expected, strict=True)):
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-9), f"result {number}"


def test_both_derivatives_are_those_of_finite_differences() -> None:
    x, *others = inputs(1)
    leaves = [value.requires_grad_() for value in (x[:2, :, :4, :5].clone(), *others)]
    assert torch.autograd.gradcheck(lambda *a: quick(*a, stride=1, pooled=True), leaves)
    assert torch.autograd.gradgradcheck(lambda *a: quick(*a, stride=1, pooled=True), leaves)


@FORMS
def test_equal_maxima_have_the_same_gradients_by_parameters(stride: int, pooled: bool) -> None:
    """Half of each image is one colour, as paper is; and the inputs of a network need no gradient."""
    x, *given = inputs(1)
    x[:, :, :, 3:] = 0.3
    leaves = [value.requires_grad_() for value in given]
    found, expected = (
        torch.autograd.grad(of(x, *leaves, stride=stride, pooled=pooled).square().sum(), leaves)
        for of in (quick, plain)
    )
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_a_third_derivative_is_refused_in_words() -> None:
    x, weight, *rest = inputs(2)
    weight.requires_grad_()
    gradient = torch.autograd.grad(
        quick(x, weight, *rest, stride=1, pooled=True).square().sum(), weight, create_graph=True
    )
    with pytest.raises(RuntimeError, match="no third derivative"):
        torch.autograd.grad(gradient[0].square().sum(), weight, create_graph=True)


@pytest.mark.parametrize("strided", [True, False])
def test_the_network_is_the_same_with_and_without(strided: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three tasks with weights of their own, and second derivatives: channels last against a grouped convolution."""
    net = Network(Conv4(FILTERS, strided), (1, 17, 19) if strided else (2, 18, 16), 3)
    x = normal(3, 5, *net.input_shape)
    results = []
    for serves in (True, False):
        monkeypatch.setattr(channels_last, "serves", lambda x, answer=serves: answer)
        leaves = [
            (value.double() + 0.3 * normal(3, *value.shape, seed=n)).requires_grad_()
            for n, value in enumerate(net.initialise(0).values())
        ]
        output = net(dict(zip(net.initialise(0), leaves, strict=True)), x)
        first = torch.autograd.grad(output.square().sum(), leaves, create_graph=True)
        second = torch.autograd.grad(torch.stack([g.square().sum() for g in first]).sum(), leaves)
        results.append([output, *first, *second])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_a_network_says_what_it_is_run_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """The quick form is in use on a CPU, for the batch's own statistics and no others."""
    seen: list[int] = []
    true = channels_last.module

    def watched(x: Tensor, *rest: Tensor, stride: int, **how: bool) -> Tensor:
        seen.append(stride)
        return true(x, *rest, stride=stride, **how)

    monkeypatch.setattr(channels_last, "module", watched)
    net = Network(BACKBONES["conv4-64-strided"], (1, 12, 12), 3)
    parameters = {name: value.unsqueeze(0) for name, value in net.initialise(0).items()}
    net(parameters, torch.zeros(1, 2, 1, 12, 12))
    assert seen == [2, 2, 2, 2]
    net(parameters, torch.zeros(1, 2, 1, 12, 12), Statistics(running=net.running_statistics()))
    net(parameters, torch.zeros(1, 2, 1, 12, 12), dataclasses.replace(Statistics(), first=1))
    assert seen == [2, 2, 2, 2]
