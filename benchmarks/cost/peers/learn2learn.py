"""learn2learn (Arnold et al. 2020): `MAML.clone` and `adapt` in a loop over tasks, as in its examples.

ANIL adapts a clone of the head on embeddings; here the support set and the queries are embedded apart, so that they
share no batch statistics. Meta-SGD is the library's own class. Reptile is the plain loop of its example: torch's SGD on
a copy of the module.
"""

from __future__ import annotations

import copy
import importlib
import sys
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any, ClassVar

import torch
from torch import Tensor

from benchmarks.api import Episodes, Parameters, State
from benchmarks.cost import learners
from benchmarks.cost.peers.adapter import META_LR, Settings, TaskLoop
from benchmarks.cost.peers.modules import Ordinary, loss_of, ordinary

_LIBRARIES: list[Any] = []


def imported() -> ModuleType:
    """The library, without the warnings of its dependencies. A torchvision built for another torch may lack its
    operators, which learn2learn's MAML doesn't need."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module("learn2learn")
        except RuntimeError as error:
            if "torchvision::nms" not in str(error):
                raise
        for name in [name for name in sys.modules if name.partition(".")[0] in ("torchvision", "learn2learn")]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _LIBRARIES.append(library)
        return importlib.import_module("learn2learn")


class Implementation(TaskLoop):
    """One clone of the module per task; ``backward`` adds up the gradients."""

    library: ClassVar[str] = "learn2learn"
    learners: ClassVar[tuple[str, ...]] = ("maml", "anil", "meta-sgd", "reptile")

    def __init__(self, plan: str = "") -> None:
        super().__init__(plan)
        self._library = imported()

    def loss_and_gradient(
        self, parameters: Parameters, episodes: Episodes, settings: Settings
    ) -> tuple[Tensor, Parameters]:
        module = ordinary(settings.workload, parameters)
        if settings.learner == "reptile":
            return _reptile(module, episodes, settings)
        learner, body = self._learner(module, settings, not settings.second_order, parameters)
        support, query = episodes.support, episodes.query
        losses = torch.zeros((), dtype=query.x.dtype, device=query.x.device)
        for task in range(len(support)):
            clone = self._adapted(learner, body(support.x[task]), support.y[task], settings)
            loss = loss_of(clone(body(query.x[task])), query.y[task]) / len(support)
            loss.backward()
            losses += loss.detach()
        rates = zip(module.parameters(), getattr(learner, "lrs", ()), strict=False)
        suite = {value: module.names[name] for name, value in module.named_parameters()}
        return losses, module.gradients() | {f"rule.{suite[value]}": rate.grad for value, rate in rates}

    def meta_gradient(self, parameters: Parameters, episodes: Episodes, settings: Settings) -> Parameters:
        return super().meta_gradient(learners.completed(parameters, episodes, settings), episodes, settings)

    def stepper(self, parameters: Parameters, episodes: Episodes, settings: Settings) -> Callable[[], Any]:
        if settings.learner != "reptile":
            return super().stepper(learners.completed(parameters, episodes, settings), episodes, settings)
        state = State(parameters=parameters).copy()

        def step() -> State:
            loss, difference = self.loss_and_gradient(state.parameters, episodes, settings)
            state.loss = float(loss)
            for name, value in state.parameters.items():
                value.sub_(difference[name], alpha=META_LR)
            return state

        return step

    def adapt(self, parameters: Parameters, episodes: Episodes, settings: Settings) -> Tensor:
        learner, _ = self._learner(ordinary(settings.workload, parameters), settings, True, parameters)
        outputs = []
        for task in range(len(episodes.support)):
            clone = self._adapted(learner, episodes.support.x[task], episodes.support.y[task], settings)
            with torch.no_grad():
                outputs.append(clone(episodes.query.x[task]))
        return torch.stack(outputs)

    def _learner(
        self, module: Ordinary, settings: Settings, first_order: bool, parameters: Parameters
    ) -> tuple[Any, Callable[[Tensor], Tensor]]:
        """The algorithm that is cloned for each task, and the layers below it, which are not."""
        if settings.learner == "meta-sgd":
            rates = [parameters[f"rule.{module.names[name]}"].detach() for name, _ in module.named_parameters()]
            kept = torch.nn.ParameterList([torch.nn.Parameter(rate) for rate in rates])
            return self._library.algorithms.MetaSGD(module, first_order=first_order, lrs=kept), lambda x: x
        rate = settings.workload.inner_lr
        if settings.learner == "anil":
            return self._library.algorithms.MAML(module[-1], lr=rate, first_order=first_order), module[:-1]
        return self._library.algorithms.MAML(module, lr=rate, first_order=first_order), lambda x: x

    def _adapted(self, learner: Any, x: Tensor, y: Tensor, settings: Settings) -> Any:
        clone = learner.clone()
        for _ in range(settings.inner_steps):
            clone.adapt(loss_of(clone(x), y))
        return clone


def _reptile(module: Ordinary, episodes: Episodes, settings: Settings) -> tuple[Tensor, Parameters]:
    """The mean loss of the inner steps, and the initialisation less the mean of the weights after them."""
    support, initial = episodes.support, list(module.parameters())
    total = [torch.zeros_like(value) for value in initial]
    losses = torch.zeros((), dtype=support.x.dtype, device=support.x.device)
    for task in range(len(support)):
        own = copy.deepcopy(module)
        optimiser = torch.optim.SGD(own.parameters(), lr=settings.workload.inner_lr)
        for _ in range(settings.inner_steps):
            optimiser.zero_grad()
            loss = loss_of(own(support.x[task]), support.y[task])
            loss.backward()
            optimiser.step()
            losses += loss.detach() / (len(support) * settings.inner_steps)
        with torch.no_grad():
            moved = [(start - end) / len(support) for start, end in zip(initial, own.parameters(), strict=True)]
            torch._foreach_add_(total, moved)
    names = [module.names[name] for name, _ in module.named_parameters()]
    return losses, dict(zip(names, total, strict=True))
