"""A whole run of the cost benchmark: a record for every setting, each measured in a process of its own.

On a CPU settings are measured one after the other. On a GPU they come in batches (`benchmarks.cost.batches`).
"""

from __future__ import annotations

import dataclasses
import datetime
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks import registry
from benchmarks.cost import PRELOAD, batches, control_steps, grid, peers, recurrent_steps
from benchmarks.cost.grid import Setting
from benchmarks.cost.measurement import LEAST_ROUNDS
from benchmarks.cost.workloads import WORKLOADS
from benchmarks.machine import fingerprint, git_state, versions
from benchmarks.records.plain import content_key
from benchmarks.records.record import Cost, Git, Machine, Record
from benchmarks.records.store import Store
from benchmarks.run import isolate
from benchmarks.run.code_hash import code_hash
from benchmarks.run.isolate import Event, Job, Outcome

#: modules from which all code that decides a cost is reached, besides the learner's
ENTRIES = (
    *("benchmarks.cost.measurement", "benchmarks.cost.batches"),
    *(f"benchmarks.cost.peers.{name}" for name in peers.names()),
)
#: fields of a setting that its record repeats, and those of its workload
FIELDS = ("work", "backbone", "meta_batch", "inner_steps", "rounds", "seconds")
SHAPES = ("kind", "input_shape", "way", "shot", "queries", "inner_lr")
#: ways to end that are results: such a setting is not measured again unless asked
FINISHED = ("ok", "out-of-memory", "timeout")
#: the part of a record that a process returns, where it returned nothing
NOTHING: dict[str, Any] = {"rows": (), "ceilings": None, "threads": 1, "precision": None, "stages": {}}
#: no setting begins with fewer seconds left of the run
LEAST_SECONDS = 30.0
#: seconds that a measurement of throughput may take
THROUGHPUT_SECONDS = 900.0

Line = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Throughput:
    """Environment steps per second on a task, or another measurement of a task: the module that measures them, and what
    its results depend on."""

    work: str
    module: str
    task: str
    libraries: tuple[str, ...]
    methods: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        unit = "" if self.work == "agreement" else " per second"
        return f"{self.module.replace('_', ' ')}{unit}, {self.task}"


THROUGHPUTS = (
    Throughput("environment", "control_steps", control_steps.TASK, ("mujoco", "gymnasium")),
    *(Throughput("recurrent", "recurrent_steps", task, ("jax",), ("rl2",)) for task in recurrent_steps.TASKS),
)


class Queue:
    """The settings still to be measured, by key, the most important first."""

    def __init__(self, settings: Mapping[str, Setting]) -> None:
        self._settings, self._left = settings, set(settings)
        self._alone: set[str] = set()
        self._size = 0

    def __len__(self) -> int:
        return len(self._left)

    def next_batch(self, most: int) -> dict[str, Setting]:
        """Take the next settings, at most ``most``; one that had trouble next to others comes alone."""
        left = [key for key in self._settings if key in self._left]
        chosen = left[:1] if left[0] in self._alone else [key for key in left if key not in self._alone][:most]
        self._left -= set(chosen)
        self._size = len(chosen)
        return {key: self._settings[key] for key in chosen}

    def done(self, key: str, trouble: bool) -> bool:
        """Whether a setting of the last batch is done. After trouble next to others it isn't, and comes again."""
        if not trouble or self._size == 1:
            return True
        self._alone.add(key)
        self._left.add(key)
        return False


