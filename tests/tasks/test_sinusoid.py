"""The sinusoid distribution: the paper's ranges, waves that obey their formula, and variants that can be paired."""

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from benchmarks.api import SPLITS, Episodes, MetabenchError
from benchmarks.registry import build_task

VARIANTS = ("k10", "k5", "k20", "k10-half", "k5-half", "k20-half")


def wave(parameters: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """amplitude * sin(x - phase) for parameters [T, 2] and x [T, n, 1], in float64."""
    amplitude, phase = parameters.double()[:, None, :1], parameters.double()[:, None, 1:]
    return amplitude * torch.sin(x.double() - phase)


class Oracle:
    """A predictor that knows the waves and adds ``error`` to them."""

    def __init__(self, episodes: Episodes, error: float = 0.0) -> None:
        self.parameters, self.error = episodes.support.parameters, error

    def __call__(self, x: torch.Tensor, memory: None = None) -> tuple[torch.Tensor, None]:
        return (wave(self.parameters, x) + self.error).float(), None


@pytest.mark.parametrize("variant", VARIANTS)
def test_targets_are_the_wave_of_the_parameters_and_the_fit_is_that_of_the_full_range(variant: str) -> None:
    tasks, full = build_task(f"sinusoid/{variant}"), build_task(f"sinusoid/{variant.removesuffix('-half')}")
    assert tasks.for_training() == full
    for split in SPLITS:
        episodes = tasks.episodes(split, range(50))
        for examples in (episodes.support, episodes.query):
            assert torch.allclose(examples.y.double(), wave(episodes.support.parameters, examples.x), atol=1e-5)
        if split != "test":
            assert torch.equal(episodes.support.x, full.episodes(split, range(50)).support.x)


def test_amplitude_phase_and_x_are_uniform_over_the_papers_ranges() -> None:
    episodes = build_task("sinusoid/k10").episodes("train", range(4000))
    drawn = (
        (episodes.support.parameters[:, 0], 0.1, 5.0),
        (episodes.support.parameters[:, 1], 0.0, np.pi),
        (episodes.support.x.flatten(), -5.0, 5.0),
        (episodes.query.x.flatten(), -5.0, 5.0),
    )
    for values, low, high in drawn:
        assert kstest(values.double().numpy(), "uniform", args=(low, high - low)).pvalue > 1e-3
    amplitude, phase = episodes.support.parameters.double().T
    lanes = torch.stack((amplitude, phase, episodes.support.x[:, 0, 0].double(), episodes.query.x[:, 0, 0].double()))
    assert (torch.corrcoef(lanes) - torch.eye(4)).abs().max() < 0.06


def test_half_variants_draw_the_test_support_from_one_half_and_queries_from_both() -> None:
    half, full = build_task("sinusoid/k10-half"), build_task("sinusoid/k10")
    cut, reference = half.episodes("test", range(400)), full.episodes("test", range(400))
    positive = (cut.support.x >= 0).squeeze(-1)
    assert bool((positive.all(dim=1) | (~positive).all(dim=1)).all())
    assert 0.4 < float(positive[:, 0].double().mean()) < 0.6
    assert cut.support.x.abs().max() > 4.9
    assert cut.support.x.abs().min() < 0.1
    assert torch.equal(cut.query.x, reference.query.x)
    assert torch.equal(cut.support.parameters, reference.support.parameters)
    assert 0.45 < float((cut.query.x >= 0).double().mean()) < 0.55


def test_fewer_shots_are_part_of_more_and_leave_wave_and_queries_alone() -> None:
    few, many = (build_task(f"sinusoid/{v}").episodes("test", range(20)) for v in ("k5", "k20"))
    assert torch.equal(few.support.x, many.support.x[:, :5])
    assert torch.equal(few.query.y, many.query.y)
    assert torch.equal(few.support.parameters, many.support.parameters)


def test_score_is_the_squared_error_per_query() -> None:
    tasks = build_task("sinusoid")
    episodes = tasks.episodes("test", range(7))
    assert tasks.score(Oracle(episodes), episodes.query).max() < 1e-9
    scores = tasks.score(Oracle(episodes, error=3.0), episodes.query)
    assert scores.shape == (7, 20)
    assert torch.allclose(scores, torch.full((7, 20), 9.0), atol=1e-4)


def test_best_constant_costs_what_the_data_sheet_says() -> None:
    y = build_task("sinusoid").episodes("test", range(20000)).query.y.double()
    assert abs(float(y.square().mean()) - 4.25) < 0.1
    assert abs(float(y.var()) - 4.15) < 0.1


def test_pooled_points_are_of_waves_of_their_own_and_pure() -> None:
    tasks = build_task("sinusoid")
    points = tasks.pooled("train", range(1000))
    assert points.x.shape == points.y.shape == (1, 1000, 1)
    assert tasks.pooled_outputs("train") == 1
    assert torch.equal(tasks.pooled("train", [7, 3]).y[0], points.y[0, [7, 3]])
    assert points.y.abs().max() <= 5.0
    assert abs(float(points.y.double().var()) - 4.15) < 0.6


def test_exhibit_shows_truth_support_and_predictions_after_each_number_of_steps() -> None:
    tasks = build_task("sinusoid/k5")
    episodes = tasks.episodes("test", range(8))
    shown = tasks.exhibit({0: Oracle(episodes, error=1.0), 10: Oracle(episodes)}, episodes)
    assert shown["steps"].tolist() == [0, 10]
    assert shown["predicted"].shape == (2, 3, *shown["x"].shape)
    assert np.allclose(shown["predicted"][1], shown["truth"], atol=1e-4)
    assert np.allclose(shown["predicted"][0], shown["truth"] + 1.0, atol=1e-4)
    assert shown["support_x"].shape == shown["support_y"].shape == (3, 5)


def test_impossible_values_are_refused() -> None:
    for shots in (0, -1):
        with pytest.raises(MetabenchError, match=f"shots = {shots}"):
            build_task("sinusoid").episodes("test", [0], shots=shots)
    with pytest.raises(MetabenchError, match="half"):
        build_task("sinusoid", ranges="third")
