"""The two kinds of work that are timed: a meta-step of training, and the evaluation of a batch of episodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch

from benchmarks.api import Episodes, Parameters
from benchmarks.cost.peers.adapter import Adapter, Settings
from benchmarks.run.fitting import episodes_at_once


class Work(Protocol):
    """The work of an implementation: its result, to be compared, and a step, to be timed."""

    #: names the result in messages
    result: str

    def compute(self, adapter: Adapter, parameters: Parameters, episodes: Episodes, settings: Settings) -> Parameters:
        """The result, by name."""
        ...

    def stepper(
        self, adapter: Adapter, parameters: Parameters, episodes: Episodes, settings: Settings
    ) -> Callable[[], Any]:
        """A function that does all of the work once at each call."""
        ...

    def of_step(self, adapter: Adapter, returned: Any, parameters: Parameters) -> Parameters:
        """The result, as `compute` gives it, from the return value of a stepper's first call."""
        ...


class MetaStep:
    """Meta-gradient, loss and Adam, as in training."""

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
    """Adaptation to every episode and prediction of its queries, without a graph; as many episodes at once as in the
    suite's tests."""

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


#: by the names in `benchmarks.cost.grid.WORKS`
KINDS: dict[str, Work] = {"meta-step": MetaStep(), "evaluation": Evaluation(), "learners": MetaStep()}