def run(
    settings: Sequence[Setting],
    store: Store,
    profile: str,
    device: str,
    line: Line,
    memory_bytes: int | None = None,
    seconds: float | None = None,
    again: bool = False,
) -> list[Record]:
    """Measure each setting that has no record yet, keep its record, and return the records of all settings.

    line: told what happens.
    memory_bytes: limit of each process.
    seconds: no setting begins later; one that was cut short is measured again by the next run.
    again: measure settings that have a record, too."""
    facts = context(device)
    keys = {key_of(setting, device, facts): setting for setting in settings}
    todo = {key: setting for key, setting in keys.items() if again or not finished(store.get(key))}
    line(f"{len(todo)} settings to measure, {len(keys) - len(todo)} measured before")
    if todo and (absent := _absent(todo.values())):
        line(f"not installed here, so nothing is compared with: {', '.join(absent)} (make peers)")
    queue, last, ended = Queue(todo), dict.fromkeys(todo, ""), set[str]()

    def on_event(event: Event) -> None:
        key, outcome = event.job.key, event.outcome
        if event.kind == "progress":
            last[key] = event.progress["line"]
        if outcome is None:
            return
        record = _record(key, todo[key], outcome, last[key], profile, device, facts)
        cut = seconds is not None and ran_out(record)
        trouble = None if cut else batches.trouble(record)
        done = queue.done(key, trouble is not None)
        with store.lock(key):
            store.write(dataclasses.replace(record, cost=dataclasses.replace(costs_of(record), cut=cut or not done)))
        if done:
            ended.add(key)
            line(f"[{len(ended)}/{len(todo)}] {todo[key]}: {_said(record)}")
        else:
            line(f"{todo[key]}: {trouble} next to others; it is measured again, alone")

    end = None if seconds is None else time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        while queue:
            left = None if end is None else end - time.monotonic()
            batch = queue.next_batch(_most(facts, memory_bytes, left))
            if left is not None and left < min(LEAST_SECONDS, next(iter(batch.values())).limit):
                line(f"time is up; run the same command again for the other {len(batch) + len(queue)} settings")
                break
            measure = batches.run if device.startswith("cuda") else _run_alone
            measure(batch, device, Path(tempfile.mkdtemp(dir=folder)), memory_bytes, left, on_event)
    kept = (store.get(key) for key in keys)
    return [record for record in kept if record is not None]


def _most(facts: Mapping[str, Any], memory_bytes: int | None, seconds: float | None) -> int:
    gpu = facts["machine"].gpu
    return batches.most_settings(memory_bytes, gpu["memory_gib"], seconds) if gpu else 1


def _run_alone(
    batch: Mapping[str, Setting],
    device: str,
    folder: Path,
    memory_bytes: int | None,
    seconds: float | None,
    on_event: Callable[[Event], None],
) -> None:
    """Measure the one setting of a batch in a process of its own."""
    ((key, setting),) = batch.items()
    limit = setting.limit if seconds is None else min(setting.limit, seconds)
    chosen = grid.plain(dataclasses.replace(setting, limit=limit))
    # torch's compiler keeps a header for the whole run, which takes it seconds to make
    arguments = {"setting": chosen, "device": device, "folder": str(folder.parent)}
    job = Job(key, ("benchmarks.cost.measurement:measure", arguments), folder / "log", limit, memory_bytes)
    isolate.run([job], 1, on_event, threads=None, preload=PRELOAD)


def throughputs(
    store: Store,
    profile: str,
    line: Line,
    seconds: float = THROUGHPUT_SECONDS,
    again: bool = False,
    which: Sequence[Throughput] = THROUGHPUTS,
) -> list[Record]:
    """The records of environment steps per second (`benchmarks.cost.throughput`), each measured if there is none.
    Their rows have columns of their own."""
    facts = context("cpu")
    kept = (_throughput(each, store, profile, line, seconds, again, facts) for each in which)
    return [record for record in kept if record is not None]


def _throughput(
    asked: Throughput, store: Store, profile: str, line: Line, seconds: float, again: bool, facts: dict[str, Any]
) -> Record | None:
    task = registry.task_entry(asked.task.partition("/")[0]).cls
    classes = [task, *(registry.method_entry(name).cls for name in asked.methods)]
    module = f"benchmarks.cost.{asked.module}"
    content = {"work": asked.work, "task": asked.task, "code": code_hash(classes, (module,))}
    libraries = {name: _version(name) for name in ("torch", *asked.libraries)}
    key = content_key({"cell": "throughput", **content, "machine": facts["machine"].id, "versions": libraries})
    if again or not finished(store.get(key)):
        with tempfile.TemporaryDirectory() as logs:
            job = Job(key, (f"{module}:measure", {"task": asked.task}), Path(logs) / "log", seconds)
            outcome = isolate.run([job], 1, lambda event: None, threads=None, preload=PRELOAD)[key]
        setting = {"work": asked.work, "backbone": "", "meta_batch": 0, "inner_steps": 0, "task": asked.task}
        value = outcome.value or {"threads": 1, "rounds": None, "rows": []}
        cost = Cost({**setting, "rounds": value["rounds"]}, tuple(value["rows"]))
        record = Record(**_header(key, asked.label, profile, "cpu", outcome), **facts, cost=cost)
        with store.lock(key):
            store.write(dataclasses.replace(record, threads=value["threads"] or 1))
        line(f"{asked.label}: {outcome.status}{f' ({outcome.reason})' if outcome.reason else ''}")
    return store.get(key)


