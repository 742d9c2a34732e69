"""higher (Grefenstette et al. 2019): a differentiable SGD on a functional copy of the module, task by task.

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
    """`higher.innerloop_ctx` for each task."""

    library: ClassVar[str] = "higher"

    def __init__(self, plan: str = "") -> None:
        super().__init__(plan)
        self._library: Any = importlib.import_module("higher")

    def loss_and_gradient(
        self, parameters: Parameters, episodes: Episodes, settings: Settings
    ) -> tuple[Tensor, Parameters]:
        module = ordinary(settings.workload, parameters)
        support, query = episodes.support, episodes.query
        losses = torch.zeros((), dtype=query.x.dtype, device=query.x.device)
        total = [torch.zeros_like(value) for value in module.parameters()]
        for task in range(len(support)):
            with self._context(module, settings, settings.second_order) as (copy, optimiser):
                self._take_steps(copy, optimiser, support.x[task], support.y[task], settings)
                loss = loss_of(copy(query.x[task]), query.y[task]) / len(support)
                leaves = list(copy.parameters(time=0) if settings.second_order else copy.parameters())
                torch._foreach_add_(total, torch.autograd.grad(loss, leaves))
            losses += loss.detach()
        names = [module.names[name] for name, _ in module.named_parameters()]
        return losses, dict(zip(names, total, strict=True))

    def adapt(self, parameters: Parameters, episodes: Episodes, settings: Settings) -> Tensor:
        module = ordinary(settings.workload, parameters)
        outputs = []
        for task in range(len(episodes.support)):
            with self._context(module, settings, False) as (copy, optimiser):
                self._take_steps(copy, optimiser, episodes.support.x[task], episodes.support.y[task], settings)
                with torch.no_grad():
                    outputs.append(copy(episodes.query.x[task]))
        return torch.stack(outputs)

    def _context(self, module: Ordinary, settings: Settings, second_order: bool) -> Any:
        plain = torch.optim.SGD(module.parameters(), lr=settings.workload.inner_lr)
        return self._library.innerloop_ctx(module, plain, copy_initial_weights=False, track_higher_grads=second_order)

    def _take_steps(self, copy: Any, optimiser: Any, x: Tensor, y: Tensor, settings: Settings) -> None:
        for _ in range(settings.inner_steps):
            optimiser.step(loss_of(copy(x), y))
