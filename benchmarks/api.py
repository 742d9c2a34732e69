"""The contract between task distributions, meta-learners and the suite.

Every tensor that belongs to tasks has a leading task axis: ``[T, ...]``, T tasks at once. A task distribution cuts
episodes, a meta-learner turns a support source into predictors, the task distribution scores predictors on the query
source. Neither knows the other, and neither knows the clock, the files or the command line: the runner has those.

The same three calls serve every kind of task::

    episodes = tasks.episodes("test", indices)                 # support and query sources of T tasks
    for predictor in learner.adapt(state, episodes.support):   # after 0, 1, 2 ... steps
        scores = tasks.score(predictor, episodes.query)        # [T, n]

A labelled set is a source that returns itself. An environment is a source that rolls the given predictor out, so a
policy-gradient inner step draws fresh trajectories from the policy it improves, and ``score`` returns one return per
trajectory. A recurrent learner (RL^2, MANN) yields predictors that carry the memory which the support left behind;
for the first query every copy of that memory is the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from benchmarks.errors import MetabenchError as MetabenchError
from benchmarks.errors import Unavailable as Unavailable

SPLITS = ("train", "validation", "test")
KINDS = ("classification", "regression", "control")

#: Batch-norm regimes: which examples give the statistics when queries are predicted (docs/protocol.md).
#: ``none`` is the label of a predictor without batch-norm; it depends on nobody's statistics.
REGIMES = ("query", "support", "single", "running", "none")

Parameters = dict[str, Tensor]
Memory = Any
Self = TypeVar("Self", bound="Configured")


class Diverged(Exception):
    """Training produced a loss or a parameter that is not finite."""


class Predictor(Protocol):
    """A learner adapted to T tasks."""

    def __call__(self, x: Tensor, memory: Memory = None) -> tuple[Tensor, Memory]:
        """Predict for inputs ``[T, n, *input_shape]``: class scores ``[T, n, way]``, values ``[T, n, outputs]`` or the
        parameters of an action distribution; and the memory after these inputs (None where there is none)."""
        ...


def regimes_of(predictor: Predictor) -> tuple[str, ...]:
    """The batch-norm regimes a predictor answers under, the default first; ("none",) for one without batch-norm."""
    found: tuple[str, ...] = getattr(predictor, "regimes", ("none",))
    return found


def in_regime(predictor: Predictor, name: str) -> Predictor:
    """The same predictor under another regime; raises `MetabenchError` for one it does not have."""
    known = regimes_of(predictor)
    if name not in known:
        raise MetabenchError(f"unknown batch-norm regime {name!r} of this predictor; known: {', '.join(known)}")
    change: Callable[[str], Predictor] | None = getattr(predictor, "in_regime", None)
    return change(name) if change else predictor


class Source(Protocol):
    """Where the inner loop gets its data from."""

    def batch(self, predictor: Predictor | None, step: int) -> Any:
        """The data of inner step ``step`` for all T tasks; an environment rolls ``predictor`` out for them."""
        ...


@dataclass(frozen=True)
class LabelledSet:
    """Labelled examples of T tasks; as a source it returns itself at every step.

    x: inputs ``[T, n, *input_shape]``, float.
    y: labels ``[T, n]``, int64, from 0 to way - 1 within the episode; or targets ``[T, n, outputs]``, float.
    classes: ``[T, n]`` int64, the class of each example in the whole data set (None for regression).
    items: ``[T, n]`` int64, the example's number in the whole data set (None where examples are drawn afresh).
    parameters: ``[T, p]``, on support sets of task distributions that offer "parameters": what an oracle is told of
        each task. Only methods that need "parameters" read it.
    """

    x: Tensor
    y: Tensor
    classes: Tensor | None = None
    items: Tensor | None = None
    parameters: Tensor | None = None

    def batch(self, predictor: Predictor | None, step: int) -> LabelledSet:
        return self

    def __len__(self) -> int:
        """T, the number of tasks."""
        return self.x.shape[0]

    def __getitem__(self, tasks: slice) -> LabelledSet:
        """The same for a slice of the tasks."""
        return LabelledSet(*(v if v is None else v[tasks] for v in vars(self).values()))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Recorded:
    """A source that replays ``batches[step]``: the data that an earlier run of the inner loop has seen."""

    batches: Sequence[Any]

    def batch(self, predictor: Predictor | None, step: int) -> Any:
        return self.batches[step]


@dataclass(frozen=True)
class Episodes:
    """T tasks: a support source to learn from and a query source to be scored on."""

    support: Any
    query: Any


@dataclass
class State:
    """What a meta-learner has learned after ``step`` meta-steps; a value that `torch.save` can write.

    parameters, buffers, moments: tensors by name (weights; running statistics; the optimiser's).
    examples, environment_steps: how much of p(T) the learner has seen so far.
    loss: the training loss of the last meta-step, None for a learner without one; one that is not finite is divergence.

    A learner may yield the same tensors, changed in place, again and again; who keeps a state copies it.
    """

    parameters: Parameters = field(default_factory=dict)
    buffers: Parameters = field(default_factory=dict)
    moments: Parameters = field(default_factory=dict)
    step: int = 0
    examples: int = 0
    environment_steps: int = 0
    loss: float | None = None

    def copy(self) -> State:
        """The same values in tensors of their own, without gradients."""

        def clone(tensors: Parameters) -> Parameters:
            return {name: tensor.detach().clone() for name, tensor in tensors.items()}

        tensors: Any = {name: clone(getattr(self, name)) for name in ("parameters", "buffers", "moments")}
        return dataclasses.replace(self, **tensors)

    def to(self, device: torch.device | str) -> State:
        """The same values on ``device``."""
        moved = self.copy()
        for tensors in (moved.parameters, moved.buffers, moved.moments):
            tensors.update({name: tensor.to(device) for name, tensor in tensors.items()})
        return moved


class Configured:
    """A frozen dataclass whose fields are its configuration; they go into the record and into the content key."""

    name: ClassVar[str]

    def config(self) -> dict[str, Any]:
        """Fields and values, as they go into the record."""
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        return {f.name: getattr(self, f.name) for f in fields if f.metadata.get("configuration", True)}

    def replace(self: Self, **changes: Any) -> Self:
        """A copy with other field values."""
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]


def adaptation_field(default: Any) -> Any:
    """A field that matters only when a fitted learner adapts: changing it needs no new fit."""
    return field(default=default, metadata={"stage": "adaptation"})


@dataclass(frozen=True)
class TaskDistribution(Configured):
    """p(T): a distribution over tasks, in three splits that share no class (or, where tasks are drawn from a
    continuum, no task).

    A subclass is a frozen dataclass registered with `@register_task`; its class data say what it is, its fields say
    which variant. The docstring is the data sheet: what an input and an output are, with units, how tasks are drawn,
    the source, and how it differs from the original.
    """

    #: one of KINDS
    kind: ClassVar[str]
    #: a change that moves any score changes the version
    version: ClassVar[int] = 1
    #: variant name -> field values; the first is the default
    variants: ClassVar[Mapping[str, Mapping[str, Any]]]
    #: what `score` returns: "accuracy", "squared error" or "return"
    metric: ClassVar[str]
    higher_is_better: ClassVar[bool]
    #: differences smaller than this are called equal (score units; for squared errors a ratio of means, 1.1)
    equivalence_margin: ClassVar[float]
    #: offers: which of "pooled", "parameters", "classes" a learner can rely on
    offers: ClassVar[frozenset[str]] = frozenset()
    exhibited: ClassVar[int] = 3  # how many episodes `exhibit` is given

    variant: str = ""
    device: str = field(default="cpu", metadata={"configuration": False}, kw_only=True)

    @property
    def id(self) -> str:
        """Name, version and variant: ``omniglot-v1/5w1s``."""
        return f"{self.name}-v{self.version}/{self.variant}"

    @property
    def title(self) -> str:
        """The id and the fields that differ from the variant's, for records: ``omniglot-v1/5w1s[way=7]``."""
        fields = getattr(self, "variants", {}).get(self.variant, {})
        usual = type(self)(**{"variant": self.variant, **fields}).config()
        changed = [f"{name}={value}" for name, value in self.config().items() if value != usual[name]]
        return self.id + (f"[{', '.join(changed)}]" if changed else "")

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input."""
        raise NotImplementedError

    @property
    def outputs(self) -> int:
        """How many numbers a prediction has: the way, or the dimension of the target."""
        raise NotImplementedError

    @property
    def backbone(self) -> str:
        """The network that the papers use on this task, a name known to `benchmarks.models`."""
        raise NotImplementedError

    def prepare(self, progress: Callable[[str], None] = lambda line: None) -> None:
        """Make the data ready (find, download, decode, count); raises `Unavailable` where that cannot be done.

        Called once by the runner before any episode is cut; cheap when everything is ready."""

    def data_digest(self) -> str | None:
        """A hash of the decoded data, for the record; None where there are none."""
        return None

    def for_training(self) -> TaskDistribution:
        """The distribution that a learner is fitted on; a variant that differs only at test time returns the other."""
        return self

    def episodes(
        self, split: str, indices: Sequence[int] | np.ndarray, *, shots: int | None = None, queries: int | None = None
    ) -> Episodes:
        """The episodes of a split with these numbers, a pure function of (id, split, index).

        indices: ``[T]`` integers from 0 on, below 2**63. shots, queries: examples per class other than the variant's;
        the query examples do not depend on the shots. Support and query share no example."""
        raise NotImplementedError

    def pooled(self, split: str, indices: Sequence[int] | np.ndarray) -> LabelledSet:
        """Examples of all classes (or all tasks) together, with global class numbers as labels: one task, T = 1.

        indices: ``[n]`` integers, one per example drawn."""
        raise NotImplementedError

    def pooled_outputs(self, split: str) -> int:
        """How many classes `pooled` labels have (for regression: the dimension of the target)."""
        raise NotImplementedError

    def score(self, predictor: Predictor, query: Any) -> Tensor:
        """One score per query, ``[T, n]``: 1 or 0 for right or wrong, the squared error, or the return of a
        trajectory."""
        raise NotImplementedError

    def exhibit(self, predictors: Mapping[int, Predictor], episodes: Episodes) -> dict[str, np.ndarray]:
        """Arrays for the figures: what predictors after some numbers of steps make of a few episodes.

        predictors: number of inner steps -> predictor for the T tasks of ``episodes``."""
        return {}


@dataclass(frozen=True)
class MetaLearner(Configured):
    """A way to learn from many tasks how to learn a new one.

    A subclass is a frozen dataclass registered with `@register_method`; fields are hyper-parameters. The file's
    docstring names the paper and lists where the code deviates from it.
    """

    #: which kinds of task it can be run on
    kinds: ClassVar[frozenset[str]]
    #: what it needs of a task distribution, of `TaskDistribution.offers`
    needs: ClassVar[frozenset[str]] = frozenset()
    #: "learner", or the "floor" or "ceiling" of what can be reached; a ceiling is told more, so it isn't ranked
    role: ClassVar[str] = "learner"
    #: False for a learner with nothing to meta-learn: it has no fit, only evaluations
    fits: ClassVar[bool] = True
    #: the batch-norm regimes it can be tested under; "none" alone for one without batch-norm
    regimes: ClassVar[tuple[str, ...]] = ("none",)
    #: the papers' settings: "task" or "task/variant" -> fields; unlisted tasks take the defaults
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    #: the papers' budgets in meta-steps, by the same keys
    published_meta_steps: ClassVar[Mapping[str, int]] = {}
    #: adaptation fields and values to try on validation tasks; empty where nothing is chosen
    grid: ClassVar[Mapping[str, Sequence[Any]]] = {}

    def fit_method(self) -> str | None:
        """The registered method whose fit this one uses, where it has none of its own; None: its own."""
        return None

    def refuses(self, tasks: TaskDistribution) -> str | None:
        """Why this learner, with these fields, cannot be run on these tasks; None if it can."""
        return None

    def test_regimes(self, tasks: TaskDistribution) -> tuple[str, ...]:
        """The regimes to test under on these tasks, the default first: ("none",) for a network without batch-norm."""
        return self.regimes

    def in_regime(self: Self, regime: str) -> Self:
        """The same learner, tested under another batch-norm regime."""
        return self if regime == "none" else self.replace(test_regime=regime)

    def reported_steps(self) -> tuple[int, ...]:
        """The numbers of inner steps whose scores are reported, the headline last; (0,) for one without steps."""
        return (0,)

    def planned(self: Self, tasks: TaskDistribution, meta_steps: int, forced: str = "") -> tuple[Self, dict[str, Any]]:
        """The same learner with its execution plan (`benchmarks.execution.plans`) settled for ``meta_steps``
        more steps, or as ``forced``; and the plan as plain data, for the record. Compiles what is to be compiled."""
        return self, {}

    def fit(self, tasks: TaskDistribution, seed: int, start: State | None = None) -> Iterator[State]:
        """Meta-learn on ``tasks``, for ever: yield the state after each meta-step.

        The randomness of meta-step i is a function of (seed, i) alone, so that ``start=`` goes on bit for bit. Raises
        `Diverged` if the loss is not finite."""
        raise NotImplementedError

    def adapt(self, state: State, support: Any, tasks: TaskDistribution) -> Iterator[Predictor]:
        """Learn T new tasks: yield predictors after 0, 1, 2 ... steps, for as long as asked.

        Leaves ``state`` unchanged, keeps no graph, and answers the same when called again. A learner without steps
        yields once. ``tasks`` is for facts (kind, outputs, floor), never for data."""
        raise NotImplementedError

    def choose(self, state: State, tasks: TaskDistribution, episodes: int) -> tuple[dict[str, Any], int] | None:
        """Field values that do best on the first ``episodes`` validation tasks, and how many settings were tried.

        None, as here: the suite tries the values of `grid` (`benchmarks.run.selection`)."""
        return None

    def for_budget(self: Self, meta_steps: int) -> Self:
        """The learner for a fit of this many meta-steps, where a schedule ends with the budget. The number is a field
        then, so it is in the record and in the key."""
        return self

    def describe(self, tasks: TaskDistribution) -> dict[str, Any]:
        """Facts for the tables that follow from the fields: backbone, mean-loss equivalent of the rate, ..."""
        return {}
