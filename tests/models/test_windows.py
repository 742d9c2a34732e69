"""Convolutions over windows are grouped ones with all their gradients, on a CPU and, where there is one, a GPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.cost import peers
from benchmarks.cost.peers.adapter import Settings
from benchmarks.cost.workloads import WORKLOADS, Workload
from benchmarks.execution.plans import Plan
from benchmarks.models import BACKBONES, Network
from benchmarks.models.fast import window_kernels, windows
from benchmarks.models.normalisation import Statistics
from maml.gradient import QueryLoss, gradient_of
from maml.inner_loop import GradientDescent

SHAPES = [(2, 3, 4, 7, 7), (1, 2, 5, 8, 6), (2, 1, 3, 14, 14), (1, 2, 2, 5, 9)]
cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=cuda)])
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def random(*shape: int, device: str = "cpu", seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(device)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_windows_are_those_of_torch_and_folding_is_their_transpose(
    shape: tuple[int, ...], stride: int, device: str
) -> None:
    x = random(*shape, device=device)
    found = window_kernels.windows(x, stride)
    usual = F.unfold(
        x.flatten(0, 1).flatten(0, 1).unsqueeze(1), 3, padding=1, stride=stride
    )  # [T * channels * n, 9, ...]
    assert torch.equal(found.transpose(2, 3).reshape(usual.shape), usual)
    other = random(*found.shape, device=device, seed=1)
    folded = window_kernels.folded(other, shape[3:], stride)
    assert folded.shape == x.shape
    torch.testing.assert_close((found * other).sum(), (x * folded).sum())
    shapes = (
        torch.ops.metabench.windows(x.to("meta"), stride),
        torch.ops.metabench.folded(other.to("meta"), *shape[3:], stride),
    )
    assert [each.shape for each in shapes] == [found.shape, x.shape]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_convolutions_are_grouped_ones_to_the_second_derivative(
    shape: tuple[int, ...], stride: int, device: str
) -> None:
    tasks, channels = shape[:2]
    x, weight = random(*shape, device=device), random(tasks, 4, channels, 3, 3, device=device, seed=1)

    def grouped(x: Tensor, weight: Tensor) -> Tensor:
        beside = x.flatten(0, 1).transpose(0, 1)  # [n, T * channels, height, width]
        result = F.conv2d(beside, weight.flatten(0, 1), padding=1, stride=stride, groups=tasks)
        return result.transpose(0, 1).unflatten(0, (tasks, -1))

    def derivatives(function: Any) -> list[Tensor]:
        leaves = [value.clone().requires_grad_() for value in (x, weight)]
        result = function(*leaves)
        first = torch.autograd.grad(result.sin().sum(), leaves, create_graph=True)
        return [result, *first, *torch.autograd.grad(sum(each.square().sum() for each in first), leaves)]

    ours = derivatives(lambda x, weight: windows.convolution(x, weight, stride))
    for found, expected in zip(ours, derivatives(grouped), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("m", "rows", "k"), [(7_500, 32, 27), (5_120, 3, 5), (11, 3, 5), (4_099, 3, 5)])
def test_long_sums_are_the_product_whatever_they_are_cut_into(m: int, rows: int, k: int, device: str) -> None:
    left, right = random(2, rows, m, device=device), random(2, k, m, device=device, seed=1)
    torch.testing.assert_close(windows.long_sum(left, right), left @ right.transpose(1, 2), rtol=1e-12, atol=1e-9)


def test_sums_are_cut_into_equal_pieces_until_a_gpu_is_busy() -> None:
    assert windows.pieces_of(75 * 84 * 84, 4, 5) == 50  # 250 blocks; 51 and 52 would leave a rest
    assert windows.pieces_of(75 * 84 * 84, 32, 1) == 1, "32 tasks are enough without"
    assert windows.pieces_of(600, 4, 1) == 1, "a piece is long enough to be worth a call"
    assert windows.pieces_of(4_099, 4, 1) == 1, "a prime is not cut"


@pytest.mark.parametrize("second_order", [True, False])
@pytest.mark.parametrize("backbone", ["conv4-64-strided", "conv4-64"])
def test_meta_gradients_over_windows_are_those_of_the_plain_loop(
    backbone: str, second_order: bool, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    workload = Workload(backbone, (3, 20, 20), 3, 1, 2, 0.1)
    network = Network(BACKBONES[backbone], workload.input_shape, workload.outputs)
    parameters = {name: value.double() for name, value in network.initialise(0, device).items()}
    episodes = workload.episodes(2, torch.float64, device)
    settings = Settings(workload, 2, second_order)
    expected = peers.load("loop").meta_gradient(parameters, episodes, settings)
    used = []
    monkeypatch.setattr(windows, "serves", lambda x, statistics: not used.append(x.shape))
    found = peers.load("ours", "all").meta_gradient(parameters, episodes, settings)
    assert used, "the windows were not used"
    difference = sum(float((found[name] - expected[name]).square().sum()) for name in expected)
    assert difference <= 1e-24 * sum(float(value.square().sum()) for value in expected.values())


def test_windows_serve_gpus_and_the_statistics_of_a_whole_batch() -> None:
    assert not windows.serves(torch.zeros(1), Statistics())
    there = (
        torch.zeros(1, device="cuda") if torch.cuda.is_available() else type("", (), {"device": torch.device("cuda")})
    )
    assert windows.serves(there, Statistics())
    assert not windows.serves(there, Statistics(first=5))
    assert not windows.serves(there, Statistics(groups=2))
    assert not windows.serves(there, Statistics(running={}))


def test_under_autocast_meta_gradients_over_windows_are_roughly_the_same(
    monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    workload = WORKLOADS["conv4-64-strided"]
    network = Network(BACKBONES[workload.backbone], workload.input_shape, workload.outputs)
    parameters, episodes = network.initialise(0, device), workload.episodes(2, device=device)
    objective = QueryLoss(network, GradientDescent(0.1), 1, True, frozenset(), "query", 0.5)
    monkeypatch.setattr(windows, "serves", lambda x, statistics: True)

    def gradient(precision: Any) -> Tensor:
        _, found = gradient_of(objective, Plan(2, precision=precision))(parameters, episodes.support, episodes.query)
        return torch.cat([part.double().flatten() for part in found])

    expected, found = gradient("float32"), gradient("bf16")
    # 0.28 here, and 0.28 with grouped convolutions: what bfloat16 costs, which a plan with it says
    assert 0 < (found - expected).norm() <= 0.5 * expected.norm()
