"""The outer loop of every learner trained by gradient descent: an optimiser's meta-steps, as a stream of states."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

# Optimisers as functions. Their classes import torch's compiler at the first step: 1.4 s in every process that fits.
from torch.optim.adamw import adamw
from torch.optim.rmsprop import rmsprop

from benchmarks.api import Diverged, Parameters, State, TaskDistribution

#: (parameters, buffers, step) -> a scalar loss with its graph, and the number of examples used
Loss = Callable[[Parameters, Parameters, int], tuple[Tensor, int]]


@dataclass(frozen=True)
class MetaGradient:
    """Result of one meta-step: the loss, the gradient of each parameter in their order, and the examples used."""

    loss: float
    gradients: Sequence[Tensor]
    examples: int


#: (parameters, buffers, step) -> the gradient, for learners that compute their own
Gradient = Callable[[Parameters, Parameters, int], MetaGradient]


def descend(
    parameters: Parameters,
    loss: Loss | None = None,
    *,
    gradient: Gradient | None = None,
    learning_rate: float,
    optimiser: Literal["adam", "rmsprop"] = "adam",
    schedule: Callable[[int], float] | None = None,
    clip_norm: float = 0.0,
    clip_value: float = 0.0,
    weight_decay: float = 0.0,
    buffers: Parameters | None = None,
    start: State | None = None,
) -> Iterator[State]:
    """Yield the state after each step of an optimiser, for ever.

    parameters, buffers: initial values; those of ``start`` replace them.
    loss: differentiated here; may change the buffers in place.
    gradient: in place of ``loss``, for a learner that differentiates its own way.
    optimiser: "adam" (Kingma and Ba 2015), or "rmsprop" with decay 0.95 and momentum 0.9.
    schedule: factor of the learning rate as a function of the step, from 0; None: constant.
    clip_norm: bound on the norm of the whole gradient; 0: none.
    clip_value: bound on each element of the gradient; 0: none.
    weight_decay: of Adam, decoupled (Loshchilov and Hutter 2019); 0: none.

    The yielded state is one object whose tensors the next step changes in place. Raises `Diverged` when a loss is not
    finite."""
    if (loss is None) == (gradient is None):
        raise TypeError("descend takes either a loss or a gradient")
    compute = gradient or _gradient_of(loss)  # type: ignore[arg-type]
    state = start.copy() if start else State(parameters=parameters, buffers=buffers or {}).copy()
    for value in state.parameters.values():
        value.requires_grad_()
    leaves = list(state.parameters.values())
    moments = [_moments(state, name, leaf) for name, leaf in state.parameters.items()]
    first, second, counts = (list(column) for column in zip(*moments, strict=True))
    while True:
        computed = compute(state.parameters, state.buffers, state.step)
        if not math.isfinite(computed.loss):
            raise Diverged(f"training loss is {computed.loss} at meta-step {state.step + 1}")
        gradients = _clipped(_laid_out(computed.gradients, leaves), clip_norm, clip_value)
        rate = learning_rate * (schedule(state.step) if schedule else 1.0)
        with torch.no_grad():
            if optimiser == "rmsprop":
                rmsprop(
                    leaves,
                    gradients,
                    second,
                    [],
                    first,
                    counts,
                    lr=rate,
                    alpha=0.95,
                    momentum=0.9,
                    eps=1e-8,
                    weight_decay=0.0,
                    centered=False,
                )
            else:
                adamw(
                    leaves,
                    gradients,
                    first,
                    second,
                    [],
                    counts,
                    fused=True,
                    amsgrad=False,
                    maximize=False,
                    beta1=0.9,
                    beta2=0.999,
                    eps=1e-8,
                    lr=rate,
                    weight_decay=weight_decay,
                )
        state.step += 1
        state.loss = computed.loss
        state.examples += computed.examples
        yield state


def _gradient_of(loss: Loss) -> Gradient:
    def gradient(parameters: Parameters, buffers: Parameters, step: int) -> MetaGradient:
        value, examples = loss(parameters, buffers, step)
        return MetaGradient(float(value.detach()), torch.autograd.grad(value, list(parameters.values())), examples)

    return gradient


def _laid_out(gradients: Sequence[Tensor], leaves: Sequence[Tensor]) -> list[Tensor]:
    """The gradients with the strides of the parameters: fused steps read memory in order, whatever the strides."""
    pairs = zip(gradients, leaves, strict=True)
    return [g if g.stride() == leaf.stride() else torch.empty_like(leaf).copy_(g) for g, leaf in pairs]


def _clipped(gradients: list[Tensor], norm: float, value: float) -> list[Tensor]:
    if value:
        gradients = [each.clamp(-value, value) for each in gradients]
    if norm:
        length = torch.stack([each.norm() for each in gradients]).norm()
        gradients = list(torch._foreach_mul(gradients, (norm / (length + 1e-6)).clamp(max=1.0)))
    return gradients


def _moments(state: State, name: str, leaf: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A parameter's first and second moment (RMSProp: momentum and mean square) and step count, as they stand in
    ``state.moments``; zeros at the start."""
    zero = torch.zeros_like(leaf, requires_grad=False)
    first = state.moments.setdefault(f"{name}/exp_avg", zero)
    second = state.moments.setdefault(f"{name}/exp_avg_sq", zero.clone())
    return first, second, state.moments.setdefault(f"{name}/step", torch.zeros((), device=leaf.device))


def training_indices(seed: int, step: int, meta_batch: int) -> np.ndarray:
    """The numbers of the training episodes of a meta-step, ``[meta_batch]``: different for every seed and step."""
    return np.arange(meta_batch, dtype=np.int64) + step * meta_batch + (seed << 40)


def examples_of(tasks: TaskDistribution, shots: int = 0, queries: int | None = 0, episodes: int = 1) -> int:
    """How many labelled examples episodes have. shots, queries: per class, or per task in regression; 0 shots, and
    None for the queries: the task's own."""
    own, classes = tasks.config(), tasks.outputs if tasks.kind == "classification" else 1
    return int(episodes * classes * ((shots or own["shot"]) + (own["queries"] if queries is None else queries)))
