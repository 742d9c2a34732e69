"""Meta-Baseline: train a classifier of all classes, then its embedding episode by episode.

Chen, Liu, Xu, Darrell and Wang, "Meta-Baseline: Exploring Simple Meta-Learning for Few-Shot Learning", ICCV 2021:
the second stage drops the classifier's last layer and trains all others on episodes, where a class scores by
the cosine of the query's embedding and the mean of its support embeddings, times a learned scale.

One fit has both stages: the first `pretraining_steps` meta-steps are those of `finetune`, all later ones episodes. The
optimiser starts again with the second stage.

Deviations:
- Adam in both stages; the released code (yinboc/few-shot-meta-baseline) has SGD, with weight decay and, in the first
  stage, one fall of the rate;
- no augmented images, and batch-norm as in `baselines.episodic`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from baselines.episodic import Episodic
from baselines.finetune import FineTune
from baselines.shared.similarity import class_means, similarity
from benchmarks.api import Parameters, State, TaskDistribution
from benchmarks.checks import check_fields
from benchmarks.models import Network, network_for, split
from benchmarks.origin import Origin, ours
from benchmarks.registry import register_method

#: mini-ImageNet: 100 passes over 38,400 images in batches of 128, then 20 times 200 meta-steps
PRETRAINING_STEPS, EPISODIC_STEPS = 30_000, 4_000


@register_method("meta-baseline")
@dataclass(frozen=True)
class MetaBaseline(Episodic):
    """Train one network on all classes, then its embedding on episodes of cosines with class means.

    pretraining_steps: meta-steps of the first stage; None: 15 of 17 of the budget, as in the released code.
    pretraining_batch, pretraining_lr: examples per meta-step of the first stage, and Adam's rate in it.
    scale: factor of the cosine, and its start if `learned_scale`.
    learned_scale: whether episodes train the scale.

    All other fields: see `baselines.episodic.Episodic`; they are those of the second stage.
    """

    needs: ClassVar[frozenset[str]] = FineTune.needs
    origins: ClassVar[Mapping[str, Origin]] = {
        "": ours("few-shot-meta-baseline's, but for optimiser, rates and the first stage's batch; untried")
    }
    published_meta_steps: ClassVar[Mapping[str, int]] = {"miniimagenet": PRETRAINING_STEPS + EPISODIC_STEPS}

    meta_batch: int = 4
    training_queries: int = 15
    pretraining_steps: int | None = None
    pretraining_batch: int = 64
    pretraining_lr: float = 1e-3
    scale: float = 10.0
    learned_scale: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, "at least 1", "pretraining_batch")
        check_fields(self, "at least 0", "pretraining_lr")
        check_fields(self, "above 0", "scale")
        if self.pretraining_steps is not None:
            check_fields(self, "at least 0", "pretraining_steps")

    def for_budget(self, meta_steps: int) -> Self:
        if self.pretraining_steps is not None:
            return self
        return self.replace(pretraining_steps=meta_steps * PRETRAINING_STEPS // (PRETRAINING_STEPS + EPISODIC_STEPS))

    def examples_per_step(self, tasks: TaskDistribution) -> int | None:
        """The mean over both stages of a fit that the budget divides between them."""
        if self.pretraining_steps is not None:
            return None
        seen = PRETRAINING_STEPS * self.pretraining_batch + EPISODIC_STEPS * (super().examples_per_step(tasks) or 0)
        return round(seen / (PRETRAINING_STEPS + EPISODIC_STEPS))

    def fit(self, tasks: TaskDistribution, seed: int, start: State | None = None) -> Iterator[State]:
        last = PRETRAINING_STEPS if self.pretraining_steps is None else self.pretraining_steps
        left, state = last - (start.step if start else 0), start
        pooled = FineTune(batch_size=self.pretraining_batch, meta_lr=self.pretraining_lr, backbone=self.backbone)
        for state in islice(pooled.fit(tasks, seed, start), max(left, 0)):
            yield state
        if state is not None and state.step == last:
            state = self.second_stage(state, tasks, seed)
        yield from super().fit(tasks, seed, state)

    def second_stage(self, first: State, tasks: TaskDistribution, seed: int) -> State:
        """The state that episodes start from: the first stage's embedding, without its last layer and moments."""
        initial = self.initial(network_for(tasks, self.backbone), seed, tasks.device)
        parameters = {name: first.parameters.get(name, value) for name, value in initial.items()}
        _, running = split(first.buffers, "extra.")
        return State(parameters, running, step=first.step, examples=first.examples).copy()

    def extra(self, network: Network, generator: torch.Generator) -> Parameters:
        """The learned scale."""
        return {"scale": torch.tensor(self.scale)} if self.learned_scale else {}

    def answer(self, parameters: Parameters, support: Tensor, query: Tensor, y: Tensor, outputs: int) -> Tensor:
        """Scaled cosines with the class means ``[T, n, way]``; in the first stage the scale is not learned yet."""
        scale = parameters.get("scale", self.scale)
        return scale * similarity(query, class_means(support, y, outputs), "cosine")

    def describe(self, tasks: TaskDistribution) -> dict[str, Any]:
        return super().describe(tasks) | {"metric": "cosine"}
