"""What is done and timed in a setting: a meta-step of training, or the evaluation of a batch of episodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch

from benchmarks.api import Episodes, Parameters
from benchmarks.cost.peers.adapter import Adapter, Settings
from benchmarks.run.fitting import episodes_at_once


class Work(Protocol):
    """Two ways to look at the same work of an implementation."""

    #: what is compared, in words
    result: str

    def compute(self, adapter: Adapter, parameters: Parameters, episodes: Episodes, settings: Settings) -> Parameters:
        """The result by name, to be compared with another implementation's."""
        ...

    def stepper(
        self, adapter: Adapter, parameters: Parameters, episodes: Episodes, settings: Settings
    ) -> Callable[[], Any]:
        """A function that does the work once at each call, with all that belongs to it."""
        ...

    def of_step(self, adapter: Adapter, returned: Any, parameters: Parameters) -> Parameters:
        """The result, as `compute` gives it, of a stepper's first call, from what that call returned."""
        ...


class MetaStep:
    """Meta-gradient, loss and Adam, as training has them."""

    result = "meta-gradient"

    def compute(self, adapter: Adapter, parameters: Parameters, episodes: Episodes, settings: Settings) -> Parameters:
        return adapter.meta_gradient(parameters, episodes, settings)

    def stepper(
        self, adapter: Adapter, parameters: Parameters, episodes: Episodes, settings: Settings
    ) -> Callable[[], Any]:
        return adapter.stepper(parameters, episodes, settings)

    def of_step(self, adapter: Adapter, returned: Any, parameters: Parameters) -> Parameters:
        return adapter.first_gradient(returned, parameters)


class Evaluation:
    """Adapt to every episode and predict its queries, without a graph, as many episodes at once as the suite tests."""

    result = "prediction"

    def compute(self, adapter: Adapter, parameters: Parameters, episodes: Episodes, settings: Settings) -> Parameters:
        return {"predictions": adapter.adapt(parameters, episodes, settings)}

    def stepper(
        self, adapter: Adapter, parameters: Parameters, episodes: Episodes, settings: Settings
    ) -> Callable[[], Any]:
        count = episodes_at_once(settings.workload.tasks(episodes), "query")
        pieces = [
            Episodes(episodes.support[first : first + count], episodes.query[first : first + count])
            for first in range(0, len(episodes.support), count)
        ]
        return lambda: [adapter.adapt(parameters, piece, settings) for piece in pieces]

    def of_step(self, adapter: Adapter, returned: Any, parameters: Parameters) -> Parameters:
        return {"predictions": torch.cat(returned)}


#: by the name in `benchmarks.cost.grid.WORKS`
KINDS: dict[str, Work] = {"meta-step": MetaStep(), "evaluation": Evaluation()}
