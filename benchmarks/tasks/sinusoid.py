"""Sinusoid regression.

Source: Finn, Abbeel and Levine, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks", ICML 2017, section
5.1 (https://arxiv.org/abs/1703.03400).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from benchmarks import sampling
from benchmarks.api import SPLITS, Episodes, LabelledSet, MetabenchError, Predictor, TaskDistribution
from benchmarks.checks import check_fields, check_known
from benchmarks.registry import register_task
from benchmarks.sampling import between

Indices = Sequence[int] | np.ndarray

AMPLITUDE = (0.1, 5.0)
PHASE = (0.0, np.pi)
INPUT = (-5.0, 5.0)

#: lanes of an episode's random numbers: amplitude, phase, half of the range, then the support x ...
_FIRST_SUPPORT_LANE = 3
#: ... and, beyond any number of shots, the query x
_FIRST_QUERY_LANE = 1 << 32

#: episodes and points per curve in figures
EXHIBITED_EPISODES = 3
GRID_POINTS = 200


@register_task("sinusoid")
@dataclass(frozen=True)
class Sinusoid(TaskDistribution):
    """Regression on sine waves y = amplitude * sin(x - phase), a new wave in every episode.

    The input x is uniform in [-5, 5]. The target y has no noise. The amplitude is uniform in [0.1, 5], the phase in [0,
    pi]. The minus sign comes from the released code (github.com/cbfinn/maml, data_generator.py,
    ``generate_sinusoid_batch``); the paper gives none. The score is the squared error at each query point. Predicting 0
    costs 4.25 on average, the best constant 4.15.

    shot, queries: support and query points per episode. Queries are drawn independently from the whole range. The paper
        does not say how many; training episodes of the released code have as many as shots.
    ranges: "half" draws the support of *test* episodes from one half of the range, x < 0 or x >= 0, each with
        probability 1/2 per task. It measures the paper's remark that a learner of waves infers the other half too
        (figure 2). Training and validation episodes use the full range, so the variant shares its fit with the one
        without ``-half``.

    An index gives the same wave and query points in every variant, and the support of fewer shots is part of that of
    more. So variants can be compared in pairs. Each split is a separate stream of waves.
    """

    kind: ClassVar[str] = "regression"
    metric: ClassVar[str] = "squared error"
    higher_is_better: ClassVar[bool] = False
    equivalence_margin: ClassVar[float] = 1.1
    offers: ClassVar[frozenset[str]] = frozenset({"parameters", "pooled"})
    variants: ClassVar[Mapping[str, Mapping[str, object]]] = {
        f"k{shot}{suffix}": {"shot": shot, **fields}
        for suffix, fields in (("", {}), ("-half", {"ranges": "half"}))
        for shot in (10, 5, 20)
    }
    #: MAML's: 70,000 meta-steps of 25 waves with as many queries as shots
    budgets: ClassVar[Mapping[str, int]] = {f"k{shot}": 70_000 * 25 * 2 * shot for shot in (5, 10, 20)}

    shot: int = 10
    queries: int = 20
    ranges: Literal["full", "half"] = "full"

    def __post_init__(self) -> None:
        check_fields(self, "at least 1", "shot", "queries")

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (1,)

    @property
    def outputs(self) -> int:
        return 1

    @property
    def backbone(self) -> str:
        return "mlp-40-40"

    def for_training(self) -> Sinusoid:
        if self.ranges == "full":
            return self
        return self.replace(variant=self.variant.removesuffix("-half"), ranges="full")

    def episodes(
        self, split: str, indices: Indices, *, shots: int | None = None, queries: int | None = None
    ) -> Episodes:
        """Episodes of a split; ``support.parameters`` holds amplitude and phase, float32 ``[T, 2]``."""
        shots = self.shot if shots is None else shots
        queries = self.queries if queries is None else queries
        if shots < 1 or queries < 0:
            raise MetabenchError(f"{self.id}: shots = {shots} and queries = {queries} cannot be drawn")
        key = _stream(split, "episodes")
        drawn = sampling.uniform(key, indices, _FIRST_SUPPORT_LANE + shots)
        amplitude, phase = between(AMPLITUDE, drawn[:, :1]), between(PHASE, drawn[:, 1:2])
        support = drawn[:, _FIRST_SUPPORT_LANE:]
        if self.ranges == "half" and split == "test":
            support = 0.5 * (support + (drawn[:, 2:3] >= 0.5))
        query = sampling.uniform(key, indices, queries, first=_FIRST_QUERY_LANE)
        x = between(INPUT, np.concatenate((support, query), axis=1))
        both = self._labelled(x, amplitude * np.sin(x - phase))
        parameters = torch.from_numpy(np.concatenate((amplitude, phase), axis=1).astype(np.float32))
        return Episodes(
            support=LabelledSet(both.x[:, :shots], both.y[:, :shots], parameters=parameters.to(self.device)),
            query=LabelledSet(both.x[:, shots:], both.y[:, shots:]),
        )

    def pooled(self, split: str, indices: Indices) -> LabelledSet:
        """One point of a separate wave per index: x and y, float32 ``[1, n, 1]``."""
        drawn = sampling.uniform(_stream(split, "pooled"), indices, 3).T[:, None]
        amplitude, phase, x = (between(*pair) for pair in zip((AMPLITUDE, PHASE, INPUT), drawn, strict=True))
        return self._labelled(x, amplitude * np.sin(x - phase))

    def pooled_outputs(self, split: str) -> int:
        return 1

    def score(self, predictor: Predictor, query: LabelledSet) -> Tensor:
        """The squared error at each query point, ``[T, n]``."""
        return (self.predictions(predictor, query) - query.y).square().mean(dim=-1)

    def exhibit(self, predictors: Mapping[int, Predictor], episodes: Episodes) -> dict[str, np.ndarray]:
        """Curves of the first E episodes: the wave, its support points, and predictions after each of S step counts.

        x: ``[G]``; truth: ``[E, G]``; predicted: ``[S, E, G]``; steps: ``[S]``; support_x, support_y: ``[E, shots]``;
        parameters: ``[E, 2]``."""
        assert episodes.support.parameters is not None
        shown = slice(0, EXHIBITED_EPISODES)
        x = np.linspace(*INPUT, GRID_POINTS)
        amplitude, phase = episodes.support.parameters[shown].double().cpu().numpy().T[..., None]
        inputs = torch.from_numpy(x.astype(np.float32)).to(episodes.support.x.device)
        grid = inputs[None, :, None].expand(len(episodes.support), -1, -1)
        predicted = [predict(grid)[0][shown, :, 0].detach() for predict in predictors.values()]
        return {
            "x": x.astype(np.float32),
            "truth": (amplitude * np.sin(x - phase)).astype(np.float32),
            "predicted": torch.stack(predicted).cpu().numpy(),
            "steps": np.array(list(predictors), dtype=np.int16),
            "support_x": episodes.support.x[shown, :, 0].cpu().numpy(),
            "support_y": episodes.support.y[shown, :, 0].cpu().numpy(),
            "parameters": episodes.support.parameters[shown].cpu().numpy(),
        }

    def _labelled(self, x: np.ndarray, y: np.ndarray) -> LabelledSet:
        """float64 ``[T, n]`` as float32 ``[T, n, 1]`` on the device, in one transfer."""
        both = torch.from_numpy(np.stack((x, y)).astype(np.float32)[..., None]).to(self.device)
        return LabelledSet(both[0], both[1])


@functools.cache
def _stream(split: str, purpose: str) -> int:
    check_known("split", split, SPLITS)
    return sampling.stream(f"sinusoid-v{Sinusoid.version}", split, purpose)
