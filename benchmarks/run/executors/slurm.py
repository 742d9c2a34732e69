"""Workers that SLURM starts: one job array, each of whose tasks is a ``metabench run`` of the same command.

The run that submits it only watches the store. Workers share it as any runs do, requeue themselves before their time
limit, and go on where they stood.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.errors import MetabenchError, one_line
from benchmarks.records import sharing
from benchmarks.run.executors.place import Needed
from benchmarks.run.isolate import Job, Outcome, Running

ROOT = Path(__file__).parents[3]
#: seconds between two looks into the store, and at the queue
LOOK, QUEUE = 1.0, 20.0
#: runs with the arguments that follow, as Python literals; bash starts what is in the background without SIGINT
PROGRAM = """
import ast, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
import benchmarks
benchmarks.run(**ast.literal_eval(sys.argv[1]), verbose=True)
"""
SCRIPT = """#!/bin/bash
export METABENCH_RUN={group} METABENCH_SENDER={sender} PYTHONPATH={root}${{PYTHONPATH:+:$PYTHONPATH}}
trap 'kill -INT $run; wait $run; scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"; exit' USR1
{python} -c {program} {given} &
run=$!
wait $run
"""


class Slurm:
    """Submits the workers. options: of sbatch. sender: the lock that this run holds."""

    slots = 10**6

    def __init__(self, workers: int, options: Mapping[str, str], needed: Needed, sender: str) -> None:
        self.store, self._sender = needed.store, sender
        given = {name: value for name, value in needed.given.items() if name not in ("executor", "verbose")}
        given = {name: _plain(value) for name, value in given.items()}
        self.group = f"slurm-{sender}"
        self._looked = self._asked = -QUEUE
        self._present: dict[str, set[str]] = {}
        self._before: dict[str, str] | None = None
        self.alive = True
        script = SCRIPT.format(
            group=self.group,
            sender=sender,
            root=shlex.quote(str(ROOT)),
            python=shlex.quote(sys.executable),
            program=shlex.quote(PROGRAM),
            given=shlex.quote(repr({**given, "store": str(self.store.path.absolute())})),
        )
        own = {"job-name": "metabench", "array": f"0-{workers - 1}", "signal": "B:USR1@90", "open-mode": "append"}
        asked = [f"--{name}={value}" if value else f"--{name}" for name, value in {**own, **options}.items()]
        self.id = _slurm("sbatch", "--parsable", "--requeue", *asked, text=script).partition(";")[0].strip()

    def start(self, job: Job, threads: int | None) -> Watched:
        if self._before is None:
            self._before = sharing.failed_before(self.store, [], self.group)
        return Watched(job, self, self._before.get(job.key))

    def wait(self, running: Sequence[Running], seconds: float) -> None:
        time.sleep(seconds)
        now = time.monotonic()
        if now - self._looked < LOOK:
            return
        self._looked = now
        if now - self._asked >= QUEUE:
            self._asked, self.alive = now, self._queued()
        self._present = {folder: _names(self.store.path / folder) for folder in ("records", "logs", "locks")}
        if f"{self._sender}.taken" in self._present["locks"]:
            raise MetabenchError(f"locks in {self.store.path} do not hold between machines: {sharing.ADVICE}")
        if not self.alive and f"{self._sender}.here" not in self._present["locks"]:
            raise MetabenchError(
                f"SLURM job {self.id} has ended and left nothing in {self.store.path}: do its nodes share that folder? "
                f"Its output is in slurm-{self.id}_*.out"
            )

    def has(self, folder: str, name: str) -> bool:
        return name in self._present.get(folder, ())

    def _queued(self) -> bool:
        with contextlib.suppress(MetabenchError):  # squeue knows no job that has ended
            return bool(_slurm("squeue", "--noheader", f"--jobs={self.id}").strip())
        return False

    def close(self) -> None:
        with contextlib.suppress(MetabenchError):
            _slurm("scancel", self.id)


class Watched:
    """A cell that some worker computes, seen through the store."""

    def __init__(self, job: Job, workers: Slurm, before: str | None) -> None:
        self.job, self._workers, self._before = job, workers, before
        self._began = time.monotonic()

    def begun(self) -> bool:
        return self._workers.has("logs", self.job.log.name)

    def news(self) -> Iterator[dict[str, Any]]:
        yield from ()

    def outcome(self) -> Outcome | None:
        workers = self._workers
        alive = workers.alive  # asked for before the look into the store
        record = workers.store.get(self.job.key) if workers.has("records", f"{self.job.key}.json") else None
        if record is not None and record.finished != self._before:
            return Outcome(record.status, record.reason, seconds=time.monotonic() - self._began)
        if alive:
            return None
        reason = f"no worker of SLURM job {workers.id} is left: see its output, slurm-{workers.id}_*.out"
        return Outcome("error", reason, facts={"machine": None})

    def kill(self) -> None:
        pass

    def close(self) -> None:
        pass


def _plain(value: Any) -> Any:
    """An argument as a literal: paths as text."""
    if isinstance(value, (list, tuple)):
        return [str(entry) if isinstance(entry, Path) else entry for entry in value]
    return dict(value) if isinstance(value, Mapping) else str(value) if isinstance(value, Path) else value


def _names(folder: Path) -> set[str]:
    with contextlib.suppress(OSError):
        return set(os.listdir(folder))
    return set()


def _slurm(*command: str, text: str = "") -> str:
    """Output of a command of SLURM; raises `MetabenchError` with what it says."""
    try:
        return subprocess.run(command, input=text, text=True, capture_output=True, check=True, timeout=25).stdout
    except FileNotFoundError:
        raise MetabenchError(f"executor 'slurm' needs {command[0]}, which is not on PATH") from None
    except subprocess.CalledProcessError as error:
        raise MetabenchError(f"{command[0]}: {one_line(error.stderr) or f'exit code {error.returncode}'}") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MetabenchError(f"{command[0]} does not answer: {one_line(error)}") from None
