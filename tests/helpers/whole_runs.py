"""Calling the command line as a user does, from a folder outside the checkout; and what to wait for."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.records.record import Kind, Record
from benchmarks.records.store import Store

ROOT = Path(__file__).parents[2]

#: a profile of a few steps of training, for a user's own file
PROFILE = """
[tiny]
seeds = 1
episodes = 6
validation_episodes = 4
validations = 4
seconds = 20
kill_after = {kill_after}
meta_steps = {meta_steps}
methods = ["constant"]

[[tiny.tasks]]
task = "sinusoid/k5"
"""

#: MAML, slowed down; it logs where each fit begins and often writes checkpoints
SLOW = """
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.registry import register_method
from benchmarks.run import fitting
from maml.maml import MAML

fitting.CHECKPOINT_EVERY = {checkpoint_every}


@register_method("{name}")
@dataclass(frozen=True)
class Slow(MAML):
    '''MAML, slowed down.'''

    def fit(self, tasks, seed, start=None):
        with Path("{log}").open("a") as file:
            file.write(f"{{seed}} from {{start.step if start else 0}}\\n")
        for state in super().fit(tasks, seed, start):
            time.sleep({pause})
            yield state
"""


def slow_maml(log: Path, name: str = "slow", pause: float = 0.04, checkpoint_every: float = 0.1) -> str:
    """A user's file with a method that sleeps ``pause`` seconds after each meta-step."""
    return SLOW.format(log=log, name=name, pause=pause, checkpoint_every=checkpoint_every)


def fits_begun(log: Path) -> list[tuple[int, int]]:
    """Seed and first meta-step of each fit of `slow_maml` so far, in the order of their beginnings."""
    lines = log.read_text().splitlines() if log.exists() else []
    return [(int(seed), int(step)) for seed, _, step in (line.partition(" from ") for line in lines)]


def profile(kill_after: int = 60, meta_steps: int = 4) -> str:
    """A file of profiles that has "tiny"."""
    return PROFILE.format(kill_after=kill_after, meta_steps=meta_steps)


@dataclass
class Answer:
    """What a command gave back."""

    code: int
    out: str
    err: str
    cpu_seconds: float = 0.0


def start(folder: Path, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    """Begin ``metabench`` with these arguments and environment variables in a process of its own."""
    given = {"PYTHONPATH": str(ROOT), "METABENCH_OFFLINE": "1", "PYTHONUNBUFFERED": "1", **variables}
    environment = {**os.environ, **given}
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def metabench(folder: Path, *arguments: str, **variables: str) -> Answer:
    """Run it to its end."""
    process = start(folder, *arguments, **variables)
    out, err = process.communicate(timeout=400)
    return Answer(process.returncode, out, err)


def records(store: Path, cell: Kind | None = None) -> dict[tuple[str, str, int | None], Record]:
    """The records of a store by label, kind of cell and seed."""
    found = Store(store, read_only=True).records(cell)
    return {(record.label, record.cell, record.seed): record for record in found}


def wait_until(
    condition: Callable[[], object], seconds: float = 60.0, process: subprocess.Popen[str] | None = None
) -> None:
    """Wait, but not for ever, nor for a process that has ended."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether a process is there and has not ended."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
