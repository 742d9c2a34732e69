"""Where cells run: what ``--executor`` takes, GPU slots of this machine, and workers of a SLURM that is made up."""

from __future__ import annotations

import os
import signal
import stat
import time
from pathlib import Path

import pytest
from whole_runs import fits_begun, metabench, profile, records, slow_maml, start, wait_until

import benchmarks
from benchmarks.errors import MetabenchError
from benchmarks.records.store import Store
from benchmarks.run.executors import opened
from benchmarks.run.executors.place import Needed, Place
from benchmarks.run.isolate import Job, Local, run

#: runs the tasks of an array at once, each in a group of its own whose number is kept; requeue starts one again
SBATCH = """#!/bin/bash
[ -e $FAKE/refuses ] && { echo "sbatch: error: invalid partition specified" >&2; exit 1; }
for word in "$@"; do case $word in --array=*) tasks=${word#--array=0-};; esac; done
echo "$@" >> $FAKE/asked
cat > $FAKE/script
touch $FAKE/tasks
[ -e $FAKE/idle ] && { echo 7; exit; }
for task in $(seq 0 $tasks); do
    SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID=$task setsid bash $FAKE/script > $FAKE/out-$task 2>&1 &
    echo $! >> $FAKE/tasks
done
echo "7;here"
"""
SQUEUE = """#!/bin/bash
for task in $(cat $FAKE/tasks); do kill -0 $task 2>/dev/null && echo "$task R"; done
exit 0
"""
SCANCEL = """#!/bin/bash
for task in $(cat $FAKE/tasks); do kill -KILL -- -$task 2>/dev/null; done
touch $FAKE/cancelled
"""
SCONTROL = """#!/bin/bash
touch $FAKE/requeued-$2
setsid env SLURM_RESTART_COUNT=1 bash $FAKE/script > $FAKE/again 2>&1 &
echo $! >> $FAKE/tasks
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the commands of SLURM on PATH; at the end all tasks are ended."""
    (tmp_path / "bin").mkdir()
    for name, text in (("sbatch", SBATCH), ("squeue", SQUEUE), ("scancel", SCANCEL), ("scontrol", SCONTROL)):
        path = tmp_path / "bin" / name
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("FAKE", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    (tmp_path / "tiny.toml").write_text(profile())
    (tmp_path / "long.toml").write_text(profile(meta_steps=500_000))
    return tmp_path


def test_workers_of_slurm_do_the_work(fake: Path) -> None:
    command = (
        "run",
        "--profile",
        "tiny.toml",
        "-m",
        "nearest-neighbour",
        "--executor",
        "slurm:workers=2,partition=gpu",
    )
    answer = metabench(fake, *command, "--store", "shared")
    assert answer.code == 0, (answer, (fake / "out-0").read_text())
    asked = (fake / "asked").read_text()
    for option in ("--array=0-1", "--requeue", "--partition=gpu", "--signal=B:USR1@90"):
        assert option in asked
    (record,) = records(fake / "shared").values()
    assert record.ok
    assert not list((fake / "shared" / "locks").glob("*.here"))
    assert (fake / "cancelled").exists()


def test_what_slurm_refuses_or_does_not_share_is_one_line(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = Needed(Store(fake / "shared"), 1, "cpu", 1, None, {"methods": ["maml"], "settings": {"maml.x": (1, 2)}})
    place = Place.parse("slurm:workers=2,exclusive")
    (fake / "idle").touch()
    told = r"^SLURM job 7 has ended and left nothing in .*slurm-7_\*\.out$"
    with pytest.raises(MetabenchError, match=told), opened(place, needed) as executor:
        executor.wait([], 0)
    assert "--exclusive" in (fake / "asked").read_text()
    assert "(1, 2)" in (fake / "script").read_text(), "values stay what they are"
    (fake / "refuses").touch()
    with (
        pytest.raises(MetabenchError, match=r"^sbatch: sbatch: error: invalid partition specified$"),
        opened(place, needed),
    ):
        pass
    monkeypatch.setenv("PATH", "/nowhere")
    with (
        pytest.raises(MetabenchError, match=r"^executor 'slurm' needs sbatch, which is not on PATH$"),
        opened(place, needed),
    ):
        pass
    assert not list((fake / "shared" / "locks").iterdir())


@pytest.mark.cluster
def test_a_worker_requeues_itself_and_an_interrupt_cancels_all(fake: Path) -> None:
    (fake / "slow.py").write_text(slow_maml(log := fake / "fits.log"))
    command = ("run", "--profile", "long.toml", "-m", "./slow.py", "--executor", "slurm:workers=1", "--store", "shared")
    head = start(fake, *command)
    wait_until(lambda: list((fake / "shared").glob("checkpoints/*.pt")), 300, head)
    (task,) = map(int, (fake / "tasks").read_text().split())
    os.kill(task, signal.SIGUSR1)  # as SLURM does before the limit, to the script alone
    wait_until((fake / "requeued-7_0").exists, 60, head)
    wait_until(lambda: len(fits_begun(log)) == 2, 300, head)
    assert 0 == fits_begun(log)[0][1] < fits_begun(log)[1][1], "it goes on from its checkpoint"
    head.send_signal(signal.SIGINT)
    _, err = head.communicate(timeout=120)
    assert (head.returncode, err) == (130, "metabench: interrupted: run the same command again to resume\n")
    assert (fake / "cancelled").exists()
    time.sleep(0.5)
    assert not records(fake / "shared")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("dask", "unknown executor 'dask'; known: local, local:gpus=4,per=2, ray"),
        ("local:gpus=none", "gpus = 'none' is no number from 1 to 9999"),
        ("local:per=2", "say how many, as in local:gpus=4,per=2"),
        ("local:cores=2", "unknown option of executor 'local' 'cores'; known: gpus, per"),
        ("ray:a:1,workers=3", "unknown option of executor 'ray' 'workers'; known: per"),
        ("local:", "has an empty option"),
        ("local:gpus=4,gpus=3", "gpus twice"),
        ("slurm:workers=0", "workers = '0' is no number from 1 to 9999"),
    ],
)
def test_an_executor_that_is_no_executor_is_one_line(text: str, line: str) -> None:
    with pytest.raises(MetabenchError) as raised:
        Place.parse(text)
    assert line in str(raised.value)


