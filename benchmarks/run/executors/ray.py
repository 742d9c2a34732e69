"""Cells as tasks of a Ray cluster. Each is a generator of news (`benchmarks.run.executors.node.work`); nothing of Ray
is used but its core tasks."""

from __future__ import annotations

import dataclasses
import logging
import os
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.errors import MetabenchError, one_line
from benchmarks.records import sharing
from benchmarks.run.executors import node
from benchmarks.run.executors.place import Needed
from benchmarks.run.isolate import Job, Outcome, Running

try:
    import ray
    from ray.exceptions import RayError, RayTaskError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
except ImportError:
    raise MetabenchError("executor 'ray' needs Ray on this machine: pip install 'metabench[cluster]'") from None

ROOT = Path(__file__).parents[3]
#: seconds until an address must have answered, and all nodes the question whether they share the store; and for which
#: a run waits for its head and for a node with room
ANSWER = float(os.environ.get("METABENCH_CLUSTER_SECONDS", "25"))
#: how often a cell is started elsewhere after its node or its worker died
RETRIES = 3
#: seconds between two looks at head and nodes, and for which a head may be silent: after 60, Ray ends this process
LOOK, SILENT = 2.0, 25.0
#: the beginning of HTTP/2 with empty settings, and the type of the frame that a gRPC server sends first: its settings
GREETING, SETTINGS = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)), b"\x04"
_log = logging.getLogger(__name__)


class Ray:
    """As many cells at once as the cluster has room for. sender: the lock that this run holds. per: cells on a GPU."""

    group = None
    _since: float | None = None

    def __init__(self, address: str | None, needed: Needed, sender: str, per: int = 1) -> None:
        on_gpus = needed.device != "cpu"
        self._threads = 1 if on_gpus else needed.threads
        self._needs = {"CPU": self._threads, **({"GPU": 1 / per} if on_gpus else {})}
        self._memory = None if needed.memory is None else int(needed.memory * 1e9)
        store = str(needed.store.path.absolute())
        own = {name: value for name, value in os.environ.items() if name.startswith("METABENCH_")}
        self._common = {"store": store, "sender": sender, "device": needed.device, "variables": own}
        _connect(address)
        try:
            self._head = ray.get_runtime_context().gcs_address
            self._task = ray.remote(_work).options(
                num_cpus=self._threads, num_gpus=self._needs.get("GPU", 0), max_retries=0, num_returns="streaming"
            )
            _check_nodes(store, sender)
        except BaseException:
            ray.shutdown()
            raise
        self._slots, self._looked = 1, -LOOK

    @property
    def slots(self) -> int:
        self._look()
        return self._slots

    def _look(self) -> None:
        """Count the slots now and then; raises `MetabenchError` where none could run for too long."""
        if (now := time.monotonic()) - self._looked < LOOK:
            return
        self._looked = now
        trouble, patience = self._trouble()
        if not trouble:
            self._since = None
        elif self._since is None:
            self._since = now
            _log.warning("%s: waiting for it, %g s at most", trouble, patience)
        elif now - self._since >= patience:
            raise MetabenchError(f"{trouble}: waited for {patience:g} s; run the same command again to resume")

    def _trouble(self) -> tuple[str, float]:
        """Why no cell can be computed now ("" where one can), and how many seconds to wait for an end of it."""
        try:
            _greet(self._head, LOOK)
        except OSError as error:
            return f"the head of the Ray cluster ({self._head}) does not answer ({error})", min(ANSWER, SILENT)
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        room = sum(
            min(int(node.get(name, 0) / needed + 1e-6) for name, needed in self._needs.items()) for node in nodes
        )
        self._slots = max(1, room)
        needs = " and ".join(f"{needed:g} {name}" for name, needed in self._needs.items())
        return "" if room else f"none of the Ray cluster's {len(nodes)} nodes has room for a cell ({needs})", ANSWER

    def start(self, job: Job, threads: int | None) -> Task:
        job = dataclasses.replace(job, memory_bytes=self._memory)
        return Task(job, lambda: self._task.remote(job, self._threads, self._common))

    def wait(self, running: Sequence[Running], seconds: float) -> None:
        self._look()
        streams = [task.stream for task in running if isinstance(task, Task)]
        ray.wait(streams, timeout=seconds, fetch_local=False)

    def close(self) -> None:
        ray.shutdown()


