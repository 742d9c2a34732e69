"""The contract between task distributions, meta-learners and the suite.

Every tensor of tasks has a leading task axis: ``[T, ...]``, T tasks at once. A task distribution cuts episodes, a
meta-learner turns a support source into predictors, the task distribution scores predictors on the query source.
Neither knows the other. The runner alone holds the clock, the files and the command line. Three calls serve every kind
of task::

    episodes = tasks.episodes("test", indices)  # support and query sources of T tasks
    for predictor in learner.adapt(state, episodes.support, tasks):  # after 0, 1, 2 ... steps
        for regime in regimes_of(predictor):  # batch-norm regimes, the default first
            scores = tasks.score(in_regime(predictor, regime), episodes.query)  # [T, n]

An environment is a source that rolls the given predictor out: a policy-gradient step draws fresh trajectories from the
policy it improves. A recurrent learner (RL^2, MANN) yields predictors that carry the memory of the support set; every
query starts from a copy of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from benchmarks.errors import Diverged as Diverged
from benchmarks.errors import MetabenchError as MetabenchError
from benchmarks.errors import Unavailable as Unavailable
from benchmarks.origin import Origin

SPLITS = ("train", "validation", "test")
KINDS = ("classification", "regression", "control")

#: batch-norm regimes: the examples whose statistics normalise the queries; "none": no batch-norm (docs/protocol.md)
REGIMES = ("query", "support", "single", "running", "none")

Parameters = dict[str, Tensor]
Memory = Any


class Predictor(Protocol):
    """A learner adapted to T tasks; a plain function will do.

    With batch-norm it also has ``regimes``, the names of `REGIMES` it answers under, the default first, and
    ``in_regime(name)``, the same predictor under another one (see `regimes_of` and `in_regime`)."""

    def __call__(self, x: Tensor, memory: Memory = None) -> tuple[Tensor, Memory]:
        """Class scores ``[T, n, way]``, values ``[T, n, outputs]`` or parameters of an action distribution for inputs
        ``[T, n, *input_shape]``; and the memory after these inputs (None without one)."""
        ...


def regimes_of(predictor: Predictor) -> tuple[str, ...]:
    """The batch-norm regimes a predictor answers under, the default first; ("none",) for one without batch-norm."""
    return tuple(getattr(predictor, "regimes", ("none",)))


def in_regime(predictor: Predictor, name: str) -> Predictor:
    """The same predictor under another regime; raises `MetabenchError` for one it does not have."""
    known = regimes_of(predictor)
    if name not in known:
        raise MetabenchError(f"unknown batch-norm regime {name!r} of this predictor; known: {', '.join(known)}")
    change: Callable[[str], Predictor] | None = getattr(predictor, "in_regime", None)
    return change(name) if change else predictor


class Source(Protocol):
    """Data of the inner loop."""

    def batch(self, predictor: Predictor | None, step: int) -> Any:
        """The data of inner step ``step`` for all T tasks; an environment rolls ``predictor`` out for them."""
        ...


@dataclass(frozen=True)
class LabelledSet:
    """Labelled examples of T tasks; as a source it returns itself at every step.

    x: inputs ``[T, n, *input_shape]``, float.
    y: labels ``[T, n]``, int64, from 0 to way - 1 within the episode; or targets ``[T, n, outputs]``, float.
    classes: ``[T, n]`` int64, the class of each example in the whole data set (None for regression).
    items: ``[T, n]`` int64, the example's number in the whole data set (None where every example is a new draw).
    parameters: ``[T, p]``, what an oracle knows of each task, on support sets of task distributions that offer
        "parameters". Only methods that need "parameters" read it."""

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
class Episodes:
    """T tasks: a support source to learn from and a query source to be scored on."""

    support: Any
    query: Any


@dataclass
class State:
    """The result of ``step`` meta-steps; a value that `torch.save` can write.

    parameters: weights by name; those of the backbone have no prefix (`benchmarks.models.split`).
    buffers, moments: running statistics, and the optimiser's moments. examples, environment_steps: data used so far.
    loss: of the last meta-step; None for a learner without one. One that is not finite counts as divergence.

    A learner may yield one state whose tensors change in place. Copy a state if you keep it."""

    parameters: Parameters = field(default_factory=dict)
    buffers: Parameters = field(default_factory=dict)
    moments: Parameters = field(default_factory=dict)
    step: int = 0
    examples: int = 0
    environment_steps: int = 0
    loss: float | None = None

    def copy(self) -> State:
        """The same values in tensors of their own, without gradients."""
        return self._mapped(lambda tensor: tensor.detach().clone())

    def to(self, device: torch.device | str) -> State:
        """A copy on ``device``."""
        return self._mapped(lambda tensor: tensor.detach().to(device, copy=True))

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> State:
        tensors = {part: getattr(self, part).items() for part in ("parameters", "buffers", "moments")}
        changed: Any = {part: {name: change(tensor) for name, tensor in pairs} for part, pairs in tensors.items()}
        return dataclasses.replace(self, **changed)


class Configured:
    """A frozen dataclass whose fields are its configuration; they go into the record and into the content key."""

    name: ClassVar[str]

    def config(self) -> dict[str, Any]:
        """Fields and values, as they go into the record."""
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        return {f.name: getattr(self, f.name) for f in fields if f.metadata.get("configuration", True)}

    def replace(self, **changes: Any) -> Self:
        """A copy with other field values."""
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]


def adaptation_field(default: Any) -> Any:
    """A field that matters only when a fitted learner adapts: changing it needs no new fit."""
    return field(default=default, metadata={"stage": "adaptation"})


@dataclass(frozen=True)
class TaskDistribution(Configured):
    """p(T): a distribution over tasks, in three splits that share no class (in a continuum of tasks, no task).

    A subclass is a frozen dataclass registered with `@register_task`. Its class data state its kind, its fields select
    a variant. The docstring is the data sheet: inputs and outputs with units, how tasks are drawn, the source, and
    differences from the original. A control task also declares ``discount``, the discount factor of returns.
    """

    kind: ClassVar[str]  #: one of KINDS
    version: ClassVar[int] = 1  #: a change that moves any score changes it
    variants: ClassVar[Mapping[str, Mapping[str, Any]]]  #: name -> field values; the first is the default
    metric: ClassVar[str]  #: the unit of `score`: "accuracy", "squared error" or "return"
    higher_is_better: ClassVar[bool]
    #: smaller differences are called equal (score units; for squared errors a ratio of means, 1.1)
    equivalence_margin: ClassVar[float]
    offers: ClassVar[frozenset[str]] = frozenset()  #: of "pooled", "parameters", "classes"; see `MetaLearner.needs`
    exhibited: ClassVar[int] = 3  #: episodes for `exhibit`
    budgets: ClassVar[Mapping[str, int]] = {}  #: variant -> examples (environment steps) that every fit should see

    variant: str = ""
    device: str = field(default="cpu", metadata={"configuration": False}, kw_only=True)

    @property
    def id(self) -> str:
        """Name, version and variant: ``omniglot-v1/5w1s``."""
        return f"{self.name}-v{self.version}/{self.variant}"

    @property
    def title(self) -> str:
        """The id and the fields that differ from the variant's, for records: ``sinusoid-v1/k10[shot=7]``."""
        fields = getattr(self, "variants", {}).get(self.variant, {})
        usual = type(self)(**{"variant": self.variant, **fields}).config()
        changed = [f"{name}={value}" for name, value in self.config().items() if value != usual[name]]
        return self.id + (f"[{', '.join(changed)}]" if changed else "")

    def identity(self) -> list[Any]:
        """The id and the fields that decide a result, for keys: those of `config` without the places of data (metadata
        ``{"place": True}``), whose content has the `data_digest`."""
        places = {f.name for f in dataclasses.fields(self) if f.metadata.get("place")}
        return [self.id, {name: value for name, value in self.config().items() if name not in places}]

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

    @property
    def discount(self) -> float:
        """The discount factor of a control task's returns; a field or a property of the subclass."""
        raise MetabenchError(f"{self.id} has no discount; a control task declares one, e.g. `discount: float = 0.99`")

    def prepare(self, progress: Callable[[str], None] = lambda line: None) -> None:
        """Make the data ready (find, download, decode, count), once before episodes are cut; raises `Unavailable`."""

    def data_digest(self) -> str | None:
        """A hash of the decoded data, for the record; None for a task without data files."""
        return None

    def for_training(self) -> TaskDistribution:
        """The distribution to train on. A variant that differs only at test time returns the plain one."""
        return self

    def episodes(
        self, split: str, indices: Sequence[int] | np.ndarray, *, shots: int | None = None, queries: int | None = None
    ) -> Episodes:
        """The episodes of a split with these numbers, a pure function of (id, split, index).

        indices: ``[T]`` integers from 0 on, below 2**63. shots, queries: examples per class other than the variant's;
        the query examples do not depend on the shots. Support and query share no example."""
        raise NotImplementedError

    def pooled(self, split: str, indices: Sequence[int] | np.ndarray) -> LabelledSet:
        """Single examples of all classes (or all tasks) together, as one task: x ``[1, n, *input_shape]``, y int64
        ``[1, n]`` with global class numbers, or ``[1, n, outputs]`` in regression.

        For methods that learn one network for all tasks instead of adapting: `finetune` and `constant` call it with
        "train" in every meta-step. indices: ``[n]`` integers; each alone decides its example."""
        raise NotImplementedError

    def pooled_outputs(self, split: str) -> int:
        """How many classes `pooled` labels have (for regression: the dimension of the target)."""
        raise NotImplementedError

    def score(self, predictor: Predictor, query: Any) -> Tensor:
        """One score per query, ``[T, n]``: 1 or 0 (right or wrong), squared error or return; NaN where it failed."""
        raise NotImplementedError

    def predictions(self, predictor: Predictor, query: LabelledSet) -> Tensor:
        """The predictions ``[T, n, outputs]`` for the queries, for `score`.

        Raises `MetabenchError` for another shape: broadcasting would give it a score."""
        found, _ = predictor(query.x)
        expected = (*query.x.shape[:2], self.outputs)
        if tuple(found.shape) != expected:
            raise MetabenchError(
                f"{self.id}: predictions have shape {tuple(found.shape)}, not {expected} (tasks, queries, outputs)"
            )
        return found

    def exhibit(self, predictors: Mapping[int, Predictor], episodes: Episodes) -> dict[str, np.ndarray]:
        """Arrays for the figures, from predictors for the tasks of a few episodes, by number of inner steps."""
        return {}


