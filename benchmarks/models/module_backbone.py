"""Your own `torch.nn.Module`, called with other parameters.

The module's mode, frozen parameters (``requires_grad_(False)``), tied parameters and buffers are kept as the factory
returns them. Frozen parameters and buffers are constants that all tasks share. Batch-norm in training mode takes its
statistics from the regime, with the layer's own scale, shift, epsilon and running statistics; in eval mode it stays as
it is. The momentum of running statistics is the suite's.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.models.normalisation import Statistics, batch_norm

#: the shape of one input -> a module from inputs ``[n, *input_shape]`` to features ``[n, d]``
Factory = Callable[[tuple[int, ...]], nn.Module]
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class TaskBatchNorm(nn.Module):
    """Batch-norm with the statistics that `ModuleBackbone` sets before each call."""

    statistics = Statistics()

    def __init__(self, name: str, own: nn.modules.batchnorm._BatchNorm) -> None:
        super().__init__()
        self.name, self.epsilon, features = name, own.eps, own.num_features
        mean, variance = own.running_mean, own.running_var
        self.running = {
            f"{name}.mean": torch.zeros(features) if mean is None else mean,
            f"{name}.variance": torch.ones(features) if variance is None else variance,
        }
        if own.affine:
            self.scale, self.shift = own.weight, own.bias
        else:
            self.register_buffer("scale", torch.ones(features))
            self.register_buffer("shift", torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        return batch_norm(x, self.scale, self.shift, self.statistics, self.name, self.epsilon)


@dataclass(frozen=True)
class ModuleBackbone:
    """A factory's module for one shape of input, with parameters ``[1, ...]``, for `features_per_task`.

    Don't call it in several threads at once: parameters and statistics are set on the module during a call."""

    factory: Factory
    input_shape: tuple[int, ...]

    @property
    def module(self) -> nn.Module:
        """The module of seed 0, with its batch-norm layers replaced: don't change it."""
        return _module(self)

    def own(self, seed: int) -> nn.Module:
        """A copy of the module as the factory returns it; leaves the global generator and the module as they were."""
        with torch.random.fork_rng(devices=[]):
            # modules of torch draw their initial values from this generator and know no other
            torch.default_generator.set_state(torch.Generator().manual_seed(seed).get_state())
            return copy.deepcopy(self.factory(self.input_shape))

    def batch_norms(self, input_shape: tuple[int, ...]) -> dict[str, int]:
        return {part.name: part.scale.numel() for part in _norms(self.module)}

    def shapes(self, input_shape: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
        for name, value in _trained(self.module).items():
            yield name, tuple(value.shape)

    def initial(self, seed: int) -> dict[str, Tensor]:
        """The module's own initial values, the same for the same seed."""
        module = _with_task_batch_norm(self.own(seed))
        return {name: value.detach() for name, value in _trained(module).items()}

    def running(self) -> dict[str, Tensor]:
        """The running statistics that the batch-norm layers start with."""
        return {name: value for part in _norms(self.module) for name, value in part.running.items()}

    def embedding_size(self, input_shape: tuple[int, ...]) -> int:
        with torch.no_grad():
            return int(self.module(torch.zeros(2, *self.input_shape)).flatten(1).shape[1])

    def __call__(self, parameters: Mapping[str, Tensor], x: Tensor, statistics: Statistics) -> Tensor:
        tasks, n = x.shape[:2]
        module = self.module
        norms = _norms(module)
        own = {place: parameters[name][0] if name else _like(value, x) for place, name, value in _places(module)}
        try:
            for part in norms:
                part.statistics = statistics.for_tasks(tasks)
            # the other back ends of attention have no second derivative
            with sdpa_kernel(SDPBackend.MATH):
                features: Tensor = functional_call(module, own, (x.flatten(0, 1),), tie_weights=False)
        finally:
            for part in norms:
                part.statistics = Statistics()
        return features.reshape(tasks, n, -1)


@functools.cache
def _module(backbone: ModuleBackbone) -> nn.Module:
    return _with_task_batch_norm(backbone.own(0))


def _with_task_batch_norm(module: nn.Module) -> nn.Module:
    """The module with its batch-norm layers replaced, but for those in eval mode."""
    replaced: dict[int, TaskBatchNorm] = {}
    for name, part in list(module.named_modules(remove_duplicate=False)):
        if isinstance(part, _BATCH_NORMS) and (part.training or part.running_mean is None):
            owner, _, last = name.rpartition(".")
            task_norm = replaced.setdefault(id(part), TaskBatchNorm(name, part))
            setattr(module.get_submodule(owner), last, task_norm)
    return module


def _norms(module: nn.Module) -> list[TaskBatchNorm]:
    return [part for part in module.modules() if isinstance(part, TaskBatchNorm)]


def _trained(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that are not frozen; of tied ones the first."""
    return {name: value for name, value in module.named_parameters() if value.requires_grad}


def _places(module: nn.Module) -> Iterator[tuple[str, str, Tensor]]:
    """Every place of a parameter or buffer, its value, and the name of the trained parameter; "" for a constant.

    Tied parameters have several places. A layer that stands in the module under two names counts once:
    `functional_call` would set it twice and restore the wrong value."""
    names = {id(value): name for name, value in _trained(module).items()}
    for path, part in module.named_modules():
        for kind in (part.named_parameters, part.named_buffers):
            for place, value in kind(path, recurse=False, remove_duplicate=False):
                yield place, names.get(id(value), ""), value


def _like(constant: Tensor, x: Tensor) -> Tensor:
    """A frozen parameter or a buffer on the device and in the precision of the inputs."""
    return constant.detach().to(x.device, x.dtype if constant.is_floating_point() else None)
