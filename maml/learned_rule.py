"""A learned learning rule.

Bengio, Bengio, Cloutier and Gecsei, "On the Optimization of a Synaptic Learning Rule", Conference on Optimality in
Biological and Artificial Networks 1992 (Bengio, Bengio and Cloutier, 1991): the weight of every synapse changes by one
parametric function of what is known where it is: the activity of the unit before it, the potential of the unit after
it, a modulating signal, and its own strength. The function is the same for all synapses; its few parameters are
optimised by gradient descent over tasks.

Here the function is linear in the seven products of `TERMS`; the modulator is the error of the potential, passed back
through the network. Minus one for "activity times error" and 0 elsewhere is gradient descent, where training starts;
"activity times potential" is Hebb's rule, "weight" a decay.

Deviations from the paper:
- it takes other products, and modulating neurons in fixed circuits;
- the changes by the examples of the support set are averaged (those by the error are summed, as the loss is a mean);
- the initialisation is learned with the rule; ``learned_start=False`` leaves it as it was drawn;
- a bias is the synapse of a unit of constant activity 1.

The rule is local to fully connected layers: it takes backbones without convolutions and batch-norm, on images
``mlp-40-40`` over the pixels. Its cost is that of MAML.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.api import Parameters, TaskDistribution
from benchmarks.models import NetworkPredictor, join, network_for, split
from benchmarks.models.backbones import MLP, linear
from benchmarks.origin import Origin, ours
from benchmarks.registry import register_method
from maml.inner_loop import UpdateRule, detached
from maml.trained_rule import TrainedRule

#: what the change of a weight from unit i to unit j is made of; the order of the parameters ``rule.terms``
TERMS = (
    "activity",  # of i
    "potential",  # of j
    "error",  # of j
    "activity times potential",
    "activity times error",
    "potential times weight",
    "weight",
)


@dataclass(frozen=True)
class LocalRule:
    """w' = w + rate * (sum of the terms, each with its parameter).

    learned_start: whether the meta-gradient reaches the initialisation.
    """

    rate: float
    learned_start: bool = True

    def start(self, parameters: Mapping[str, Tensor]) -> Parameters:
        return split(parameters, "rule.")[0]

    def observe(self, predictor: NetworkPredictor, batch: Any) -> Parameters:
        """For each layer the means over examples of the activities ``[T, 1, i]``, the potentials ``[T, j, 1]`` and
        their products ``[T, j, i]``, with the constant unit of the bias as the last of i."""
        found = {}
        for layer, activity, potential in potentials(predictor.parameters, batch.x):
            activity = F.pad(activity, (0, 1), value=1.0)
            found[f"{layer}.activity"] = activity.mean(1, keepdim=True)
            found[f"{layer}.potential"] = potential.mean(1).unsqueeze(-1)
            found[f"{layer}.product"] = potential.transpose(1, 2) @ activity / activity.shape[1]
        return join("observed.", found)

    def step(
        self, memory: Parameters, values: Parameters, gradients: Parameters, losses: Tensor, number: int
    ) -> tuple[Parameters, Parameters]:
        observed, learned = split(memory, "observed.")
        if number == 0 and not self.learned_start:
            observed, values, gradients = map(detached, (observed, values, gradients))
        stepped: Parameters = {}
        factors = learned["terms"][..., None, None].unbind(1)
        for layer in layers_of(values):
            weight, slope = (with_bias(each, layer) for each in (values, gradients))
            activity, potential, both = (observed[f"{layer}.{name}"] for name in ("activity", "potential", "product"))
            terms = (activity, potential, slope[..., -1:], both, slope, potential * weight, weight)
            change = sum(factor * term for factor, term in zip(factors, terms, strict=True))
            moved = weight + self.rate * change
            stepped |= {f"{layer}.weight": moved[..., :-1], f"{layer}.bias": moved[..., -1]}
        return stepped, learned


def layers_of(parameters: Mapping[str, Tensor]) -> list[str]:
    """The names of fully connected layers, from the first to the head."""
    return [name.removesuffix(".weight") for name in parameters if name.endswith(".weight")]


def with_bias(parameters: Mapping[str, Tensor], layer: str) -> Tensor:
    """The weights of a layer with its bias as the last column, ``[T, j, i + 1]``."""
    return torch.cat((parameters[f"{layer}.weight"], parameters[f"{layer}.bias"].unsqueeze(-1)), -1)


def potentials(parameters: Mapping[str, Tensor], x: Tensor) -> Iterator[tuple[str, Tensor, Tensor]]:
    """For each layer its name, the activities ``[T, n, i]`` before it and the potentials ``[T, n, j]`` after it."""
    activity = x.flatten(2)
    for layer in layers_of(parameters):
        potential = linear(parameters[f"{layer}.weight"], parameters[f"{layer}.bias"], activity)
        yield layer, activity, potential
        activity = F.relu(potential)


@register_method("learned-rule")
@dataclass(frozen=True)
class LearnedRule(TrainedRule):
    """Learn one local rule by which every synapse of a network changes.

    inner_lr, test_lr: factor of the change of a weight.
    learned_start: whether the initialisation is learned, too.

    All other fields: see `maml.trained_rule.TrainedRule`.
    """

    origins: ClassVar[Mapping[str, Origin]] = {"": ours("starts as gradient descent; rate and steps untried")}

    inner_lr: float = 0.01
    second_order: bool = True
    backbone: str = "mlp-40-40"
    learned_start: bool = True

    def refuses(self, tasks: TaskDistribution) -> str | None:
        if self.adapted_layers == 1:
            return "adapted_layers = 1 embeds the support set once; learned-rule reads the activities of all layers"
        backbone = network_for(tasks, self.backbone).backbone
        if isinstance(backbone, MLP) and not backbone.normalised:
            return super().refuses(tasks)
        name = self.backbone or tasks.backbone
        return f"learned-rule is for fully connected layers without batch-norm, not {name}; known: mlp-40-40"

    def trained(self, generator: torch.Generator) -> Parameters:
        """Gradient descent."""
        return {"terms": torch.tensor([-1.0 if term == "activity times error" else 0.0 for term in TERMS])}

    def update_rule(self, rate: float) -> UpdateRule:
        return LocalRule(rate, self.learned_start)