@dataclass(frozen=True)
class MetaLearner(Configured):
    """A way to learn from many tasks how to learn a new one.

    A subclass is a frozen dataclass registered with `@register_method`; fields are hyper-parameters. The docstring of
    its file names the paper and lists the deviations."""

    kinds: ClassVar[frozenset[str]]  #: the kinds of task it learns
    needs: ClassVar[frozenset[str]] = frozenset()  #: the `TaskDistribution.offers` it relies on
    role: ClassVar[str] = "learner"  #: or "floor", or "ceiling", which knows more than a learner may and has no rank
    fits: ClassVar[bool] = True  #: False for a learner without anything to train
    #: settings: "task" or "task/variant" -> fields; unlisted tasks take the defaults
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    origins: ClassVar[Mapping[str, Origin]] = {}  #: whose settings those are, by the same keys; "": of all other tasks
    published_meta_steps: ClassVar[Mapping[str, int]] = {}  #: the papers' budgets in meta-steps, by the same keys
    #: adaptation fields and values to try on validation tasks; empty where nothing is chosen
    grid: ClassVar[Mapping[str, Sequence[Any]]] = {}

    def fit_method(self) -> str | None:
        """The registered method whose fit this one shares; None: it has its own."""
        return None

    def refuses(self, tasks: TaskDistribution) -> str | None:
        """Why this learner, with these fields, does not run on these tasks; None if it does."""
        return None

    def check_data(self, tasks: TaskDistribution) -> None:
        """Raise `MetabenchError` where the data, which are ready now, are too few to train on."""

    def reported_steps(self) -> tuple[int, ...]:
        """The numbers of inner steps whose scores are reported, the headline last; (0,) for one without steps."""
        return (0,)

    def for_budget(self, meta_steps: int) -> Self:
        """The learner for a fit of ``meta_steps``: a schedule that ends with the budget has the number in a field, e.g.
        ``return self if self.anneal_over else self.replace(anneal_over=meta_steps)``."""
        return self

    def examples_per_step(self, tasks: TaskDistribution) -> int | None:
        """Examples (environment steps, at most) that a meta-step sees; None: a profile has to give meta-steps."""
        return None

    def planned(self, tasks: TaskDistribution, meta_steps: int, forced: str = "") -> tuple[Self, dict[str, Any]]:
        """The learner with its execution plan (`benchmarks.execution.plans`) settled, and the plan as plain data.

        meta_steps: how many remain. forced: a spelled plan, not the rule's. It may compile, and changes no result."""
        return self, {}

    def fit(self, tasks: TaskDistribution, seed: int, start: State | None = None) -> Iterator[State]:
        """Meta-learn on ``tasks``, for ever: yield the state after each meta-step. The randomness of meta-step i is a
        function of (seed, i) alone, so ``start=`` resumes bit for bit. Raises `Diverged` if the loss is not finite."""
        raise NotImplementedError

    def adapt(self, state: State, support: Any, tasks: TaskDistribution) -> Iterator[Predictor]:
        """Learn T new tasks: yield predictors after 0, 1, 2 ... steps.

        Leaves ``state`` unchanged, keeps no graph, and answers the same when called again. It may go on for ever or
        end: a learner without steps yields once, one with a learned rate ends after the steps it was trained with.
        ``tasks`` is for facts (kind, outputs, floor), never for data."""
        raise NotImplementedError

    def choose(self, state: State, tasks: TaskDistribution, episodes: int) -> tuple[dict[str, Any], int] | None:
        """Field values that do best on the first ``episodes`` validation tasks, and how many settings were tried; None,
        as here: the suite tries the values of `grid` (`benchmarks.run.selection`)."""
        return None

    def describe(self, tasks: TaskDistribution) -> dict[str, Any]:
        """Facts for the tables that follow from the fields: backbone, mean-loss equivalent of the rate, ..."""
        return {}
