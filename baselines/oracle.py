"""The oracle of regression: it is told which task it is.

Finn, Abbeel and Levine, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks", ICML 2017, section 5.1:
"an oracle which receives the true amplitude and phase as input", an upper bound on performance. It is the task's own
network with the parameters of the task as further inputs, trained on all tasks; it takes no steps on the support set.

Deviation from the released code (cbfinn/maml, ``--baseline=oracle``): the queries of a training episode are trained on
as well as its support set.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from benchmarks.api import LabelledSet, Memory, MetaLearner, Parameters, Predictor, State, TaskDistribution
from benchmarks.checks import check_fields
from benchmarks.models import Network, network_for
from benchmarks.origin import Origin, ours, paper
from benchmarks.registry import register_method
from benchmarks.training import descend, examples_of, training_indices
from maml.inner_loop import detached, per_task
from maml.losses import supervised_loss


@register_method("oracle")
@dataclass(frozen=True)
class Oracle(MetaLearner):
    """Learn the target from x and the task's own parameters: what could be reached if the task were known.

    meta_batch, meta_lr: tasks per meta-step, and Adam's rate.
    backbone: a name of `benchmarks.models.BACKBONES` without batch-norm; "": the task's own.
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"regression"})
    role: ClassVar[str] = "ceiling"
    needs: ClassVar[frozenset[str]] = frozenset({"parameters"})
    #: cbfinn/maml's README: 70,000 iterations of 25 tasks
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {"sinusoid": {"meta_batch": 25}}
    origins: ClassVar[Mapping[str, Origin]] = {
        "sinusoid": paper("cbfinn/maml, README"),
        "": ours("Adam's rate as on the sinusoid; untried"),
    }
    published_meta_steps: ClassVar[Mapping[str, int]] = {"sinusoid": 70_000}

    meta_batch: int = 16
    meta_lr: float = 1e-3
    backbone: str = ""

    def __post_init__(self) -> None:
        check_fields(self, "at least 1", "meta_batch")
        check_fields(self, "at least 0", "meta_lr")

    def refuses(self, tasks: TaskDistribution) -> str | None:
        normalised = network_for(tasks, self.backbone).normalised
        return "oracle takes a backbone without batch-norm" if normalised else None

    def examples_per_step(self, tasks: TaskDistribution) -> int:
        return examples_of(tasks, queries=None, episodes=self.meta_batch)

    def fit(self, tasks: TaskDistribution, seed: int, start: State | None = None) -> Iterator[State]:
        network = self._network(tasks, tasks.episodes("train", training_indices(seed, 0, 1)).support)

        def loss(parameters: Parameters, buffers: Parameters, step: int) -> tuple[Tensor, int]:
            episodes = tasks.episodes("train", training_indices(seed, step, self.meta_batch))
            support, query = episodes.support, episodes.query
            both = LabelledSet(torch.cat((support.x, query.x), 1), torch.cat((support.y, query.y), 1))
            predictor = Informed(network, per_task(parameters, 1), support.parameters)
            return supervised_loss(predictor, both).mean(), both.y.shape[:2].numel()

        yield from descend(network.initialise(seed, tasks.device), loss, learning_rate=self.meta_lr, start=start)

    def adapt(self, state: State, support: Any, tasks: TaskDistribution) -> Iterator[Predictor]:
        parameters = per_task(detached(state.parameters), 1)
        yield Informed(self._network(tasks, support), parameters, support.parameters)

    def _network(self, tasks: TaskDistribution, support: LabelledSet) -> Network:
        """The network of the tasks, with as many further inputs as a task has parameters."""
        assert support.parameters is not None
        network = network_for(tasks, self.backbone)
        inputs = math.prod(tasks.input_shape) + support.parameters.shape[1]
        return Network(network.backbone, (inputs,), network.outputs)

    def describe(self, tasks: TaskDistribution) -> dict[str, Any]:
        return {"backbone": self.backbone or tasks.backbone}


@dataclass(frozen=True)
class Informed:
    """A predictor that appends the parameters of each task, ``[T, p]``, to every input."""

    network: Network
    parameters: Mapping[str, Tensor]
    told: Tensor

    def __call__(self, x: Tensor, memory: Memory = None) -> tuple[Tensor, Memory]:
        told = self.told.unsqueeze(1).expand(-1, x.shape[1], -1)
        return self.network(self.parameters, torch.cat((x.flatten(2), told), 2)), None
