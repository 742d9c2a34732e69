"""Cells on a Ray cluster of two nodes on loopback: the same bits as at home, and nodes, heads and runs that end."""

from __future__ import annotations

import signal
import time

import numpy as np
import pytest
from whole_runs import metabench, profile, records, start, wait_until

from benchmarks.records.store import Store

pytest.importorskip("ray", reason="pip install 'metabench[cluster]'")
pytestmark = [pytest.mark.timeout(1800), pytest.mark.filterwarnings("ignore")]

#: MAML, slowed down; it writes a checkpoint often, and its step into a log
SLOW = """
import time
from dataclasses import dataclass
from benchmarks.registry import register_method
from benchmarks.run import fitting
from maml.maml import MAML

fitting.CHECKPOINT_EVERY = 0.1


@register_method("slow")
@dataclass(frozen=True)
class Slow(MAML):
    '''MAML, slowed down.'''

    def fit(self, tasks, seed, start=None):
        with open("{log}", "a") as file:
            file.write(f"{{start.step if start else 0}}\\n")
        for state in super().fit(tasks, seed, start):
            time.sleep({pause})
            yield state
"""
LONG = ("run", "--profile", "tiny.toml", "-m", "./slow.py", "--seeds", "1", "--threads", "1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("user")
    (folder / "tiny.toml").write_text(profile(kill_after=600, meta_steps=24).replace("seeds = 1", "seeds = 2"))
    (folder / "slow.py").write_text(SLOW.format(log=folder / "fits.log", pause=0.5))
    return folder


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_raylet_start_wait_time_s", "300")
        patch.setenv("RAY_worker_niceness", "0")
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        patch.setenv("METABENCH_CLUSTER_SECONDS", "300")
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        made.nodes = [made.add_node(num_cpus=1) for _ in range(2)]
        yield made
        made.shutdown()


def at(cluster):
    return ("--executor", f"ray:{cluster.address}")


def test_two_nodes_compute_the_same_bits_as_this_machine(folder, cluster):
    command = ("run", "--profile", "tiny.toml", "-m", "maml,constant", "--threads", "1")
    answers = [
        metabench(folder, *command, "--store", "home"),
        metabench(folder, *command, *at(cluster), "--store", "ray"),
    ]
    assert [answer.code for answer in answers] == [0, 0], answers
    home, away = records(folder / "home"), records(folder / "ray")
    assert {name: record.key for name, record in home.items()} == {name: record.key for name, record in away.items()}
    for name, record in home.items():
        assert away[name].ok
        if record.cell == "evaluation":
            one, two = Store(folder / "home").scores(record), Store(folder / "ray").scores(away[name])
            assert one.keys() == two.keys()
            assert all(np.array_equal(one[step], two[step]) for step in one)
    assert len({record.machine.node for record in away.values()}) == 2
    assert not {record.machine.node for record in home.values()} & {record.machine.node for record in away.values()}


@pytest.mark.cluster
def test_wrong_code_on_a_node_is_a_record(folder, cluster):
    elsewhere = folder / "other.py"
    elsewhere.write_text(SLOW.format(log=folder / "other.log", pause=0).replace('"slow"', '"other"'))
    text = "import os\nif 'METABENCH_NODE' in os.environ:\n    open(__file__, 'a').write('x = 1\\n')\n"
    elsewhere.write_text(elsewhere.read_text() + text)
    answer = metabench(
        folder, "run", "--profile", "tiny.toml", "-m", "./other.py", "--seeds", "1", *at(cluster), "--store", "other"
    )
    assert answer.code == 1, answer
    fit = records(folder / "other")["other", "fit", 0]
    assert fit.reason == "the code on this machine is not that which the run began with: start it again"
    assert fit.machine.node


@pytest.mark.cluster
def test_a_fit_goes_on_when_its_node_is_killed_and_when_the_head_of_the_run_is(folder, cluster):
    log, store = folder / "fits.log", folder / "killed"
    run = start(folder, *LONG, *at(cluster), "--store", "killed")
    wait_until(lambda: list(store.glob("checkpoints/*.pt")), 600, run)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    lock = Store(store).lock(next(store.glob("checkpoints/*.pt")).stem)
    lock.acquire(timeout=1)  # the locks of a killed run are free
    lock.release()
    run = start(folder, *LONG, *at(cluster), "--store", "killed")
    wait_until(lambda: len(log.read_text().split()) == 2, 600, run)
    time.sleep(2)
    busy = next(node for node in cluster.nodes if _computes(node, log))
    cluster.remove_node(busy, allow_graceful=False)
    cluster.nodes = [node for node in cluster.nodes if node is not busy] + [cluster.add_node(num_cpus=1)]
    out, err = run.communicate(timeout=1200)
    assert run.returncode == 0, (out, err)
    first, second, third = map(int, log.read_text().split())
    assert 0 == first < second < third < 24


def _computes(node, log):
    """Whether a node's worker has the fit among its descendants."""
    import psutil

    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    return any("METABENCH_NODE" in _environment(child) for child in raylet.children(recursive=True))


def _environment(process):
    try:
        return process.environ()
    except Exception:
        return {}


@pytest.mark.cluster
def test_an_interrupt_leaves_nothing(folder, cluster):
    (folder / "fits.log").unlink(missing_ok=True)
    run = start(folder, *LONG, *at(cluster), "--store", "interrupted")
    wait_until((folder / "fits.log").exists, 600, run)
    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=300)
    assert (run.returncode, err.strip().splitlines()[-1]) == (
        130,
        "metabench: interrupted: run the same command again to resume",
    )
    stands = list((folder / "interrupted").glob("checkpoints/*.pt"))
    time.sleep(3)
    before = [path.stat().st_mtime_ns for path in stands]
    time.sleep(5)
    assert [path.stat().st_mtime_ns for path in stands] == before, "the fit goes on"
    assert not records(folder / "interrupted")
    assert not list((folder / "interrupted" / "logs").iterdir())


@pytest.mark.parametrize(("address", "why"), [("127.0.0.1:1", "refused"), ("nowhere", "HOST:PORT")])
def test_an_address_that_does_not_answer_is_one_line(folder, address, why):
    answer = metabench(folder, *LONG, "--executor", f"ray:{address}", "--store", "nobody")
    assert answer.code == 2
    assert answer.err.startswith(f"metabench: no Ray cluster answers at {address} (")
    assert why in answer.err
    assert len(answer.err.splitlines()) == 1
