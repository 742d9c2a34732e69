"""Does a module keep the contract as a backbone? Refused or not by `network_for`, then trained by MAML."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks import registry
from benchmarks.conformance.findings import Finding, guarded, note, tried
from benchmarks.conformance.methods import META_STEPS, TRIALS, check_pair
from benchmarks.errors import MetabenchError
from benchmarks.models import BACKBONES, network_for
from benchmarks.models.modules import OwnBackbone

#: shapes that no task has that is at hand everywhere
FURTHER_SHAPES = ((3, 84, 84),)


def check_backbone(own: OwnBackbone) -> Iterator[Finding]:
    """A module on the inputs of small tasks: one shape that it takes is enough."""
    yield from (finding.about(f"backbone {own.name!r}") for finding in guarded(_check(own), own.path))


def own_backbones(path: Path) -> list[OwnBackbone]:
    """The backbones that a file registered."""
    return [own for own in BACKBONES.values() if isinstance(own, OwnBackbone) and own.path.resolve() == path.resolve()]


def _check(own: OwnBackbone) -> Iterator[Finding]:
    misfits = []
    fits = False
    for task in TRIALS:
        tasks = registry.build_task(task, **TRIALS[task])
        if tasks.kind == "control":
            continue
        yield tried(f"on {tasks.id}: inputs {tasks.input_shape}, MAML for 2 meta-steps")
        try:
            found = network_for(tasks, own.name)
        except MetabenchError as error:
            if error.__cause__ is None:
                raise
            misfits.append(error)
            continue
        fits = True
        if found.why:
            yield note(f"goes through the tasks one after the other ({found.why})")
        tasks.prepare()
        learner = registry.build_method("maml", tasks, backbone=own.name)
        try:
            learner.planned(tasks, META_STEPS)
        except MetabenchError as error:
            yield note(str(error))
            learner = registry.build_method("fomaml", tasks, backbone=own.name)
        yield from (finding for finding in check_pair(learner, tasks) if finding.kind == "complaint")
    for shape in () if fits else FURTHER_SHAPES:
        yield tried(f"on inputs {shape}, without training: no task at hand has them")
        try:
            own.for_inputs(shape)
            fits = True
        except MetabenchError as error:
            if error.__cause__ is None:
                raise
            misfits.append(error)
    if not fits:
        raise misfits[-1]
