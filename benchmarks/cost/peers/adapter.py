"""What an implementation offers the cost benchmark: a meta-gradient, a meta-step to be timed, and adaptation."""

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

#: Adam's rate while steps are timed: weights hardly move, so every step does the same work
META_LR = 1e-6
#: 1 minus Adam's decay of the first moment: the share of the first meta-gradient that the moment holds after one step
FIRST_SHARE = 1 - 0.9


@dataclass(frozen=True)
class Settings:
    """What every implementation computes: the gradient, by all parameters, of the mean over tasks of the mean loss on
    the queries after ``inner_steps`` gradient steps of rate ``workload.inner_lr`` on the mean loss of the support set.

    All parameters take inner steps, batch-norm's scale and shift too: other libraries know no exception. Batch-norm
    takes the statistics of the set that is predicted. second_order: differentiate through the inner steps.
    """

    workload: Workload
    inner_steps: int
    second_order: bool


class Adapter:
    """One implementation under one plan; stateless but for what it compiled.

    library: the package that it needs. plans: how it can be run. cuda_plans: those that only CUDA has. compiles:
    whether its first step compiles. is_program: whether the timed step is a program, made by a compiler or a capture,
    and so not the very code that was compared in double precision; known after the first step. reduced: whether that
    program has less than float32's digits. counted: whether torch's counters see its operations. tuning: what is
    entered while a compiler times kernels on the GPU to choose among them, which others share.
    """

    library: ClassVar[str] = "torch"
    plans: ClassVar[tuple[str, ...]] = ("",)
    cuda_plans: ClassVar[tuple[str, ...]] = ()
    compiles: ClassVar[bool] = False
    is_program: ClassVar[bool] = False
    reduced: ClassVar[bool] = False
    counted: ClassVar[bool] = True

    def __init__(self, plan: str = "") -> None:
        self.plan = plan
        self.tuning: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext

    @classmethod
    def always_compiles(cls, plan: str) -> bool:
        """Whether it compiles under that plan whatever the model and the machine; its library is not imported."""
        return cls.compiles

    def version(self) -> str | None:
        """The library's version."""
        try:
            return metadata.version(self.library)
        except metadata.PackageNotFoundError:
            return None

    def facts(self) -> dict[str, Any]:
        """What the plan came to, for the record; complete after a step."""
        return {}

    def arithmetic(self) -> AbstractContextManager[Any]:
        """The precision of products and convolutions on CUDA while it works: float32, unless the plan says TF32."""
        return contextlib.nullcontext()

    def from_cache(self) -> bool:
        """Whether what it compiles may have been compiled by an earlier process; known after a step."""
        return False

    def meta_gradient(self, parameters: Parameters, episodes: Episodes, settings: Settings) -> Parameters:
        """The meta-gradient of T tasks, by parameter, in the precision of the parameters. What is compiled to be timed
        is computed by the function that is handed to the compiler, or compiled without optimisation."""
        raise NotImplementedError

    def stepper(self, parameters: Parameters, episodes: Episodes, settings: Settings) -> Callable[[], Any]:
        """A function that does one meta-step at each call, with all that training needs: meta-gradient, loss as a
        number of Python's, and the suite's Adam. The first call may compile; `first_gradient` reads what it returns."""

        def gradient(current: Parameters, buffers: Parameters, step: int) -> MetaGradient:
            loss, gradients = self.loss_and_gradient(current, episodes, settings)
            return MetaGradient(float(loss), [gradients[name] for name in current], 0)

        stream = descend(parameters, gradient=gradient, learning_rate=META_LR)
        return lambda: next(stream)

    def first_gradient(self, result: Any, parameters: Parameters) -> Parameters:
        """The meta-gradient that a stepper's first call computed, from what that call returned: Adam's first moment."""
        return {name: result.moments[f"{name}/exp_avg"] / FIRST_SHARE for name in parameters}

    def loss_and_gradient(
        self, parameters: Parameters, episodes: Episodes, settings: Settings
    ) -> tuple[float | Tensor, Parameters]:
        """The mean query loss and the meta-gradient."""
        raise NotImplementedError

    def adapt(self, parameters: Parameters, episodes: Episodes, settings: Settings) -> Tensor:
        """Adapt to T tasks without a graph to the initial parameters, and predict the queries: ``[T, n, outputs]``."""
        raise NotImplementedError

    def in_one_thread(self) -> tuple[Adapter, int]:
        """The same work, all of it in the thread that asks, which is the only one that counters see; and in how many
        threads this one does it, known after its first step."""
        return self, 1

    def peak_bytes(self) -> int | None:
        """The most memory that a step holds, where torch's allocator doesn't see that; None: it does."""
        return None


class TaskLoop(Adapter):
    """An implementation that takes one task after the other, as these libraries are used."""

    cuda_plans: ClassVar[tuple[str, ...]] = ("tf32",)

    def arithmetic(self) -> AbstractContextManager[Any]:
        return precision(self.plan or "float32", "cuda") if torch.cuda.is_available() else contextlib.nullcontext()

    def meta_gradient(self, parameters: Parameters, episodes: Episodes, settings: Settings) -> Parameters:
        return self.loss_and_gradient(parameters, episodes, settings)[1]
