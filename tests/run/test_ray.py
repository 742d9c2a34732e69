"""Cells on a Ray cluster of two nodes on loopback: the same bits as at home, and nodes, heads and runs that end."""

from __future__ import annotations

import os
import signal
import socket
import time

import numpy as np
import psutil
import pytest
from whole_runs import ROOT, fits_begun, metabench, profile, records, slow_maml, start, wait_until

from benchmarks.errors import MetabenchError
from benchmarks.records.store import Store
from benchmarks.run.executors import opened
from benchmarks.run.executors.place import Needed, Place
from benchmarks.run.isolate import Job
from benchmarks.run.isolate import run as run_jobs

pytest.importorskip("ray", reason="pip install 'metabench[cluster]'")
pytestmark = [pytest.mark.timeout(1800), pytest.mark.filterwarnings("ignore")]

#: changes its own code where it runs on a node
WRONG_CODE = "import os\nif 'METABENCH_NODE' in os.environ:\n    open(__file__, 'a').write('x = 1\\n')\n"
#: a task whose data are other ones on a node
WRONG_DATA = """
import os
from dataclasses import dataclass
from benchmarks.registry import register_task
from benchmarks.tasks.sinusoid import Sinusoid

@register_task("other-waves")
@dataclass(frozen=True)
class Other(Sinusoid):
    '''Sine waves.'''

    def data_digest(self):
        return "there" if "METABENCH_NODE" in os.environ else "here"
"""
LOOPBACK = "127.0.0.1"
LONG = ("run", "--profile", "tiny.toml", "-m", "./slow.py", "--seeds", "1", "--threads", "1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("user")
    (folder / "tiny.toml").write_text(profile(kill_after=600, meta_steps=24).replace("seeds = 1", "seeds = 2"))
    (folder / "slow.py").write_text(slow_maml(folder / "fits.log", pause=0.5))
    return folder


@pytest.fixture(scope="module")
def on_loopback():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_raylet_start_wait_time_s", "300")
        patch.setenv("RAY_worker_niceness", "0")
        # loopback stays loopback, in other processes and in this one, which has read the variable
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        patch.setattr("ray._private.ray_constants.ENABLE_RAY_CLUSTER", False)
        patch.setenv("METABENCH_CLUSTER_SECONDS", "300")
        yield


def made_cluster(nodes):
    """A head without a CPU, and nodes with one each."""
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "include_dashboard": False, "node_ip_address": LOOPBACK}
    made = Cluster(initialize_head=True, head_node_args=head)
    made.nodes = [node_of(made) for _ in range(nodes)]
    return made


def node_of(cluster, **resources):
    return cluster.add_node(node_ip_address=LOOPBACK, **{"num_cpus": 1, **resources})


@pytest.fixture(scope="module")
def cluster(on_loopback):
    made = made_cluster(2)
    yield made
    made.shutdown()


@pytest.fixture
def small_cluster(on_loopback):
    made = made_cluster(1)
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


def test_cells_share_the_gpus_of_a_node_and_wait_for_one_that_has_some(tmp_path, cluster, monkeypatch, caplog):
    from benchmarks.run.executors import ray as engine

    monkeypatch.setattr(engine, "ANSWER", 60)
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests" / "helpers"))
    needed, place = Needed(Store(tmp_path), 1, "cuda", 1, None, {}), Place.parse(f"ray:{cluster.address},per=2")
    with opened(place, needed) as executor:
        monkeypatch.setattr(engine, "ANSWER", 0)
        assert executor.slots == 1  # asks for one, so that a cluster may grow
        told = "none of the Ray cluster's 3 nodes has room for a cell (1 CPU and 0.5 GPU)"
        assert caplog.messages == [f"{told}: waiting for it, 0 s at most"]
        time.sleep(engine.LOOK)
        with pytest.raises(MetabenchError) as raised:
            executor.wait([], 0)
        assert str(raised.value) == f"{told}: waited for 0 s; run the same command again to resume"
        node = node_of(cluster, num_cpus=4, num_gpus=2)
        wait_until(lambda: executor.slots == 4)
        call = ("isolation_plugin:gpu", {"pause": 2.0})
        jobs = [Job(f"{n}" * 16, call, tmp_path / f"{n}.log") for n in range(4)]
        ends = run_jobs(jobs, executor, lambda event: None)
    assert [end.status for end in ends.values()] == ["ok"] * 4, ends
    assert sorted(end.value["gpu"] for end in ends.values()) == ["0", "0", "1", "1"]
    cluster.remove_node(node)


def test_a_store_that_nodes_do_not_share_is_one_line(folder, cluster, tmp_path):
    # a path that is another folder in each process
    answer = metabench(folder, *LONG, *at(cluster), "--store", "/proc/self/cwd/own")
    assert (answer.code, answer.err.count("\n")) == (2, 1), answer
    assert "does not share the store /proc/self/cwd/own: name a folder that all machines have" in answer.err