def finished(record: Record | None) -> bool:
    """Whether a record is a result, so that its setting is not measured again."""
    return record is not None and record.status in FINISHED and not costs_of(record).cut


def costs_of(record: Record) -> Cost:
    """The cost part of a record; empty if it has none."""
    return record.cost or Cost({}, ())


def ran_out(record: Record) -> bool:
    """Whether time ended the setting, an entry before it was timed or counted, or an entry after a few rounds."""
    rows = costs_of(record).rows
    few = min(LEAST_ROUNDS, costs_of(record).setting["rounds"])
    short = any(row["status"] == "ok" and ((row["rounds"] or 0) < few or row["plan"] is None) for row in rows)
    return short or "timeout" in (record.status, *(row["status"] for row in rows))


def _absent(settings: Iterable[Setting]) -> list[str]:
    """The libraries that are to be compared and are not installed."""
    asked = {variant.implementation for setting in settings for variant in setting.variants}
    return [name for name in peers.names() if name in asked and not peers.installed(name)]


def context(device: str) -> dict[str, Any]:
    """Facts of the machine and the code, for every record."""
    git = git_state(Path(__file__).parents[2])
    return {"machine": Machine(**fingerprint(device)), "versions": versions(), "git": Git(**git) if git else None}


def key_of(setting: Setting, device: str, facts: Mapping[str, Any]) -> str:
    """The content key: setting, code, device, machine, and the versions of the libraries that are compared."""
    libraries = {name: _version(name) for name in ("torch", *peers.names()) if name not in ("ours", "loop")}
    timed = sorted({variant.learner for variant in setting.variants})
    return content_key(
        {
            "cell": "cost",
            "setting": {name: value for name, value in grid.plain(setting).items() if name != "limit"},
            "code": code_hash([registry.method_entry(name).cls for name in timed], ENTRIES),
            "device": device.partition(":")[0],
            "machine": facts["machine"].id,
            "versions": libraries,
        }
    )


def _version(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None


def _record(
    key: str, setting: Setting, outcome: Outcome, last: str, profile: str, device: str, facts: Mapping[str, Any]
) -> Record:
    """The record of a setting. last: what its process reported last."""
    header = _header(key, str(setting), profile, device, outcome)
    if outcome.reason is not None and last:
        header["reason"] = f"{outcome.reason} (while {last})"
    workload = WORKLOADS[setting.backbone]
    shapes = {name: getattr(workload, name) for name in SHAPES}
    described = {**{name: getattr(setting, name) for name in FIELDS}, **shapes}
    value = {**NOTHING, **(outcome.value or {})}
    threads = value.pop("threads")
    return Record(**header, **facts, threads=threads, cost=Cost(described, **{**value, "rows": tuple(value["rows"])}))


def _header(key: str, label: str, profile: str, device: str, outcome: Outcome) -> dict[str, Any]:
    """The beginning of a record: its name, and how and when its process ended."""
    now = datetime.datetime.now(datetime.UTC)
    return {
        "key": key,
        "cell": "cost",
        "label": label,
        "profile": profile,
        "device": device,
        "status": outcome.status,
        "reason": outcome.reason,
        "stderr": outcome.stderr,
        "peak_bytes": outcome.peak_bytes,
        "started": (now - datetime.timedelta(seconds=outcome.seconds)).isoformat(timespec="seconds"),
        "finished": now.isoformat(timespec="seconds"),
    }


def _said(record: Record) -> str:
    """How a setting ended, in one line."""
    if not record.ok:
        return f"{record.status} ({record.reason})"
    rows = costs_of(record).rows
    timed = sum(row["status"] == "ok" for row in rows)
    failed = {f"; {row['label']}: {row['reason']}": None for row in rows if row["status"] not in ("ok", "skipped")}
    seconds = sum(spent for stage, spent in costs_of(record).stages.items() if stage != "waiting")
    return f"{timed} of {len(rows)} variants in {seconds:.0f} s" + "".join(failed)
