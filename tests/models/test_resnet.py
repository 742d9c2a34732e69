"""ResNet-12 with a task axis: its shapes, and weights per task against one task at a time."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from benchmarks.api import Parameters
from benchmarks.models import BACKBONES, Network, Statistics
from benchmarks.models.resnet import ResNet12

TASKS, EXAMPLES = 3, 4
SMALL = Network(ResNet12((3, 4, 5, 6)), (2, 19, 18), 5)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def weights(copies: int) -> Parameters:
    """Parameters ``[copies, ...]``, away from where they are initialised and different in each copy."""
    return {
        name: value.double() + 0.3 * normal(copies, *value.shape, seed=number)
        for number, (name, value) in enumerate(SMALL.initialise(0).items())
    }


def test_it_has_the_size_that_lee_et_al_have() -> None:
    """12.4 million parameters, as papers that compare backbones give it; features of 640 numbers."""
    network = Network(BACKBONES["resnet12"], (3, 84, 84), 5)
    shapes = dict(network.backbone.shapes(network.input_shape))
    convolutions = [shape for shape in shapes.values() if len(shape) == 4]
    assert len(convolutions) == 12 + 4
    assert sum(map(math.prod, shapes.values())) == pytest.approx(12.42e6, rel=1e-3)
    assert network.embedding_size == 640
    assert network.initialise(0)["head.weight"].shape == (5, 640)


def test_weights_per_task_are_one_network_per_task_and_so_are_their_gradients() -> None:
    x, toward = normal(TASKS, EXAMPLES, *SMALL.input_shape, seed=50), normal(TASKS, EXAMPLES, 5, seed=51)
    theta = {name: value.requires_grad_() for name, value in weights(TASKS).items()}
    together = SMALL(theta, x)
    gradients = torch.autograd.grad((together * toward).sum(), list(theta.values()))
    for task in range(TASKS):
        own = {name: value[task : task + 1].detach().requires_grad_() for name, value in theta.items()}
        alone = SMALL(own, x[task : task + 1])
        torch.testing.assert_close(alone[0], together[task], rtol=1e-9, atol=1e-9)
        expected = torch.autograd.grad((alone * toward[task]).sum(), list(own.values()))
        for name, one, all_tasks in zip(theta, expected, gradients, strict=True):
            torch.testing.assert_close(one[0], all_tasks[task], rtol=1e-7, atol=1e-8, msg=name)


def test_tasks_that_share_weights_have_statistics_of_their_own() -> None:
    x = normal(TASKS, EXAMPLES, *SMALL.input_shape, seed=50)
    shared = weights(1)
    folded = SMALL(shared, x)
    copied = SMALL({name: value.expand(TASKS, *value.shape[1:]) for name, value in shared.items()}, x)
    torch.testing.assert_close(folded, copied, rtol=1e-9, atol=1e-9)
    changed = SMALL(shared, torch.cat((x[:1], 2 * x[1:] + 1)))
    torch.testing.assert_close(changed[0], folded[0])


def test_running_statistics_move_towards_those_of_the_batch() -> None:
    statistics = {name: value.double() for name, value in SMALL.running_statistics().items()}
    assert set(statistics) >= {"block0.layer0.mean", "block3.shortcut.variance"}
    x = normal(1, EXAMPLES, *SMALL.input_shape, seed=50)
    SMALL(weights(1), x, Statistics(running=statistics, update=True))
    assert all(value.abs().max() > 0 for name, value in statistics.items() if name.endswith("mean"))
