"""A small run that is killed, interrupted or stopped at random moments, and begun again until it is done: its records
equal those of an undisturbed run, bit for bit."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from whole_runs import ROOT, metabench, profile, slow_maml

from benchmarks.records.formats import pack_state
from benchmarks.records.store import Store

RUN = (
    "run",
    "--profile",
    "./tiny.toml",
    "-m",
    "./slow.py",
    "--seeds",
    "2",
    "--jobs",
    "2",
    "--set",
    "slow.meta_batch=2",
)
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGSTOP)


def results(folder: Path) -> dict[str, Any]:
    """By key, what a record says apart from times and memory, with all of its arrays and states as bytes."""
    store, found = Store(folder, read_only=True), {}
    for record in store.records():
        assert record.ok
        states = {
            model: pack_state({part: state[part] for part in ("parameters", "buffers", "moments", "step")})
            for model, state in (store.state(record) or {}).items()
        }
        arrays = {**(store.scores(record) or {}), **(store.arrays(record) or {})}
        arrays.pop("step_seconds", None)
        training = record.training
        assert training is not None
        curve = [(point.step, point.examples, point.loss, point.score) for point in training.curve]
        tests = [(test.model, test.regime, test.summary, test.chosen) for test in record.tests]
        facts = (record.label, record.seed, record.threads, training.meta_steps, training.best_step, curve, tests)
        hashed = {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in arrays.items()}
        found[record.key] = (facts, hashed, states)
    assert store.problems == []
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kills")
    (folder / "slow.py").write_text(slow_maml(folder / "fits.log", pause=0.02, checkpoint_every=0.05))
    (folder / "tiny.toml").write_text(profile(meta_steps=60))
    return folder


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> dict[str, Any]:
    answer = metabench(folder, *RUN, "--store", "undisturbed")
    assert answer.code == 0, answer
    found = results(folder / "undisturbed")
    assert len(found) == 4
    return found


def begin(folder: Path, store: str) -> subprocess.Popen[bytes]:
    """A run that leads a group of processes, as in a terminal."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "METABENCH_OFFLINE": "1"}
    command = [sys.executable, "-m", "benchmarks", *RUN, "--store", store]
    pipes: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True, **pipes)


def disturb(process: subprocess.Popen[bytes], number: signal.Signals, draw: random.Random) -> bytes:
    """Send a signal to the run, or to all of its processes, at a random moment; returns what it says at its end."""
    time.sleep(draw.uniform(0.2, 6.0))
    whole_group = number == signal.SIGINT or draw.random() < 0.5  # a terminal sends Ctrl-C to all
    send = os.killpg if whole_group else os.kill
    if process.poll() is None:
        send(process.pid, number)
        if number == signal.SIGSTOP:
            time.sleep(0.5)
            send(process.pid, signal.SIGCONT)
    return process.communicate(timeout=120)[1]


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("kills", [2, pytest.param(30, marks=pytest.mark.fuzz)], ids=["few", "many"])
def test_a_run_that_is_disturbed_ends_with_the_same_records(
    folder: Path, undisturbed: dict[str, Any], kills: int
) -> None:
    draw, number, sent = random.Random(kills), 0, 0
    while sent < kills:
        number += 1
        store, done = f"disturbed-{kills}-{number}", False
        while not done:
            process = begin(folder, store)
            if sent < kills:
                said = disturb(process, SIGNALS[sent % len(SIGNALS)], draw)
                sent += 1
            else:
                said = process.communicate(timeout=120)[1]
            done = process.returncode == 0
            # -SIGINT: before the interpreter handles signals, or after; it then says nothing
            silent = process.returncode == -signal.SIGINT and not said
            assert done or silent or process.returncode in (130, 143, -signal.SIGKILL, -signal.SIGTERM), (
                process.returncode,
                said,
            )
            assert b"Traceback" not in said
        assert results(folder / store) == undisturbed
