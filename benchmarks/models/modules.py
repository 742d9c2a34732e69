"""A user's `torch.nn.Module` as a backbone: called with other parameters, under `torch.vmap` where that works.

A batch-norm whose statistics are an argument replaces torch's, so the module has every regime. Its weight and bias are
called scale and shift; running statistics of the module are not used.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call

from benchmarks.errors import MetabenchError
from benchmarks.models.backbones import BACKBONES
from benchmarks.models.normalisation import Statistics, batch_norm
from benchmarks.models.parts import PREFIXES
from benchmarks.models.per_task import PerTask
from benchmarks.registry import other_files

#: the shape of one input -> a module from inputs ``[n, *input_shape]`` to features ``[n, d]``
Factory = Callable[[tuple[int, ...]], nn.Module]
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class TaskBatchNorm(nn.Module):
    """Batch-norm with the statistics that `ModuleBackbone` sets before each call."""

    statistics = Statistics()

    def __init__(self, name: str, features: int) -> None:
        super().__init__()
        self.name = name
        self.scale, self.shift = nn.Parameter(torch.ones(features)), nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        return batch_norm(x, self.scale, self.shift, self.statistics, self.name)


@dataclass(frozen=True)
class ModuleBackbone:
    """A factory's module for one input shape, with parameters ``[1, ...]``: the inner backbone of `PerTask`.

    Not thread-safe: a call sets parameters and statistics on the module."""

    factory: Factory
    input_shape: tuple[int, ...]

    def batch_norms(self, input_shape: tuple[int, ...]) -> dict[str, int]:
        parts = (part for part in _module(self).modules() if isinstance(part, TaskBatchNorm))
        return {part.name: part.scale.numel() for part in parts}

    def shapes(self, input_shape: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
        for name, value in _module(self).named_parameters():
            yield name, tuple(value.shape)

    def initial(self, seed: int) -> dict[str, Tensor]:
        """The module's own initial values, the same for the same seed."""
        return {name: value.detach() for name, value in _make(self.factory, self.input_shape, seed).named_parameters()}

    def embedding_size(self, input_shape: tuple[int, ...]) -> int:
        with torch.no_grad():
            return int(_module(self)(torch.zeros(2, *self.input_shape)).flatten(1).shape[1])

    def __call__(self, parameters: Mapping[str, Tensor], x: Tensor, statistics: Statistics) -> Tensor:
        tasks, n = x.shape[:2]
        module = _module(self)
        norms = [part for part in module.modules() if isinstance(part, TaskBatchNorm)]
        own = {name: parameters[name][0] for name, _ in module.named_parameters()}
        try:
            for part in norms:
                part.statistics = statistics.for_tasks(tasks)
            features: Tensor = functional_call(module, own, (x.flatten(0, 1),))
        finally:
            for part in norms:
                part.statistics = Statistics()
        return features.reshape(tasks, n, -1)


@dataclass(frozen=True)
class OwnBackbone:
    """The entry of `register_backbone`; a backbone once the shape of the inputs is known."""

    name: str
    factory: Factory

    @property
    def path(self) -> Path:
        """The file of the factory."""
        return Path(getattr(sys.modules.get(self.factory.__module__), "__file__", None) or "")

    def for_inputs(self, input_shape: tuple[int, ...]) -> PerTask:
        """The backbone for these inputs; raises `MetabenchError` if the module does not serve as one."""
        return _backbone(self.name, self.factory, input_shape)


def register_backbone(name: str, factory: Factory) -> None:
    """Make a module known as a backbone, for ``--set maml.backbone=name``."""
    own = OwnBackbone(name, factory)
    BACKBONES[name] = own  # type: ignore[assignment]
    other_files.add(own.path.resolve())


def own_factories(backbone: str | None) -> list[Factory]:
    """The factory behind the name of a registered module, to hash its code."""
    found = BACKBONES.get(backbone or "")
    return [found.factory] if isinstance(found, OwnBackbone) else []


@functools.cache
def _backbone(name: str, factory: Factory, input_shape: tuple[int, ...]) -> PerTask:
    inner = ModuleBackbone(factory, input_shape)
    try:
        x = torch.zeros(2, 3, *input_shape)
        values = inner.initial(0)
        with torch.no_grad():
            features = _module(inner)(x[0])
    except Exception as error:
        line = " ".join(f"{type(error).__name__}: {error}".split())
        raise MetabenchError(f"backbone {name!r} fails on inputs of shape {input_shape}: {line}") from error
    if features.shape[0] != 3:
        raise MetabenchError(f"backbone {name!r} makes {tuple(features.shape)} of 3 inputs, not 3 rows of features")
    if taken := [name for name in values if name.startswith(PREFIXES)]:
        raise MetabenchError(f"backbone {name!r} has a parameter {taken[0]!r}; rename it: {PREFIXES} are taken")
    if next(_module(inner).buffers(), None) is not None:
        raise MetabenchError(f"backbone {name!r} has buffers, which tasks would share: only parameters are adapted")
    theta = {key: value.expand(2, *value.shape).clone().requires_grad_() for key, value in values.items()}
    try:
        tried = PerTask(inner, "vmap")(theta, x, Statistics())
        torch.autograd.grad(tried.sum(), list(theta.values()), allow_unused=True)
    except Exception as error:
        return PerTask(inner, "loop", " ".join(f"torch.vmap: {type(error).__name__}: {error}".split())[:200])
    return PerTask(inner, "vmap")


@functools.cache
def _module(backbone: ModuleBackbone) -> nn.Module:
    return _make(backbone.factory, backbone.input_shape, 0)


def _make(factory: Factory, input_shape: tuple[int, ...], seed: int) -> nn.Module:
    """The module in training mode, with batch-norm replaced; leaves the global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        # modules of torch draw their initial values from this generator and know no other
        torch.default_generator.set_state(torch.Generator().manual_seed(seed).get_state())
        module = factory(input_shape)
    for name, part in list(module.named_modules()):
        if isinstance(part, _BATCH_NORMS):
            owner, _, last = name.rpartition(".")
            setattr(module.get_submodule(owner), last, TaskBatchNorm(name, part.num_features))
    return module.train()
