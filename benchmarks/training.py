"""The outer loop that learners trained by gradient descent share: Adam over meta-steps, as a stream of states."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from benchmarks.api import Diverged, Parameters, State


@dataclass(frozen=True)
class MetaGradient:
    """What one meta-step computed: the loss, the gradient of each parameter in their order, and the examples used."""

    loss: float
    gradients: Sequence[Tensor]
    examples: int


def descend(
    parameters: Parameters,
    meta_gradient: Callable[[Parameters, Parameters, int], MetaGradient],
    *,
    learning_rate: float,
    buffers: Parameters | None = None,
    start: State | None = None,
    weight_decay: float = 0.0,
) -> Iterator[State]:
    """Yield the state after each step of Adam (Kingma and Ba 2015), for ever.

    parameters, buffers: the initial values; those of ``start`` replace them.
    meta_gradient: (parameters, buffers, step) -> MetaGradient; may change the buffers in place.
    weight_decay: decoupled (Loshchilov and Hutter 2019); 0 is plain Adam.

    The yielded state is the same object with the same tensors, changed in place by the next step. Raises `Diverged`
    when a loss is not finite."""
    state = start.copy() if start else State(parameters=parameters, buffers=buffers or {}).copy()
    for value in state.parameters.values():
        value.requires_grad_()
    leaves = list(state.parameters.values())
    moments = [_moments(state, name, leaf) for name, leaf in state.parameters.items()]
    first, second, counts = (list(column) for column in zip(*moments, strict=True))
    # all parameters take the same steps, so one count that they share is added to
    state.moments |= {f"{name}/step": counts[0] for name in state.parameters}
    counts = [counts[0]] * len(leaves)
    while True:
        computed = meta_gradient(state.parameters, state.buffers, state.step)
        if not math.isfinite(computed.loss):
            raise Diverged(f"training loss is {computed.loss} at meta-step {state.step + 1}")
        with torch.no_grad():
            # torch.optim's own function comes to the same call, after sorting the tensors at every step
            counts[0] += 1
            torch._fused_adamw_(
                leaves,
                list(computed.gradients),
                first,
                second,
                [],
                counts,
                amsgrad=False,
                maximize=False,
                beta1=0.9,
                beta2=0.999,
                eps=1e-8,
                lr=learning_rate,
                weight_decay=weight_decay,
            )
        state.step += 1
        state.loss = computed.loss
        state.examples += computed.examples
        yield state


def _moments(state: State, name: str, leaf: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Adam's moments and step count of a parameter: the tensors of ``state.moments``, made here if there are none."""
    zero = torch.zeros_like(leaf, requires_grad=False)
    first = state.moments.setdefault(f"{name}/exp_avg", zero)
    second = state.moments.setdefault(f"{name}/exp_avg_sq", zero.clone())
    return first, second, state.moments.setdefault(f"{name}/step", torch.zeros((), device=leaf.device))


def training_indices(seed: int, step: int, meta_batch: int) -> np.ndarray:
    """The numbers of the training episodes of a meta-step, ``[meta_batch]``: different for every seed and step."""
    return np.arange(meta_batch, dtype=np.int64) + step * meta_batch + (seed << 40)
