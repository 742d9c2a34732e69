"""The outer loop: torch's own Adam, schedules, clipping, and resuming bit for bit."""

from itertools import islice

import pytest
import torch

from benchmarks.api import Diverged, State
from benchmarks.training import MetaGradient, descend

TARGETS = {"a": torch.tensor([1.0, -2.0, 30.0]), "b": torch.tensor([[0.5]])}


def start() -> dict[str, torch.Tensor]:
    return {name: torch.zeros_like(value) for name, value in TARGETS.items()}


def loss(parameters, buffers, step):
    """A bowl whose steepness changes from step to step, so that moments and step numbers matter."""
    far = [(parameters[name] - value).square().sum() for name, value in TARGETS.items()]
    return (1 + step % 3) * sum(far), 2


def after(steps: int, **options) -> State:
    return next(islice(descend(start(), loss, **{"learning_rate": 0.1, **options}), steps - 1, None)).copy()


def same(first: State, second: State) -> bool:
    pairs = [(first.parameters, second.parameters), (first.moments, second.moments)]
    return all(torch.equal(one[name], two[name]) for one, two in pairs for name in one.keys() | two.keys())


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_steps_are_those_of_torch(decay: float) -> None:
    values = {name: value.requires_grad_() for name, value in start().items()}
    optimiser = torch.optim.AdamW(values.values(), lr=0.1, weight_decay=decay, fused=True)
    for step in range(7):
        optimiser.zero_grad()
        loss(values, {}, step)[0].backward()
        optimiser.step()
    found = after(7, weight_decay=decay)
    assert all(torch.equal(found.parameters[name], value) for name, value in values.items())
    assert (found.step, found.examples) == (7, 14)


@pytest.mark.parametrize("options", [{}, {"optimiser": "rmsprop"}, {"clip_norm": 0.5}])
def test_a_step_does_not_depend_on_the_strides_of_a_gradient(options: dict) -> None:
    """Fused steps of torch read gradients in the order of memory; batched products have transposed ones."""
    x = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))

    def product(parameters, buffers, step):
        return (x @ parameters["w"].mT - 1).square().mean(), 1

    def in_order(parameters, buffers, step):
        value, examples = product(parameters, buffers, step)
        (gradient,) = torch.autograd.grad(value, list(parameters.values()))
        strides.add(gradient.stride())
        return MetaGradient(float(value.detach()), [gradient.contiguous()], examples)

    strides: set[tuple[int, ...]] = set()
    initial = {"w": torch.zeros(2, 4, 3)}
    steps = [{"loss": product}, {"gradient": in_order}]
    found, expected = (next(islice(descend(initial, learning_rate=0.1, **how, **options), 3, None)) for how in steps)
    assert strides != {initial["w"].stride()}
    assert same(found, expected)


def test_steps_of_rmsprop_are_its_equations() -> None:
    """Mean squares with decay 0.95, and a momentum of 0.9 over the scaled gradients."""
    value, square, momentum = torch.zeros(3), torch.zeros(3), torch.zeros(3)
    for step in range(7):
        gradient = 2 * (1 + step % 3) * (value - TARGETS["a"])
        square = 0.95 * square + 0.05 * gradient**2
        momentum = 0.9 * momentum + gradient / (square.sqrt() + 1e-8)
        value = value - 0.1 * momentum
    torch.testing.assert_close(after(7, optimiser="rmsprop").parameters["a"], value)


OPTIONS = [
    {},
    {"optimiser": "rmsprop"},
    {"schedule": lambda step: 1 / (1 + step)},
    {"clip_norm": 0.5},
    {"clip_value": 0.1},
    {"weight_decay": 0.1},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_a_stream_resumes_bit_for_bit(options: dict) -> None:
    assert same(after(4, start=after(3, **options), **options), after(7, **options))


def test_a_gradient_of_ones_own_gives_the_same_steps() -> None:
    def gradient(parameters, buffers, step):
        value, examples = loss(parameters, buffers, step)
        return MetaGradient(float(value.detach()), torch.autograd.grad(value, list(parameters.values())), examples)

    found = next(islice(descend(start(), gradient=gradient, learning_rate=0.1), 3, None))
    assert same(found, after(4))


def test_a_schedule_is_a_factor_of_the_rate_at_each_step() -> None:
    assert same(after(5, schedule=lambda step: 0.5), after(5, learning_rate=0.05))
    stopped = after(6, schedule=lambda step: float(step < 3))
    assert torch.equal(stopped.parameters["a"], after(3).parameters["a"])
    assert stopped.step == 6


@pytest.mark.parametrize("bound", [0.01, 1e9])
def test_clipping_bounds_the_whole_norm_or_each_element(bound: float) -> None:
    def first_gradient(**options) -> torch.Tensor:
        state = after(1, **options)
        return torch.cat([state.moments[f"{name}/exp_avg"].flatten() / 0.1 for name in TARGETS])

    free = first_gradient()
    assert torch.allclose(first_gradient(clip_value=bound), free.clamp(-bound, bound))
    expected = free * min(1.0, bound / float(free.norm()))
    assert torch.allclose(first_gradient(clip_norm=bound), expected, rtol=1e-5)


def test_buffers_change_in_place_and_the_initial_values_stay() -> None:
    def counting(parameters, buffers, step):
        buffers["seen"] += 1
        return loss(parameters, buffers, step)

    initial, buffers = start(), {"seen": torch.zeros(())}
    state = next(islice(descend(initial, counting, learning_rate=0.1, buffers=buffers), 2, None))
    assert float(state.buffers["seen"]) == 3
    assert float(buffers["seen"]) == 0
    assert not initial["a"].any()


def test_a_loss_that_is_not_finite_and_a_missing_loss_are_refused() -> None:
    with pytest.raises(Diverged, match="training loss is nan at meta-step 1"):
        next(descend(start(), lambda *at: (loss(*at)[0] * float("nan"), 1), learning_rate=0.1))
    for wrong in ({}, {"loss": loss, "gradient": loss}):
        with pytest.raises(TypeError, match="either a loss or a gradient"):
            next(descend(start(), learning_rate=0.1, **wrong))
