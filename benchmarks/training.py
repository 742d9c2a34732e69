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
    optimiser = torch.optim.AdamW(leaves, lr=learning_rate, weight_decay=weight_decay, fused=True)
    _share_moments(optimiser, state)
    while True:
        computed = meta_gradient(state.parameters, state.buffers, state.step)
        if not math.isfinite(computed.loss):
            raise Diverged(f"training loss is {computed.loss} at meta-step {state.step + 1}")
        for leaf, gradient in zip(leaves, computed.gradients, strict=True):
            leaf.grad = gradient
        optimiser.step()
        state.step += 1
        state.loss = computed.loss
        state.examples += computed.examples
        yield state


def _share_moments(optimiser: torch.optim.Optimizer, state: State) -> None:
    """Let the optimiser work in place on the tensors of ``state.moments``, made here if there are none."""
    for name, leaf in state.parameters.items():
        moments = {}
        for moment in ("exp_avg", "exp_avg_sq"):
            moments[moment] = state.moments.setdefault(f"{name}/{moment}", torch.zeros_like(leaf, requires_grad=False))
        moments["step"] = state.moments.setdefault(f"{name}/step", torch.zeros((), device=leaf.device))
        optimiser.state[leaf] = moments


def training_indices(seed: int, step: int, meta_batch: int) -> np.ndarray:
    """The numbers of the training episodes of a meta-step, ``[meta_batch]``: different for every seed and step."""
    return np.arange(meta_batch, dtype=np.int64) + step * meta_batch + (seed << 40)
