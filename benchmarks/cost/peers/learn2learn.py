"""learn2learn (Arnold et al. 2020): `MAML.clone` and `adapt` in a loop over tasks, as in its examples."""

from __future__ import annotations

import importlib
import sys
import warnings
from types import ModuleType
from typing import Any, ClassVar

import torch
from torch import Tensor

from benchmarks.api import Episodes, Parameters
from benchmarks.cost.peers.adapter import Settings, TaskLoop
from benchmarks.cost.peers.modules import loss_of, ordinary

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

    def __init__(self, plan: str = "") -> None:
        super().__init__(plan)
        self._library = imported()

    def loss_and_gradient(
        self, parameters: Parameters, episodes: Episodes, settings: Settings
    ) -> tuple[Tensor, Parameters]:
        module = ordinary(settings.workload, parameters)
        learner = self._learner(module, settings, not settings.second_order)
        support, query = episodes.support, episodes.query
        losses = torch.zeros((), dtype=query.x.dtype, device=query.x.device)
        for task in range(len(support)):
            clone = self._adapted(learner, support.x[task], support.y[task], settings)
            loss = loss_of(clone(query.x[task]), query.y[task]) / len(support)
            loss.backward()
            losses += loss.detach()
        return losses, module.gradients()

    def adapt(self, parameters: Parameters, episodes: Episodes, settings: Settings) -> Tensor:
        learner = self._learner(ordinary(settings.workload, parameters), settings, True)
        outputs = []
        for task in range(len(episodes.support)):
            clone = self._adapted(learner, episodes.support.x[task], episodes.support.y[task], settings)
            with torch.no_grad():
                outputs.append(clone(episodes.query.x[task]))
        return torch.stack(outputs)

    def _learner(self, module: torch.nn.Module, settings: Settings, first_order: bool) -> Any:
        return self._library.algorithms.MAML(module, lr=settings.workload.inner_lr, first_order=first_order)

    def _adapted(self, learner: Any, x: Tensor, y: Tensor, settings: Settings) -> Any:
        clone = learner.clone()
        for _ in range(settings.inner_steps):
            clone.adapt(loss_of(clone(x), y))
        return clone
