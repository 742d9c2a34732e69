"""The meta-gradient of MAML under an execution plan, and the rule that chooses the plan.

Every form goes through the same loss and the same inner loop; `gradient_of` says which. docs/performance.md has what
each gains.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from benchmarks.api import LabelledSet, Parameters
from benchmarks.execution.compiled import Function, capture_function, compile_function
from benchmarks.execution.plans import Plan
from benchmarks.execution.precision import precision
from benchmarks.models import NORMALISATION, Network, NetworkPredictor
from benchmarks.models.backbones import MLP, Conv4
from maml.inner_loop import inner_loop, per_task
from maml.losses import supervised_loss

#: parameters without a task axis, support set and query set of T tasks -> loss and the gradient of each parameter
Gradient = Callable[[Parameters, LabelledSet, LabelledSet], tuple[Tensor, Sequence[Tensor]]]


@dataclass(frozen=True)
class QueryLoss:
    """The loss on the queries after the inner steps: what a meta-step differentiates.

    rate: for a mean loss. regime: of batch-norm, for the queries. weight: of the mean loss of each task in the sum.
    adapt_normalisation: whether batch-norm's scale and shift take inner steps."""

    network: Network
    rate: float
    inner_steps: int
    second_order: bool
    adapt_normalisation: bool
    regime: str
    weight: float

    def steps(self, parameters: Mapping[str, Tensor], support: LabelledSet) -> Iterator[Parameters]:
        """The parameters ``[T, ...]`` after 0, 1, 2 ... inner steps."""
        return inner_loop(
            parameters,
            support,
            lambda theta: NetworkPredictor(self.network, theta),
            supervised_loss,
            self.rate,
            second_order=self.second_order,
            adapted=lambda name: self.adapt_normalisation or not name.endswith(NORMALISATION),
        )

    def at(self, adapted: Mapping[str, Tensor], support: LabelledSet, query: LabelledSet) -> Tensor:
        """The weighted sum over tasks at adapted parameters ``[T, ...]``, a scalar."""
        predictor = NetworkPredictor(self.network, adapted, self.regime, support.x)
        return self.weight * supervised_loss(predictor, query).sum()

    def gradient(
        self, parameters: Parameters, support: LabelledSet, query: LabelledSet
    ) -> tuple[Tensor, Sequence[Tensor]]:
        """The loss, and its gradient by the initial parameters through all inner steps."""
        leaves = {name: value.detach().requires_grad_() for name, value in parameters.items()}
        steps = self.steps(per_task(leaves, len(support)), support)
        adapted = next(islice(steps, self.inner_steps, None))
        loss = self.at(adapted, support, query)
        return loss.detach(), torch.autograd.grad(loss, list(leaves.values()))

    def checkpointed_gradient(
        self, parameters: Parameters, support: LabelledSet, query: LabelledSet
    ) -> tuple[Tensor, Sequence[Tensor]]:
        """The same with the graph of one inner step at a time: forwards only the parameters between steps are kept, and
        backwards each step is taken again, for its vector-Jacobian product."""
        start = {name: value.detach() for name, value in per_task(parameters, len(support)).items()}
        between = list(
            islice(dataclasses.replace(self, second_order=False).steps(start, support), self.inner_steps + 1)
        )
        leaves = {name: value.detach().requires_grad_() for name, value in between[-1].items()}
        loss = self.at(leaves, support, query)
        gradients = torch.autograd.grad(loss, list(leaves.values()))
        for theta in reversed(between[:-1] if self.second_order else []):
            leaves = {name: value.detach().requires_grad_() for name, value in theta.items()}
            after = next(islice(self.steps(leaves, support), 1, None))
            gradients = torch.autograd.grad(list(after.values()), list(leaves.values()), gradients)
        return loss.detach(), [gradient.sum(0) for gradient in gradients]


def gradient_of(objective: QueryLoss, plan: Plan) -> Gradient:
    """The objective's gradient, computed as the plan says. What is compiled or captured is kept for the process."""
    form = objective.checkpointed_gradient if plan.checkpointed else objective.gradient

    def gradient(parameters: Parameters, support: LabelledSet, query: LabelledSet) -> tuple[Tensor, Sequence[Tensor]]:
        if plan.precision == "float32" and support.x.device.type == "cpu":
            return form(parameters, support, query)
        with precision(plan.precision, support.x.device.type):
            return form(parameters, support, query)

    return _Fixed(objective, plan).gradient if plan.compiled or plan.captured else gradient