def test_a_run_for_a_cluster_s_gpus_begins_on_a_machine_without(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(fake)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    (fake / "idle").touch()
    with pytest.raises(MetabenchError, match="SLURM job 7 has ended"):
        benchmarks.run("maml", "sinusoid/k5", profile="smoke", device="cuda", executor="slurm", store="shared")
    assert "cuda" in (fake / "script").read_text()


def test_gpus_that_are_not_here_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place.parse("local:gpus=4,per=2")
    with pytest.raises(MetabenchError, match="needs --device cuda, not cpu"):
        place.slots("cpu")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,GPU-7")
    with pytest.raises(MetabenchError, match="with gpus = 4: this machine has 3"):
        place.slots("cuda")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,GPU-7,8,9")
    assert (place.slots("cuda"), place.gpus()) == (8, ["3", "5", "GPU-7", "8"])
    with pytest.raises(MetabenchError, match="as many as there is room for"):
        place.check(jobs=2)


def test_each_job_gets_the_gpu_that_is_least_taken(tmp_path: Path) -> None:
    jobs = [Job(f"{n}", ("isolation_plugin:gpu", {"pause": 0.5}), tmp_path / f"{n}.log") for n in range(6)]
    seen = run(jobs, Local(4, ["a", "b"]), lambda event: None)
    first = [(seen[f"{n}"].value or {})["gpu"] for n in range(4)]
    assert sorted(first) == ["a", "a", "b", "b"]
    assert all((end.value or {})["gpu"] in ("a", "b") for end in seen.values())
