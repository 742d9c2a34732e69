"""The base of all control tasks: tasks and noise by index, returns as scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from benchmarks import sampling
from benchmarks.api import SPLITS, Episodes, MetabenchError, Predictor, TaskDistribution
from benchmarks.checks import check_fields, check_known
from benchmarks.environments.actions import ActionSpace
from benchmarks.environments.batch import BatchEnv, Model
from benchmarks.environments.rollout import Rollouts

Indices = Sequence[int] | np.ndarray


@dataclass(frozen=True)
class ControlTasks(TaskDistribution):
    """A distribution over environments. A subclass has a `model` and a `draw` that makes a task from an index.

    shot: trajectories per step of the inner loop
    queries: scored trajectories, with their own random numbers, the same after every number of inner steps
    discount: the discount factor of learners of values; the score is not discounted

    Each split is a separate stream. Both sources have the tasks' `parameters`, for oracles.
    """

    kind: ClassVar[str] = "control"
    metric: ClassVar[str] = "return"
    higher_is_better: ClassVar[bool] = True
    offers: ClassVar[frozenset[str]] = frozenset({"parameters"})
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {"plain": {}}
    #: what the numbers of a task are called, for figures
    parameter_names: ClassVar[Sequence[str]] = ()

    shot: int = 20
    queries: int = 20
    discount: float = 0.99

    def __post_init__(self) -> None:
        check_fields(self, "at least 1", "shot", "queries")
        check_fields(self, "between 0 and 1", "discount")

    @property
    def model(self) -> Model:
        """The environment that all tasks share."""
        raise NotImplementedError

    @property
    def back_end(self) -> Callable[[Any, Tensor], BatchEnv]:
        """Constructor of the simulators: (model, tasks) -> `BatchEnv`."""
        return BatchEnv

    @property
    def trial_episodes(self) -> int:
        """Episodes per trial."""
        return 1

    def draw(self, key: int, indices: Indices) -> np.ndarray:
        """The tasks with these numbers, float64 ``[T, p]``: a pure function of key and index."""
        raise NotImplementedError

    def impossible(self, task: np.ndarray) -> str:
        """Why finite numbers ``[p]`` that somebody asks for are no task; empty if they are one."""
        return ""

    @property
    def actions(self) -> ActionSpace:
        """The action space, which says how an output is read."""
        return self.model.actions

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of an observation, which environments hand out flat, ``[T, K, observation]``."""
        return (self.model.observation,)

    @property
    def outputs(self) -> int:
        return self.model.actions.outputs

    @property
    def backbone(self) -> str:
        return "mlp-40-40"

    @property
    def trial_steps(self) -> int:
        """Environment steps in a trial that runs to its horizon."""
        return self.trial_episodes * self.model.horizon

    def episodes(
        self, split: str, indices: Indices, *, shots: int | None = None, queries: int | None = None
    ) -> Episodes:
        """T environments to adapt in (support) and to be scored in (query); shots, queries: trajectories."""
        shots = self.shot if shots is None else shots
        queries = self.queries if queries is None else queries
        if shots < 1 or queries < 1:
            raise MetabenchError(f"{self.id}: shots = {shots} and queries = {queries} cannot be rolled out")
        check_known("split", split, SPLITS)
        tasks, support, query = (
            sampling.stream(f"{self.name}-v{self.version}", split, purpose) for purpose in ("tasks", "support", "query")
        )
        numbers = np.asarray(indices, dtype=np.int64)
        parameters = torch.from_numpy(self.draw(tasks, numbers).astype(np.float32)).to(self.device)
        environments = (self.model, self.back_end, parameters, numbers)
        return Episodes(
            Rollouts(*environments, support, shots, self.trial_episodes),
            Rollouts(*environments, query, queries, self.trial_episodes),
        )

    def exhibit(self, predictors: Mapping[int, Predictor], episodes: Episodes) -> dict[str, np.ndarray]:
        """The embeddings of E tasks after each of S step counts, of predictors with an ``embedding`` ``[E, z]``.

        embedding: ``[S, E, z]``; parameters: of the tasks, ``[E, p]``; names: theirs, ``[p]``; steps: ``[S]``."""
        found = {step: getattr(predictor, "embedding", None) for step, predictor in predictors.items()}
        made = {step: embedding for step, embedding in found.items() if embedding is not None}
        if not made:
            return {}
        parameters = episodes.query.parameters.cpu().numpy()
        names = self.parameter_names or [f"parameter {number}" for number in range(parameters.shape[1])]
        return {
            "embedding": np.stack([embedding.cpu().numpy() for embedding in made.values()]),
            "parameters": parameters,
            "names": np.array(names),
            "steps": np.array(list(made), dtype=np.int16),
        }

    def score(self, predictor: Predictor, query: Rollouts) -> Tensor:
        """Undiscounted return of each trial, ``[T, queries]``; NaN where a reward or the policy was not a number."""
        played = query.play(predictor, 0, inputs=False)
        chances = played.log_probabilities.masked_fill(~played.live, 0.0)
        return played.returns.masked_fill(~torch.isfinite(played.returns + chances.sum(-1)), torch.nan)