class _Fixed:
    """The gradient as programs for fixed shapes, one for each that occurs."""

    def __init__(self, objective: QueryLoss, plan: Plan) -> None:
        self.objective, self.plan = objective, plan
        self._programs: dict[object, Function] = {}

    def gradient(
        self, parameters: Parameters, support: LabelledSet, query: LabelledSet
    ) -> tuple[Tensor, Sequence[Tensor]]:
        with torch.no_grad():
            tensors = [value.contiguous() for value in parameters.values()]
            tensors += [value.contiguous() for value in (support.x, support.y, query.x, query.y)]
            shapes = tuple([(value.shape, value.dtype) for value in tensors])
            program = self._programs.get(shapes)
            if program is None:
                key = (self.objective, self.plan, tuple(parameters), shapes, support.x.device)
                if key not in _PROGRAMS:
                    _PROGRAMS[key] = self._program(tuple(parameters), [value.detach() for value in tensors])
                program = self._programs[shapes] = _PROGRAMS[key]
            loss, *gradients = program(*tensors)
        return loss, gradients

    def _program(self, names: Sequence[str], examples: Sequence[Tensor]) -> Function:
        eager = gradient_of(self.objective, dataclasses.replace(self.plan, mode="eager"))

        def flat(*tensors: Tensor) -> Sequence[Tensor]:
            parameters = dict(zip(names, tensors, strict=False))
            x, y, query_x, query_y = tensors[len(names) :]
            with torch.enable_grad():
                loss, gradients = eager(parameters, LabelledSet(x, y), LabelledSet(query_x, query_y))
            return [loss, *gradients]

        function: Function = compile_function(flat, examples) if self.plan.compiled else flat
        return capture_function(function, examples) if self.plan.captured else function


def held_bytes(objective: QueryLoss, plan: Plan) -> int | None:
    """What the newest captured program of an objective holds for itself at its peak; None where nothing is captured."""
    found = [program for key, program in _PROGRAMS.items() if key[:2] == (objective, plan)]
    return getattr(found[-1], "held_bytes", None) if found else None


#: programs by objective, plan, names and shapes; a process trains few methods, so none is thrown away
_PROGRAMS: dict[tuple[object, ...], Function] = {}


#: seconds that compiling saves per meta-step for each network pass (inner steps and queries), and seconds that it takes
#: for the first inner step and adds for each: careful guesses (0.0006 where 0.0008 was seen), not measured on a quiet
#: machine
SAVED_PER_PASS = 0.0006
COMPILING, COMPILING_PER_PASS = 12.0, 4.0
#: numbers of input that all passes of a convolutional network at once may have on a CPU
CACHED_NUMBERS = 130_000


def rule(
    network: Network, device: str, tasks: int, inner_steps: int, meta_steps: int, examples: int
) -> tuple[Plan, str]:
    """The plan for so many meta-steps to come, and in words why.

    tasks, inner_steps: of a meta-step. examples: support and queries of one task."""
    if device.startswith("cuda"):
        return Plan(tasks, mode="graph"), "launches are captured: a meta-step has many small ones"
    if isinstance(network.backbone, Conv4):
        threads = min(tasks, torch.get_num_threads())
        cached = CACHED_NUMBERS // (examples * math.prod(network.input_shape) * threads)
        at_once = max(1, min(cached, tasks // threads))
        return Plan(at_once, threads=threads), "as many tasks per pass as stay in the cache, passes in threads"
    if not isinstance(network.backbone, MLP):
        return Plan(tasks), "not compiled: what a module of torch's gains on a CPU is not known"
    passes = inner_steps + 1
    saved, spent = SAVED_PER_PASS * passes * meta_steps, COMPILING + COMPILING_PER_PASS * inner_steps
    sums = f"{meta_steps} meta-steps save about {saved:.0f} s, compiling takes {spent:.0f} s"
    if saved < spent:
        return Plan(tasks), f"not compiled: {sums}"
    return Plan(tasks, mode="compiled"), f"compiled: {sums}"
