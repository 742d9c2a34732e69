"""`load`: a trained learner from a store."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import registry
from benchmarks.api import MetaLearner, State, TaskDistribution
from benchmarks.checks import check_device, check_known, unknown
from benchmarks.errors import MetabenchError
from benchmarks.python_api import names
from benchmarks.python_api.own_data import checked
from benchmarks.records.record import Record, Tested
from benchmarks.records.store import Store
from benchmarks.stats.columns import grouped


def load(
    store: str | Path, method: str, task: str, seed: int = 0, checkpoint: str = "best", device: str = "cpu"
) -> tuple[MetaLearner, State, TaskDistribution]:
    """A trained learner from a store: the learner, its state, and the task distribution it was tested on.

    method: a name as `metabench show` prints it ("maml", "maml (inner_lr=0.1)", "pretrained [tuned]"), or the path of
        the plug-in file that defines the method. Fields chosen on validation tasks are set.
    task: ``omniglot-v1/5w1s`` or ``omniglot/5w1s``; or ``omniglot`` where the store has one variant of it. A task of
        your own needs its file: "./lines.py" or "./lines.py/k5".
    seed: of the fit. Methods without a fit have an empty state for every seed.
    checkpoint: "best" on validation episodes, or "last".
    device: where the state goes, ``cpu``, ``cuda`` or ``cuda:N``.

    ``adapt`` yields one predictor after 0, 1, 2 ... inner steps; ``learner.reported_steps()[-1]`` is the number that
    the tables report. A predictor maps inputs ``[T, n, *tasks.input_shape]`` to class scores ``[T, n, way]`` or values
    ``[T, n, outputs]``, and the memory of a recurrent learner. T is the number of tasks, learned independently. Images
    are float32 from 0 to 1. Five images of your own, one per class, and three questions::

        learner, state, tasks = mb.load("reports/runs/quick", method="maml", task="omniglot/5w1s")
        support = mb.LabelledSet(x=images[None], y=torch.arange(5)[None])      # [1, 5, 1, 28, 28] and [1, 5]
        for predictor in itertools.islice(learner.adapt(state, support, tasks), 6):
            scores, _ = predictor(questions[None])                            # [1, 3, 1, 28, 28] -> [1, 3, 5]

    ``adapt`` raises `MetabenchError` for a support set of another shape, type, device or other labels.

    Raises `MetabenchError` for an unknown method, task, seed or checkpoint (and names the known ones), where the method
    has several rows on the task, and where the store holds no trained states (``metabench keep`` leaves them out)."""
    files = Store.existing(store)
    methods, task_ids = names.imported(method, task)
    record = _chosen(files, _only(method, methods), _only(task, task_ids), seed).record
    learner, tasks = _built(record, checkpoint, check_device(device))
    if record.training is None:
        return checked(learner), State(), tasks
    fit = files.get(record.training.fit)
    states = files.state(fit) if fit else None
    if states is None:
        raise MetabenchError(
            f"{files.path} has no trained state of {record.label} on {record.task.id if record.task else task}, seed "
            f"{seed}: copies made by `metabench keep` have none; load from the store of the run, or run again"
        )
    check_known("checkpoint", checkpoint, states)
    return checked(learner), State(**states[checkpoint]).to(device), tasks


def _only(given: str, names: Sequence[str]) -> str:
    if len(names) != 1:
        raise MetabenchError(f"{given} registers {', '.join(names) or 'nothing'}: import it and give one of the names")
    return names[0]


def _chosen(files: Store, method: str, task: str, seed: int) -> Tested:
    """The test of a row and a seed, with the shots that its fit was trained for where there is such a test."""
    tests = [(name, tested) for name, group in grouped(files.evaluations()) for tested in group]
    ids = {tested.conditions.task_id for _, tested in tests}
    task_id = _one("task", f"in {files.path}", task, {name: _short(name) for name in ids})
    where = f"on {task_id} in {files.path}"
    rows: dict[str, dict[int, Tested]] = {}
    for name, tested in sorted(tests, key=lambda each: each[1].conditions.shots not in (None, each[1].task.shot)):
        if tested.conditions.task_id == task_id:
            rows.setdefault(name, {}).setdefault(tested.seed, tested)
    labels = {name: [tested.record.label for tested in seeds.values()] for name, seeds in rows.items()}
    name = _one("method", where, method, labels)
    first, seeds = next(iter(rows[name].values())), rows[name]
    if seed not in seeds and first.record.training is not None:
        raise unknown(f"seed of {name} {where}", str(seed), map(str, seeds))
    return seeds.get(seed, first)


def _short(task_id: str) -> tuple[str, str]:
    """A task without its version, and the name alone."""
    return re.sub(r"-v\d+/", "/", task_id), re.sub(r"-v\d+/.*", "", task_id)


def _one(what: str, where: str, given: str, known: Mapping[str, Sequence[str]]) -> str:
    """The name that is given, in full or in a short form. known: name -> its short forms."""
    found = [name for name in known if name == given] or [name for name in known if given in known[name]]
    if not found:
        raise unknown(f"{what} {where}", given, known)
    if len(found) > 1:
        raise MetabenchError(f"several {what}s {where} are called {given}: name one of {', '.join(sorted(found))}")
    return found[0]


def _own(what: str, variant: str) -> str:
    return f"give the path of its file as `{what}`, as in {what}='./mine.py{variant}'"


def _built(record: Record, checkpoint: str, device: str) -> tuple[MetaLearner, TaskDistribution]:
    """Learner and tasks as the record describes them, with the fields that were chosen for this checkpoint."""
    assert record.method is not None
    assert record.task is not None
    if record.method.name not in registry.methods():
        raise MetabenchError(f"{record.method.name} is no method of the suite: {_own('method', '')}")
    if record.task.name not in registry.tasks():
        raise MetabenchError(f"{record.task.name} is no task of the suite: {_own('task', '/' + record.task.variant)}")
    try:
        tasks = registry.task_from(vars(record.task), device)
        learner = registry.method_from(vars(record.method), tasks.kind)
    except TypeError as error:
        raise MetabenchError(f"{record.label} on {record.task.id} was run by code with other fields: {error}") from None
    if tasks.title != record.task.id:
        raise MetabenchError(f"{record.label} was run on {record.task.id}, and this is {tasks.title}")
    if not record.selected:
        return learner, tasks
    test = next((test for test in record.tests if test.model == checkpoint), None)
    if test is None:
        raise unknown(f"checkpoint of {record.label}", checkpoint, {test.model for test in record.tests})
    return learner.replace(**{name: test.chosen[name] for name in test.chosen if name in learner.config()}), tasks
