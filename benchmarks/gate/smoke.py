"""Trains a few learners for a few meta-steps with the code of the checkout that stands first on the path, and prints
the score of every test episode as JSON.

Run as a script, ``python -P smoke.py [names]`` with PYTHONPATH set to a checkout, like `timed`: the same script trains
base and head, with the same seeds, and tests them on the same episodes.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Run:
    """A method on a task.

    seeds, meta_steps: of training.
    episodes: of the test.
    fields: hyper-parameters that differ from the published ones."""

    method: str
    task: str
    seeds: int
    meta_steps: int
    episodes: int
    fields: Mapping[str, Any] = field(default_factory=dict)


#: far below any published budget, but enough to tell a working learner from a broken one
RUNS = {
    "maml on sinusoid/k10": Run("maml", "sinusoid/k10", 3, 250, 400),
    "maml on glyphs/5w1s": Run("maml", "glyphs/5w1s", 1, 10, 60, {"meta_batch": 2}),
    "matching-nets on glyphs/5w1s": Run("matching-nets", "glyphs/5w1s", 1, 30, 100, {"meta_batch": 4}),
}


def scores(run: Run) -> dict[str, Any]:
    """The mean score of each episode after the headline number of steps, ``[seeds, episodes]``, with the task's id and
    facts and a digest of the test episodes, which tell whether scores can be paired."""
    from benchmarks import registry

    tasks = registry.build_task(run.task)
    tasks.prepare()
    learner = registry.build_method(run.method, tasks, **run.fields)
    cut = tasks.episodes("test", range(run.episodes))
    found = []
    for seed in range(run.seeds):
        stream = learner.fit(tasks, seed)
        for _ in range(run.meta_steps):
            state = next(stream)
        predictors = learner.adapt(state, cut.support, tasks)
        for _ in range(learner.reported_steps()[-1] + 1):
            predictor = next(predictors)
        found.append(tasks.score(predictor, cut.query).double().mean(1).tolist())
    digest = hashlib.sha256(cut.query.x.numpy().tobytes() + cut.support.x.numpy().tobytes()).hexdigest()
    facts = {"metric": tasks.metric, "higher_is_better": tasks.higher_is_better, "margin": tasks.equivalence_margin}
    return {"task": tasks.id, "episodes": digest, **facts, "scores": found}


def main() -> None:
    import torch

    import benchmarks

    wanted, here = os.environ["PYTHONPATH"], Path(benchmarks.__file__ or "").parents[1]
    if here != Path(wanted).resolve():
        sys.exit(f"smoke.py: benchmarks is imported from {here}, not from {wanted}")
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for name in sys.argv[1:] or RUNS:
        try:
            found[name] = scores(RUNS[name])
        except Exception as error:
            found[name] = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
