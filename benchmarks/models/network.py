"""A network: a backbone with a linear head, and the predictor that its adapted parameters make."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.api import Memory, Parameters, Predictor, TaskDistribution
from benchmarks.checks import check_known
from benchmarks.models.backbones import BACKBONES, Backbone, linear
from benchmarks.models.normalisation import Statistics
from benchmarks.models.per_task import features_per_task


@dataclass(frozen=True)
class Network:
    """A backbone with a linear head of ``outputs`` units; its parameters are plain tensors by name.

    per_task: how the backbone runs on T tasks, one of `benchmarks.execution.plans.PerTask`. why: the error of
    `torch.vmap`, if it failed."""

    backbone: Backbone
    input_shape: tuple[int, ...]
    outputs: int
    per_task: str = "layers"
    why: str = ""

    @property
    def embedding_size(self) -> int:
        """The number of features of one input."""
        return self.backbone.embedding_size(self.input_shape)

    @property
    def normalised(self) -> bool:
        """Whether the backbone has batch-norm."""
        return bool(self.backbone.batch_norms(self.input_shape))

    @property
    def normalisation(self) -> frozenset[str]:
        """The names of batch-norm's scale and shift."""
        layers = self.backbone.batch_norms(self.input_shape)
        return frozenset(f"{layer}.{part}" for layer in layers for part in ("scale", "shift"))

    @property
    def layers(self) -> list[list[str]]:
        """The names of each layer's parameters, from the input to the head. Batch-norm belongs to the layer before."""
        layers: dict[str, list[str]] = {}
        owner = ""
        for name, _ in self.backbone.shapes(self.input_shape):
            owner = owner if name in self.normalisation else name.rpartition(".")[0]
            layers.setdefault(owner, []).append(name)
        return [*layers.values(), ["head.weight", "head.bias"]]

    def initialise(self, seed: int, device: torch.device | str = "cpu") -> Parameters:
        """Parameters without a task axis, the same for the same seed on every device.

        Weights of convolutions are uniform (Glorot and Bengio 2010), of linear layers U(-1, 1)/sqrt(inputs);
        biases of convolutions 0, of linear layers as their weights."""
        generator = torch.Generator().manual_seed(seed)
        shapes = dict(self.backbone.shapes(self.input_shape))
        shapes["head.weight"], shapes["head.bias"] = (self.outputs, self.embedding_size), (self.outputs,)
        own = getattr(self.backbone, "initial", None)
        parameters = {name: value.to(device) for name, value in own(seed).items()} if own else {}
        bound = 0.0
        for name, shape in shapes.items():
            if name in parameters:
                continue
            part = name.rpartition(".")[2]
            if part == "weight":
                window = math.prod(shape[2:])
                convolution = len(shape) == 4
                bound = math.sqrt(6 / (window * (shape[0] + shape[1]))) if convolution else 1 / math.sqrt(shape[1])
                value = (torch.rand(shape, generator=generator) * 2 - 1) * bound
                bound = 0.0 if convolution else bound
            elif part == "bias":
                value = (torch.rand(shape, generator=generator) * 2 - 1) * bound
            else:
                value = torch.ones(shape) if part == "scale" else torch.zeros(shape)
            parameters[name] = value.to(device)
        return parameters

    def running_statistics(self, device: torch.device | str = "cpu") -> Parameters:
        """The start of the running statistics: mean 0 and variance 1 for every batch-norm, or a module's own."""
        if own := getattr(self.backbone, "running", None):
            return {name: value.to(device, copy=True) for name, value in own().items()}
        layers = self.backbone.batch_norms(self.input_shape)
        means = {f"{layer}.mean": torch.zeros(channels, device=device) for layer, channels in layers.items()}
        return means | {f"{layer}.variance": torch.ones(channels, device=device) for layer, channels in layers.items()}

    def features(self, parameters: Mapping[str, Tensor], x: Tensor, statistics: Statistics | None = None) -> Tensor:
        """The embedding ``[T, n, d]`` of inputs ``[T, n, *input_shape]``; parameters ``[T or 1, ...]``."""
        if self.per_task == "layers":
            return self.backbone(parameters, x, statistics or Statistics())
        return features_per_task(self.backbone, self.per_task, parameters, x, statistics or Statistics())

    def __call__(self, parameters: Mapping[str, Tensor], x: Tensor, statistics: Statistics | None = None) -> Tensor:
        """Outputs ``[T, n, outputs]`` of inputs ``[T, n, *input_shape]``; parameters ``[T or 1, ...]``.

        Batch-norm takes the statistics of each task's own inputs unless told otherwise."""
        return linear(parameters["head.weight"], parameters["head.bias"], self.features(parameters, x, statistics))


