"""CAVIA: fast context adaptation. Only a few context parameters take inner steps; all others are shared by all tasks.

Zintgraf, Shiarlis, Kurin, Hofmann and Whiteson, "Fast Context Adaptation via Meta-Learning", ICML 2019. The context phi
starts at 0 in every task and follows the gradient of the support loss; the meta-gradient passes through these steps to
the shared parameters. A network without batch-norm has phi next to its input, which adds W phi to the bias of
its first layer. A network with batch-norm is modulated (FiLM: Perez et al., AAAI 2018): W phi + b scales and shifts the
output of one layer for each task. The small random b, as in the code, is what makes the published rate work. The next
batch-norm divides the scale out, so the step of phi counts as 1/b^2: from a scale of 1 it does next to nothing.

Deviations from the paper's code (lmzintgraf/cavia):
- FiLM acts on batch-norm's output; the code has it after the max-pooling, which is the same for positive scales;
- the meta-gradient of all tasks is clipped, not that of each task;
- weights are initialised as `benchmarks.models.Network.initialise` says, not after Kaiming;
- Adam's rate is constant; the code's falls by 10 % every 5,000 meta-steps on mini-ImageNet.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from benchmarks.api import LabelledSet, Parameters, Predictor, State, TaskDistribution, adaptation_field
from benchmarks.checks import check_fields
from benchmarks.execution.plans import Plan
from benchmarks.models import Network, NetworkPredictor, network_for, split
from benchmarks.models.backbones import MLP
from benchmarks.origin import Origin, ours, paper
from benchmarks.registry import register_method
from maml.gradient import QueryLoss
from maml.inner_loop import InnerLoop
from maml.losses import LossScale
from maml.maml import MAML

CONTEXT, WEIGHT, BIAS = "extra.context", "extra.weight", "extra.bias"


@register_method("cavia")
@dataclass(frozen=True)
class CAVIA(MAML):
    """Learn a network with a few context parameters, which alone adapt to a task by gradient steps.

    context: how many context parameters there are.
    film_layer: number of the batch-norm, from 1, whose output they scale and shift; unused without batch-norm.

    All other fields: see `maml.maml.MAML`; `inner_lr` is the rate of the context.
    """

    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "sinusoid": {"context": 5, "meta_batch": 25, "inner_steps": 1, "test_steps": (1, 5, 10), "clip": 10.0},
        "miniimagenet": {"context": 100, "inner_steps": 2, "test_steps": (2,), "training_queries": 15, "clip": 10.0},
    }
    published_meta_steps: ClassVar[Mapping[str, int]] = {"sinusoid": 50_000, "miniimagenet": 60_000}
    origins: ClassVar[Mapping[str, Origin]] = {
        **dict.fromkeys(("sinusoid", "miniimagenet"), paper("the defaults of lmzintgraf/cavia")),
        "": ours(
            "the paper's for mini-ImageNet; on Omniglot 59 % on validation tasks after 200 meta-steps, all else untried"
        ),
    }

    context: int = 100
    film_layer: int = 3
    inner_lr: float = 1.0
    inner_steps: int = 2
    test_steps: tuple[int, ...] = adaptation_field((1, 2, 5))
    loss_scale: LossScale = "mean"
    #: the network belongs to all tasks
    adapt_normalisation: ClassVar[bool] = False  # type: ignore[misc]
    adapted_layers: ClassVar[int] = 0  # type: ignore[misc]

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, "at least 1", "context", "film_layer")

    def refuses(self, tasks: TaskDistribution) -> str | None:
        network, name = network_for(tasks, self.backbone), self.backbone or tasks.backbone
        if not network.normalised:
            fits = isinstance(network.backbone, MLP) and len(network.input_shape) == 1
            return None if fits else f"backbone {name!r} has no batch-norm to modulate and no vector as its input"
        layers = list(network.backbone.batch_norms(network.input_shape))
        if self.film_layer > len(layers):
            return f"film_layer = {self.film_layer}: backbone {name!r} has {len(layers)} batch-norm layers"
        layer = layers[self.film_layer - 1]
        known = {part for part, _ in network.backbone.shapes(network.input_shape)}
        missing = {f"{layer}.scale", f"{layer}.shift"} - known
        return f"batch-norm {layer!r} of backbone {name!r} has no scale and shift" if missing else None

    def initial(self, tasks: TaskDistribution, seed: int) -> Parameters:
        """The network, and W ``[units, context]`` and for FiLM b ``[units]``, uniform as a linear layer is."""
        network = network_for(tasks, self.backbone)
        layer = self._layer(network)
        if layer:
            units, inputs = 2 * network.backbone.batch_norms(network.input_shape)[layer], self.context
        else:
            units, inputs = network.backbone.widths[0], network.input_shape[0] + self.context  # type: ignore[attr-defined]
        generator = torch.Generator().manual_seed(seed + 1)
        shapes: dict[str, tuple[int, ...]] = {WEIGHT: (units, self.context)}
        if layer:
            shapes[BIAS] = (units,)
        drawn = {name: 2 * torch.rand(shape, generator=generator) - 1 for name, shape in shapes.items()}
        own = {name: (value / math.sqrt(inputs)).to(tasks.device) for name, value in drawn.items()}
        return super().initial(tasks, seed) | own

    def _layer(self, network: Network) -> str:
        """The name of the modulated batch-norm; "" where the context stands next to the input."""
        layers = list(network.backbone.batch_norms(network.input_shape))
        return layers[self.film_layer - 1] if layers else ""

    def adapt(self, state: State, support: Any, tasks: TaskDistribution) -> Iterator[Predictor]:
        return super().adapt(dataclasses.replace(state, parameters=with_context(state.parameters)), support, tasks)

    def _objective(
        self, tasks: TaskDistribution, rate: float, plan: Plan | None, second_order: bool | None = None
    ) -> QueryLoss:
        plain = super()._objective(tasks, rate, plan, second_order)
        return ContextLoss(**vars(plain), layer=self._layer(plain.network))

    def describe(self, tasks: TaskDistribution) -> dict[str, Any]:
        return super().describe(tasks) | {"context": self.context}


@dataclass(frozen=True)
class ContextLoss(QueryLoss):
    """The loss on the queries after inner steps of the context.

    layer: the batch-norm that the context modulates; "": it stands next to the input."""

    layer: str = field(kw_only=True)

    @property
    def inner(self) -> InnerLoop:
        """The inner loop, whose steps move the context alone."""
        return dataclasses.replace(super().inner, adapted=lambda name: name == CONTEXT)

    def predictor(
        self, theta: Mapping[str, Tensor], regime: str = "", support: Tensor | None = None
    ) -> NetworkPredictor:
        return super().predictor(conditioned(theta, self.layer), regime, support)

    def gradient(
        self, parameters: Parameters, support: LabelledSet, query: LabelledSet
    ) -> tuple[Tensor, Sequence[Tensor]]:
        loss, (*gradients, _) = super().gradient(with_context(parameters), support, query)
        return loss, gradients

    def checkpointed_gradient(
        self, parameters: Parameters, support: LabelledSet, query: LabelledSet
    ) -> tuple[Tensor, Sequence[Tensor]]:
        loss, (*gradients, _) = super().checkpointed_gradient(with_context(parameters), support, query)
        return loss, gradients


def with_context(parameters: Mapping[str, Tensor]) -> Parameters:
    """The parameters and, last, the context of a new task: zeros."""
    return {**parameters, CONTEXT: parameters[WEIGHT].new_zeros(parameters[WEIGHT].shape[-1])}


def conditioned(theta: Mapping[str, Tensor], layer: str) -> Parameters:
    """The network's parameters ``[T, ...]`` under the contexts ``[T, context]``.

    layer: the batch-norm that is modulated; "": the first layer's bias moves."""
    own, network = split(theta, "extra.")
    effect = (own["weight"] @ own["context"].unsqueeze(-1)).squeeze(-1)
    if not layer:
        return network | {"layer0.bias": network["layer0.bias"] + effect}
    scale, shift = f"{layer}.scale", f"{layer}.shift"
    gain, moved = (effect + own["bias"]).chunk(2, 1)
    return network | {scale: gain * network[scale], shift: gain * network[shift] + moved}
