"""MAML as a plain loop over tasks in torch: an ordinary module called with other parameters
(`torch.func.functional_call`), and gradients by `torch.autograd.grad`.

It uses nothing of the suite's own engine, so it also checks the meta-gradient independently.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import functional_call

from benchmarks.api import Episodes, Parameters
from benchmarks.cost.peers.adapter import Settings, TaskLoop
from benchmarks.cost.peers.modules import Ordinary, loss_of, ordinary


class Implementation(TaskLoop):
    """A loop over tasks that adds up their gradients."""

    def loss_and_gradient(
        self, parameters: Parameters, episodes: Episodes, settings: Settings
    ) -> tuple[Tensor, Parameters]:
        module = ordinary(settings.workload, parameters)
        theta: Parameters = dict(module.named_parameters())
        support, query = episodes.support, episodes.query
        tasks = len(support)
        total = [torch.zeros_like(value) for value in theta.values()]
        losses = torch.zeros((), dtype=query.x.dtype, device=query.x.device)
        for task in range(tasks):
            adapted = _steps(module, theta, support.x[task], support.y[task], settings, settings.second_order)
            loss = loss_of(functional_call(module, adapted, (query.x[task],)), query.y[task]) / tasks
            torch._foreach_add_(total, torch.autograd.grad(loss, list(theta.values())))
            losses += loss.detach()
        return losses, {module.names[name]: value for name, value in zip(theta, total, strict=True)}

    def adapt(self, parameters: Parameters, episodes: Episodes, settings: Settings) -> Tensor:
        module = ordinary(settings.workload, parameters)
        outputs = []
        for task in range(len(episodes.support)):
            theta = {name: value.detach().requires_grad_() for name, value in module.named_parameters()}
            x, y = episodes.support.x[task], episodes.support.y[task]
            for _ in range(settings.inner_steps):
                theta = _steps(module, theta, x, y, settings, False, 1)
                theta = {name: value.detach().requires_grad_() for name, value in theta.items()}
            with torch.no_grad():
                outputs.append(functional_call(module, theta, (episodes.query.x[task],)))
        return torch.stack(outputs)


def _steps(
    module: Ordinary,
    theta: Parameters,
    x: Tensor,
    y: Tensor,
    settings: Settings,
    second_order: bool,
    steps: int | None = None,
) -> Parameters:
    """The parameters of one task after its inner steps."""
    for _ in range(settings.inner_steps if steps is None else steps):
        loss = loss_of(functional_call(module, theta, (x,)), y)
        gradients = torch.autograd.grad(loss, list(theta.values()), create_graph=second_order)
        rate = settings.workload.inner_lr
        theta = {name: value - rate * g for (name, value), g in zip(theta.items(), gradients, strict=True)}
    return theta