def network_for(tasks: TaskDistribution, backbone: str | None = None, outputs: int | None = None) -> Network:
    """The network for a task distribution: its own backbone, or another by name."""
    name = backbone or tasks.backbone
    check_known("backbone", name, BACKBONES)
    backbone_for = getattr(BACKBONES[name], "for_inputs", None)
    chosen, *how = backbone_for(tasks.input_shape) if backbone_for else (BACKBONES[name],)
    return Network(chosen, tasks.input_shape, tasks.outputs if outputs is None else outputs, *how)


def applied(network: Network, how: str) -> Network:
    """The network with its backbone run by "vmap" or in a "loop"; "layers": as it is."""
    return network if how == "layers" else dataclasses.replace(network, per_task=how, why="")


def last_layer(parameters: Mapping[str, Tensor]) -> Predictor:
    """The head alone, with parameters ``[T, ...]``, on embeddings ``[T, n, d]``."""
    weight, bias = parameters["head.weight"], parameters["head.bias"]
    return lambda x, memory=None: (linear(weight, bias, x), None)


@dataclass(frozen=True)
class NetworkPredictor:
    """A network with (adapted) parameters ``[T or 1, ...]``, under a batch-norm regime.

    regime: "query" takes the statistics of the batch of queries; "support" those of the support set, passed through
        these parameters; "single" those of the support set and one query at a time; "running" those of meta-training.
        "": the first of `regimes`.
    support: the support inputs ``[T, k, *input_shape]``, for "support" and "single".
    running: the running statistics, for "running".
    embed: predict the embedding instead of the outputs.
    """

    network: Network
    parameters: Mapping[str, Tensor]
    regime: str = ""
    support: Tensor | None = None
    running: Mapping[str, Tensor] | None = None
    embed: bool = False

    @property
    def regimes(self) -> tuple[str, ...]:
        """The regimes it has the data for, the default first; ("none",) for a network without batch-norm."""
        if not self.network.normalised:
            return ("none",)
        running = ("running",) if self.running is not None else ()
        return (*running, "query", *(("support", "single") if self.support is not None else ()))

    def in_regime(self, name: str) -> NetworkPredictor:
        """The same predictor under another regime."""
        return dataclasses.replace(self, regime=name)

    def __call__(self, x: Tensor, memory: Memory = None) -> tuple[Tensor, Memory]:
        return self._predict(x), None

    def _predict(self, x: Tensor) -> Tensor:
        apply = self.network.features if self.embed else self.network.__call__
        regime = self.regime or self.regimes[0]
        if not self.network.normalised or regime == "query":
            return apply(self.parameters, x)
        if regime == "running":
            if self.running is None:
                raise ValueError("the running regime needs running statistics")
            return apply(self.parameters, x, Statistics(running=self.running))
        if self.support is None:
            raise ValueError(f"the {regime} regime needs the support inputs")
        if regime == "support":
            k = self.support.shape[1]
            return apply(self.parameters, torch.cat((self.support, x), 1), Statistics(first=k))[:, k:]
        return self._one_query_at_a_time(apply, x)

    def _one_query_at_a_time(self, apply, x: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        """Sets of the support inputs and one query, ``[T, n * (k + 1), ...]``, each with its own statistics."""
        n = x.shape[1]
        support = self.support.unsqueeze(1).expand(-1, n, *self.support.shape[1:])  # type: ignore[union-attr]
        sets = torch.cat((support, x.unsqueeze(2)), 2)
        output = apply(self.parameters, sets.flatten(1, 2), Statistics(groups=n))
        return output.unflatten(1, (n, -1))[:, :, -1]