class Task:
    """A job on some node; it is started again on another one when its node dies."""

    def __init__(self, job: Job, submit: Any) -> None:
        self.job = job
        self.stream = submit()
        self._submit, self._retries = submit, RETRIES
        self._begun = False
        self._end: Outcome | None = None

    def begun(self) -> bool:
        return self._begun

    def news(self) -> Iterator[dict[str, Any]]:
        while self._end is None and ray.wait([self.stream], timeout=0, fetch_local=False)[0]:
            try:
                said = ray.get(next(self.stream))
            except StopIteration:
                self._end = Outcome("error", "its node ended without a word")
            except RayTaskError as error:
                self._end = Outcome("error", one_line(error.cause), facts={"machine": None})
            except RayError as error:
                self._again(type(error).__name__)
            else:
                self._begun = True
                self._end = said.get("outcome")
                if "progress" in said:
                    yield said["progress"]

    def _again(self, why: str) -> None:
        if self._retries == 0:
            reason = f"its node died, and {RETRIES} more after it ({why})"
            self._end = Outcome("error", reason, facts={"machine": None})
            return
        self._retries -= 1
        self.stream = self._submit()

    def outcome(self) -> Outcome | None:
        return self._end

    def kill(self) -> None:
        if self._end is None:
            ray.cancel(self.stream, force=True)

    def close(self) -> None:
        pass


def _work(job: Job, threads: int, common: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from node.work(job, threads, name=_name(), **common)


def _name() -> str:
    return str(ray.get_runtime_context().get_node_id())[:8]


def _shared(store: str, sender: str) -> str:
    sharing.check_shared(store, sender)
    return _name()


def _connect(address: str | None) -> None:
    """Join the cluster; raises `MetabenchError` where nobody answers."""
    if address is not None:
        try:
            _greet(address, ANSWER / 2)
        except (OSError, ValueError, OverflowError) as error:
            why = "write it as HOST:PORT" if isinstance(error, ValueError) else error
            raise MetabenchError(f"no Ray cluster answers at {address} ({why})") from None
    search = filter(None, [os.environ.get("PYTHONPATH")])
    os.environ.setdefault("RAY_task_oom_retries", "0")  # else a cell that takes too much memory is tried for ever
    try:
        ray.init(
            address,
            log_to_driver=False,
            logging_level="ERROR",
            include_dashboard=None if address else False,
            runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join([str(ROOT), *search])}},
        )
    except (RayError, RuntimeError, ValueError, ConnectionError) as error:
        raise MetabenchError(f"no Ray cluster answers at {address}: {one_line(error)}") from None


def _greet(address: str, seconds: float) -> None:
    """Raise OSError unless a gRPC server, as a head of Ray is one, answers at HOST:PORT; ValueError for no address.

    Ray itself waits for minutes."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=seconds) as connection:
        if os.environ.get("RAY_USE_TLS", "0") == "0":
            connection.sendall(GREETING)
            if connection.recv(9)[3:4] != SETTINGS:
                raise OSError("it is no head of Ray")


def _check_nodes(store: str, sender: str) -> None:
    """Raise `MetabenchError` unless every node shares the store, and locks hold there."""
    ask = ray.remote(_shared)
    nodes = [there["NodeID"] for there in ray.nodes() if there["Alive"]]
    asked = [
        ask.options(num_cpus=0, max_retries=0, scheduling_strategy=NodeAffinitySchedulingStrategy(one, soft=False))
        for one in nodes
    ]
    try:
        ray.get([one.remote(store, sender) for one in asked], timeout=ANSWER)
    except RayTaskError as error:
        raise MetabenchError(one_line(error.cause)) from None
    except RayError as error:
        why = f"{type(error).__name__}, METABENCH_CLUSTER_SECONDS is {ANSWER:g}"
        raise MetabenchError(f"not every node of the Ray cluster answers ({why})") from None
