"""The interface of an implementation: a meta-gradient to compare, a meta-step to time, and adaptation."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import metadata
from typing import Any, ClassVar

import torch
from torch import Tensor

from benchmarks.api import Episodes, Parameters
from benchmarks.cost.workloads import Workload
from benchmarks.execution.precision import precision
from benchmarks.training import MetaGradient, descend

#: Adam's rate: weights hardly move, so every timed step does the same work
META_LR = 1e-6
#: 1 minus Adam's decay of the first moment: the share of the first meta-gradient in it after one step
FIRST_SHARE = 1 - 0.9


@dataclass(frozen=True)
class Settings:
    """The meta-gradient that every implementation computes.

    It is the gradient by all parameters of the query loss after ``inner_steps`` gradient steps of rate
    ``workload.inner_lr`` on the support loss; both losses are means. All parameters take inner steps, also batch-norm's
    scale and shift, since other libraries know no exception. Batch-norm uses the statistics of the set it predicts.

    second_order: differentiate through the inner steps.
    learner: one of `benchmarks.cost.learners.LEARNERS`; all but MAML compute their own meta-gradient, Reptile its step.
    """

    workload: Workload
    inner_steps: int
    second_order: bool
    learner: str = "maml"


class Adapter:
    """One implementation under one plan; it keeps no state except compiled programs.

    library: the package that it needs.
    plans: the ways in which it can run; cuda_plans: those that need CUDA.
    compiles: whether its first step compiles.
    is_program: whether a compiled or captured program is timed, and not the code that was compared in double precision;
    known after the first step.
    reduced: whether that program has less precision than float32.
    counted: whether torch's counters see its operations.
    learners: the learners that it has.
    tuning: makes the context for a compiler that times kernels on a shared GPU."""

    library: ClassVar[str] = "torch"
    plans: ClassVar[tuple[str, ...]] = ("",)
    cuda_plans: ClassVar[tuple[str, ...]] = ()
    compiles: ClassVar[bool] = False
    is_program: ClassVar[bool] = False
    reduced: ClassVar[bool] = False
    counted: ClassVar[bool] = True
    learners: ClassVar[tuple[str, ...]] = ("maml",)

    def __init__(self, plan: str = "") -> None:
        self.plan = plan
        self.tuning: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext

    @classmethod
    def always_compiles(cls, plan: str) -> bool:
        """Whether it compiles under that plan, for any model and machine; imports no library."""
        return cls.compiles

    def version(self) -> str | None:
        """The library's version."""
        try:
            return metadata.version(self.library)
        except metadata.PackageNotFoundError:
            return None

    def facts(self) -> dict[str, Any]:
        """The plan in full, for the record; complete after a step."""
        return {}

    def arithmetic(self) -> AbstractContextManager[Any]:
        """A context with the plan's precision of products and convolutions on CUDA; float32 unless it says TF32."""
        return contextlib.nullcontext()

    def from_cache(self) -> bool:
        """Whether its program came from a cache on disk; known after a step."""
        return False

    def meta_gradient(self, parameters: Parameters, episodes: Episodes, settings: Settings) -> Parameters:
        """The meta-gradient of T tasks, by parameter, in the precision of the parameters.

        An implementation that compiles its step calls the uncompiled function here, or compiles without
        optimisation."""
        raise NotImplementedError

    def stepper(self, parameters: Parameters, episodes: Episodes, settings: Settings) -> Callable[[], Any]:
        """A function that does one meta-step at each call: meta-gradient, loss as a Python number, and Adam. The first
        call may compile; `first_gradient` reads its return value."""

        def gradient(current: Parameters, buffers: Parameters, step: int) -> MetaGradient:
            loss, gradients = self.loss_and_gradient(current, episodes, settings)
            return MetaGradient(float(loss), [gradients[name] for name in current], 0)

        stream = descend(parameters, gradient=gradient, learning_rate=META_LR)
        return lambda: next(stream)

    def first_gradient(self, result: Any, parameters: Parameters) -> Parameters:
        """The meta-gradient of a stepper's first call, from its return value: it is in Adam's first moment. Reptile has
        no Adam: there it is the step over its rate."""
        if not result.moments:
            return {name: (value - result.parameters[name]) / META_LR for name, value in parameters.items()}
        return {name: result.moments[f"{name}/exp_avg"] / FIRST_SHARE for name in result.parameters}

    def loss_and_gradient(
        self, parameters: Parameters, episodes: Episodes, settings: Settings
    ) -> tuple[float | Tensor, Parameters]:
        """The mean query loss and the meta-gradient."""
        raise NotImplementedError

    def adapt(self, parameters: Parameters, episodes: Episodes, settings: Settings) -> Tensor:
        """Adapt to T tasks without a graph to the initial parameters, and predict the queries: ``[T, n, outputs]``."""
        raise NotImplementedError

    def in_one_thread(self) -> tuple[Adapter, int]:
        """An adapter that does the same work in the calling thread, the only one that counters see; and the number of
        threads of this one, known after its first step."""
        return self, 1

    def peak_bytes(self) -> int | None:
        """The most memory that a step holds, if torch's allocator can't tell; None if it can."""
        return None


class TaskLoop(Adapter):
    """An implementation that loops over tasks, as these libraries are used."""

    cuda_plans: ClassVar[tuple[str, ...]] = ("tf32",)

    def arithmetic(self) -> AbstractContextManager[Any]:
        return precision(self.plan or "float32", "cuda") if torch.cuda.is_available() else contextlib.nullcontext()

    def meta_gradient(self, parameters: Parameters, episodes: Episodes, settings: Settings) -> Parameters:
        return self.loss_and_gradient(parameters, episodes, settings)[1]
