"""TorchOpt (Ren et al. 2023): `MetaSGD` on the module itself, whose state is restored after every task.

First order: inner steps keep no graph, and the gradient by the adapted parameters is the meta-gradient.
"""

from __future__ import annotations

import importlib
from typing import Any, ClassVar

import torch
from torch import Tensor

from benchmarks.api import Episodes, Parameters
from benchmarks.cost.peers.adapter import Settings, TaskLoop
from benchmarks.cost.peers.modules import Ordinary, loss_of, ordinary


class Implementation(TaskLoop):
    """One `MetaSGD` for all tasks, with `extract_state_dict` and `recover_state_dict` around each."""

    library: ClassVar[str] = "torchopt"

    def __init__(self, plan: str = "") -> None:
        super().__init__(plan)
        self._library: Any = importlib.import_module("torchopt")

    def loss_and_gradient(
        self, parameters: Parameters, episodes: Episodes, settings: Settings
    ) -> tuple[Tensor, Parameters]:
        support, query = episodes.support, episodes.query
        module = ordinary(settings.workload, parameters)
        leaves = list(module.parameters())
        names = [module.names[name] for name, _ in module.named_parameters()]
        total = [torch.zeros_like(value) for value in leaves]
        losses = torch.zeros((), dtype=query.x.dtype, device=query.x.device)
        optimiser = self._library.MetaSGD(module, lr=settings.workload.inner_lr)
        initial = self._state(module), self._state(optimiser)
        for task in range(len(support)):
            self._take_steps(module, optimiser, support.x[task], support.y[task], settings, settings.second_order)
            loss = loss_of(module(query.x[task]), query.y[task]) / len(support)
            wanted = leaves if settings.second_order else _parameters(module)
            torch._foreach_add_(total, torch.autograd.grad(loss, wanted))
            losses += loss.detach()
            self._library.recover_state_dict(module, initial[0])
            self._library.recover_state_dict(optimiser, initial[1])
        return losses, dict(zip(names, total, strict=True))

    def adapt(self, parameters: Parameters, episodes: Episodes, settings: Settings) -> Tensor:
        module = ordinary(settings.workload, parameters)
        optimiser = self._library.MetaSGD(module, lr=settings.workload.inner_lr)
        initial = self._state(module), self._state(optimiser)
        outputs = []
        for task in range(len(episodes.support)):
            self._take_steps(module, optimiser, episodes.support.x[task], episodes.support.y[task], settings, False)
            with torch.no_grad():
                outputs.append(module(episodes.query.x[task]))
            self._library.recover_state_dict(module, initial[0])
            self._library.recover_state_dict(optimiser, initial[1])
        return torch.stack(outputs)

    def _state(self, value: Any) -> Any:
        return self._library.extract_state_dict(value, by="reference")

    def _take_steps(
        self, module: Ordinary, optimiser: Any, x: Tensor, y: Tensor, settings: Settings, second_order: bool
    ) -> None:
        for _ in range(settings.inner_steps):
            optimiser.step(loss_of(module(x), y))
            if not second_order:
                self._library.stop_gradient(module)
                for value in _parameters(module):
                    value.requires_grad_()


def _parameters(module: Ordinary) -> list[Tensor]:
    """The module's tensors in the place of its parameters: TorchOpt replaces them by results of operations."""
    return [getattr(module.get_submodule(path), part) for path, _, part in (n.rpartition(".") for n in module.names)]