@pytest.mark.cluster
def test_wrong_code_and_wrong_data_on_a_node_are_records(folder, cluster):
    (folder / "other.py").write_text(slow_maml(folder / "other.log", "other", pause=0) + WRONG_CODE)
    (folder / "waves.py").write_text(WRONG_DATA)
    command = ("run", "--profile", "tiny.toml", "--seeds", "1", *at(cluster), "--store", "other")
    assert metabench(folder, *command, "-m", "./other.py").code == 1
    assert metabench(folder, *command, "-m", "constant", "-t", "./waves.py").code == 1
    again = "the run began with: start it again"
    fits = [record for record in records(folder / "other").values() if record.cell == "fit"]
    assert {fit.label: fit.reason for fit in fits} == {
        "other": f"the code on this machine is not that which {again}",
        "constant": f"the data of other-waves-v1/k10 on this machine are not those that {again}",
    }
    assert all(fit.machine.node in names_of(cluster) for fit in fits)


def names_of(cluster):
    return {node.node_id[:8] for node in cluster.nodes}


@pytest.mark.cluster
def test_a_fit_goes_on_when_its_run_its_worker_and_its_node_are_killed(folder, cluster):
    log, store = folder / "fits.log", folder / "killed"
    run = start(folder, *LONG, *at(cluster), "--store", "killed")
    wait_until(lambda: list(store.glob("checkpoints/*.pt")), 600, run)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    lock = Store(store).lock(next(store.glob("checkpoints/*.pt")).stem)
    lock.acquire(timeout=1)  # the locks of a killed run are free
    lock.release()
    run = start(folder, *LONG, *at(cluster), "--store", "killed")
    wait_until(lambda: len(fits_begun(log)) == 2, 600, run)
    time.sleep(1.5)
    next(filter(None, map(worker_of, cluster.nodes))).kill()
    wait_until(lambda: len(fits_begun(log)) == 3, 600, run)
    time.sleep(1.5)
    busy = next(node for node in cluster.nodes if worker_of(node))
    cluster.remove_node(busy, allow_graceful=False)
    cluster.nodes = [node for node in cluster.nodes if node is not busy] + [node_of(cluster)]
    out, err = run.communicate(timeout=1200)
    assert run.returncode == 0, (out, err)
    steps = [step for _, step in fits_begun(log)]
    assert len(steps) == 4
    assert 0 == steps[0] < steps[1] < steps[2] < steps[3] < 24


def worker_of(node):
    """The process of Ray that computes a cell on this node; None where there is none."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    return next((child for child in raylet.children() if any(map(computes, child.children(recursive=True)))), None)


def computes(process):
    """Whether it is one of the processes of a cell."""
    try:
        return "METABENCH_NODE" in process.environ()
    except psutil.Error:
        return False


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
    wait_until(lambda: not any(map(computes, psutil.process_iter())), 15)
    assert not records(folder / "interrupted")
    assert not list((folder / "interrupted" / "logs").iterdir())


@pytest.mark.cluster
def test_a_run_waits_for_a_node_and_ends_without_a_head(folder, small_cluster):
    log, seconds = folder / "fits.log", {"METABENCH_CLUSTER_SECONDS": "60"}
    log.unlink(missing_ok=True)
    longer = ("--meta-steps", "600", "--seconds", "600")
    run = start(folder, *LONG, *longer, *at(small_cluster), "--store", "headless", **seconds)
    wait_until(lambda: list((folder / "headless").glob("checkpoints/*.pt")), 600, run)
    small_cluster.remove_node(small_cluster.nodes[0], allow_graceful=False)
    said = run.stderr.readline()
    assert said.startswith("metabench: none of the Ray cluster's 1 nodes has room for a cell (1 CPU): waiting for it,")
    node_of(small_cluster)
    wait_until(lambda: len(fits_begun(log)) == 2, 600, run)
    for process in small_cluster.head_node.all_processes["gcs_server"]:
        os.kill(process.process.pid, signal.SIGKILL)
    killed = time.monotonic()
    _, err = run.communicate(timeout=300)
    assert time.monotonic() - killed < 60 + 60
    assert run.returncode == 2, err
    head = f"metabench: the head of the Ray cluster ({small_cluster.address}) does not answer ("
    assert [line.startswith(head) for line in err.splitlines()] == [True, True], err
    assert err.splitlines()[-1].endswith("waited for 25 s; run the same command again to resume")
    wait_until(lambda: not any(map(computes, psutil.process_iter())), 30)


def test_an_address_that_does_not_answer_is_one_line(folder, tmp_path, monkeypatch):
    answer = metabench(folder, *LONG, "--executor", "ray:127.0.0.1:1", "--store", "nobody")
    assert answer.code == 2
    assert answer.err.startswith("metabench: no Ray cluster answers at 127.0.0.1:1 (")
    assert "refused" in answer.err
    assert len(answer.err.splitlines()) == 1

    from benchmarks.run.executors import ray as engine

    monkeypatch.setattr(engine, "ANSWER", 1.0)
    needed = Needed(Store(tmp_path), 1, "cpu", 1, None, {})
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for address, why in (("nowhere", "HOST:PORT"), (f"127.0.0.1:{silent.getsockname()[1]}", "timed out")):
            told = rf"no Ray cluster answers at {address} \(.*{why}"
            with pytest.raises(MetabenchError, match=told), opened(Place.parse(f"ray:{address}"), needed):
                pass
