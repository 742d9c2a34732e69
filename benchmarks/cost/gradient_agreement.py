"""How far first-order meta-gradients agree with those of second order, along the training of MAML.

    python -m benchmarks.cost.gradient_agreement STORE

MAML trains in second order with its published settings, but 1, 3 or 5 inner steps. At some meta-steps both orders
differentiate at its parameters, on training tasks that no meta-step uses. First order suffices where the cosine of the
two is near that of second-order gradients on two batches of tasks: then leaving derivatives out errs less than sampling
does.

Meta-steps, tasks per meta-step and the measured meta-steps are chosen for minutes on a CPU, on nothing else.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from benchmarks import registry
from benchmarks.api import MetaLearner, State, TaskDistribution
from benchmarks.machine import usable_cores

INNER_STEPS = (1, 3, 5)
#: task -> meta-steps, and tasks of each
BUDGETS = {"sinusoid/k10": (3000, 25), "omniglot/5w1s": (300, 4)}
#: measured meta-steps per decade
PER_DECADE = 4
#: batches of tasks at a measured meta-step, each of the size of a meta-step
BATCHES = 4
#: seconds that a task may take, on a busy machine too
LIMIT = 3600.0
#: seed of the fit; the next one is that of the measured tasks
SEED = 0


def measure(progress: Callable[[dict[str, Any]], None], task: str) -> dict[str, Any]:
    """A row for each number of inner steps and measured meta-step; a job of `benchmarks.run.isolate`."""
    threads = usable_cores() or 1
    torch.set_num_threads(threads)
    tasks, (meta_steps, meta_batch) = registry.build_task(task), BUDGETS[task]
    rows = []
    for inner_steps in INNER_STEPS:
        progress({"line": f"{task}: {inner_steps} inner steps"})
        learner = registry.build_method("maml", tasks, inner_steps=inner_steps, meta_batch=meta_batch)
        facts = {"inner_steps": inner_steps, "meta_batch": meta_batch, "seed": SEED}
        rows += [{"status": "ok", "reason": None, **facts, **found} for found in agreements(learner, tasks, meta_steps)]
    return {"task": task, "threads": threads, "rounds": BATCHES, "rows": rows}


def agreements(learner: MetaLearner, tasks: TaskDistribution, meta_steps: int) -> Iterator[dict[str, Any]]:
    """``step``, ``loss``, and means over batches: ``cosine`` of the orders, ``norm_ratio`` (first over second), and
    ``between_batches``, the cosine of second-order gradients on two of them."""
    when = set(measured_steps(meta_steps))
    for state in learner.fit(tasks, SEED):
        if state.step in when:
            yield {"step": state.step, "loss": state.loss, **agreement(learner, tasks, state)}
        if state.step >= meta_steps:
            return


def measured_steps(last: int) -> list[int]:
    """1 to ``last``, evenly spaced on a logarithmic axis."""
    found, place = [1], 1.0
    while found[-1] < last:
        place *= 10 ** (1 / PER_DECADE)
        found.append(min(last, max(found[-1] + 1, round(place))))
    return found


def agreement(learner: MetaLearner, tasks: TaskDistribution, state: State) -> dict[str, float]:
    """The agreement of both orders at the parameters of a state."""
    pairs = [
        [meta_gradient(learner.replace(second_order=order), tasks, state, batch) for order in (True, False)]
        for batch in range(BATCHES)
    ]
    neighbours = itertools.pairwise([second for second, _ in pairs])
    return {
        "cosine": sum(cosine(second, first) for second, first in pairs) / BATCHES,
        "norm_ratio": sum(float(first.norm() / second.norm()) for second, first in pairs) / BATCHES,
        "between_batches": sum(cosine(one, other) for one, other in neighbours) / (BATCHES - 1),
    }


def meta_gradient(learner: MetaLearner, tasks: TaskDistribution, state: State, batch: int = 0) -> Tensor:
    """The meta-gradient of a learner at the parameters of a state, as one vector: in Adam's first moment after one step
    from none it is a tenth. batch: which tasks; none of them is one of the fit's."""
    began = State(parameters=state.parameters, step=BATCHES * state.step + batch).copy()
    after = next(learner.fit(tasks, SEED + 1, start=began))
    return 10 * torch.cat([after.moments[f"{name}/exp_avg"].flatten() for name in state.parameters])


def cosine(one: Tensor, other: Tensor) -> float:
    """Of the angle between two vectors."""
    return float(one @ other / (one.norm() * other.norm()))


def main(store: Annotated[Path, typer.Argument(help="The folder of the records.")]) -> None:
    """Measure both tasks, and keep a record of each that the page draws."""
    from benchmarks.cost import sweep
    from benchmarks.records.store import Store

    asked = [sweep.Throughput("agreement", "gradient_agreement", task, (), ("maml",)) for task in BUDGETS]
    records = sweep.throughputs(Store(store), "standard", typer.echo, LIMIT, which=asked)
    if any(not record.ok for record in records):
        sys.exit(1)


if __name__ == "__main__":
    from benchmarks.errors import MetabenchError

    try:
        typer.run(main)
    except MetabenchError as error:
        typer.echo(f"metabench: {error}", err=True)
        sys.exit(2)
