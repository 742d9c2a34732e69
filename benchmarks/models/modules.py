"""Your own `torch.nn.Module` as a backbone: registered by name, and tried before anything is trained.

The module is applied to all tasks at once by `torch.vmap` where that works, else task after task. One that breaks a
promise of the contract is refused by `network_for` in one line.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.checks import check_name
from benchmarks.errors import MetabenchError
from benchmarks.models.backbones import BACKBONES
from benchmarks.models.module_backbone import Factory, ModuleBackbone
from benchmarks.models.normalisation import Statistics
from benchmarks.models.parts import PREFIXES
from benchmarks.models.per_task import features_per_task
from benchmarks.registry import other_files

_RANDOM_LAYERS = (nn.modules.dropout._DropoutNd, nn.RReLU)


@dataclass(frozen=True)
class OwnBackbone:
    """The entry that `register_backbone` adds to the backbones; it becomes one when the shape of inputs is known."""

    name: str
    factory: Factory

    @property
    def path(self) -> Path:
        """The file of the factory."""
        return Path(getattr(sys.modules.get(self.factory.__module__), "__file__", None) or "")

    def for_inputs(self, input_shape: tuple[int, ...]) -> tuple[ModuleBackbone, str, str]:
        """The backbone for these inputs, how it runs on T tasks, and why; raises `MetabenchError` for a module that
        can't be used."""
        return _backbone(self.name, self.factory, input_shape)


def register_backbone(name: str, factory: Factory) -> None:
    """Make a module known as a backbone, for ``--set maml.backbone=name``.

    factory: a function or class of the file that registers it, for the code of that file is part of a cell's key.
    Nothing changes the module that it returns: the suite works on a copy."""
    caller = sys._getframe(1).f_globals
    own, file = OwnBackbone(name, factory), Path(caller.get("__file__") or "")
    check_name(f"{file}: registered", name)
    if not hasattr(factory, "__qualname__") or factory.__module__ != caller["__name__"]:
        raise MetabenchError(
            f"{file}: for backbone {name!r}, write a function here that makes it: the key has no code of {factory}"
        )
    rival: Any = BACKBONES.get(name)
    ours = isinstance(rival, OwnBackbone) and (rival.path == own.path or rival.path.resolve() not in other_files)
    if rival is not None and not ours:
        raise MetabenchError(f"backbone {name!r} of {file} has the name of another one")
    BACKBONES[name] = own  # type: ignore[assignment]
    other_files.add(own.path.resolve())


def own_factories(backbone: str | None) -> list[Factory]:
    """The factory of a registered module by name, for the hash of the code that a cell runs."""
    found = BACKBONES.get(backbone or "")
    return [found.factory] if isinstance(found, OwnBackbone) else []


@functools.cache
def _backbone(name: str, factory: Factory, input_shape: tuple[int, ...]) -> tuple[ModuleBackbone, str, str]:
    inner = ModuleBackbone(factory, input_shape)
    try:
        objection = next(_objections(inner), None)
        why = "" if objection else _vmap_fails(inner)
    except Exception as error:
        raise MetabenchError(f"backbone {name!r} fails on inputs of shape {input_shape}: {_line(error)}") from error
    if objection:
        raise MetabenchError(f"backbone {name!r} {objection}")
    return inner, "loop" if why else "vmap", why


def _objections(inner: ModuleBackbone) -> Iterator[str]:
    """Why the module can't be a backbone, in the words that follow its name."""
    x, module, own = _trial_inputs(inner, 3), inner.module, inner.own(0)
    values = inner.initial(0)
    if any(not torch.equal(values[name], value) for name, value in inner.initial(0).items()):
        yield "starts from other values for the same seed: draw them from torch's default generator"
    if taken := [name for name in values if name.startswith(PREFIXES)]:
        yield f"has a parameter {taken[0]!r}: rename it, {', '.join(PREFIXES)} are taken"
    constants = {name: value.clone() for name, value in module.named_buffers()}
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        generator = torch.get_rng_state()
        theirs = own(x)
        if not isinstance(theirs, Tensor) or theirs.shape[:1] != (3,):
            made = tuple(theirs.shape) if isinstance(theirs, Tensor) else type(theirs).__name__
            yield f"makes {made} of 3 inputs, not 3 rows of features"
        features, again = (_call(inner, values, x) for _ in range(2))
        draws = not torch.equal(torch.get_rng_state(), generator) or not torch.equal(features, again)
    for buffer, value in module.named_buffers():
        if not torch.equal(value, constants[buffer]):
            yield f"changes its buffer {buffer!r} when called: tasks would share it; only parameters are adapted"
    if draws:
        layers = ", ".join(f"{type(part).__name__} {name!r}" for name, part in _random_layers(module))
        where = f" ({layers})" if layers else ""
        yield f"draws random numbers{where}, so two calls differ: leave that out, or switch it off with .eval()"
    if not _agree(features, theirs.flatten(1)):
        yield "computes other features here than when called by itself"
    if not inner.batch_norms(inner.input_shape) and not _agree(features[:1], _call(inner, values, x[:1])):
        yield "mixes inputs: the features of one depend on the others"
    leaves = {name: value.clone().requires_grad_() for name, value in values.items()}
    output = _call(inner, leaves, x)
    gradients: tuple[Tensor | None, ...] = (None,) * len(leaves)
    if output.requires_grad:
        gradients = torch.autograd.grad(output.sum(), list(leaves.values()), allow_unused=True)
    unused = [name for name, gradient in zip(leaves, gradients, strict=True) if gradient is None]
    if unused:
        yield f"doesn't use its parameters {', '.join(unused)}: remove them, or freeze them (requires_grad_(False))"


def _vmap_fails(inner: ModuleBackbone) -> str:
    """Why `torch.vmap` does not compute the same as a loop over tasks, or ""."""
    x = torch.stack([_trial_inputs(inner, 3), _trial_inputs(inner, 3) + 1])
    # a network's parameters, which has a head and so at least one
    values = {**inner.initial(0), "head.bias": torch.zeros(1)}
    theta = {name: value.expand(2, *value.shape).clone().requires_grad_() for name, value in values.items()}
    try:
        tried = features_per_task(inner, "vmap", theta, x, Statistics())
        torch.autograd.grad(tried.sum(), list(theta.values()), allow_unused=True)
        with torch.no_grad():  # torch has other kernels for some layers then
            unrecorded = features_per_task(inner, "vmap", theta, x, Statistics())
        expected = features_per_task(inner, "loop", theta, x, Statistics())
        if not all(_agree(found, expected) for found in (tried, unrecorded)):
            raise RuntimeError("it computes other features")
    except Exception as error:
        return f"torch.vmap: {_line(error)}"
    return ""


def _agree(features: Tensor, others: Tensor) -> bool:
    """Whether two ways of computing the same features agree to rounding."""
    return features.shape == others.shape and torch.allclose(features, others, rtol=1e-3, atol=1e-4)


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def _trial_inputs(inner: ModuleBackbone, n: int) -> Tensor:
    return torch.randn(n, *inner.input_shape, generator=torch.Generator().manual_seed(0))


def _call(inner: ModuleBackbone, values: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """The features ``[n, d]`` of one task."""
    return inner({name: value.unsqueeze(0) for name, value in values.items()}, x.unsqueeze(0), Statistics())[0]


def _random_layers(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, part in module.named_modules():
        if isinstance(part, _RANDOM_LAYERS) and part.training and getattr(part, "p", 1.0) > 0:
            yield name, part
