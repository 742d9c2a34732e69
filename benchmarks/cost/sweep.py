"""A whole run of the cost benchmark: every setting that has no record yet, each in a process of its own.

Settings are prepared in waves, several side by side, and timed one after the other (`benchmarks.cost.turns`)."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.cost import PRELOAD, comparison, grid, peers
from benchmarks.cost.grid import Setting
from benchmarks.cost.measurement import LEAST_ROUNDS
from benchmarks.cost.turns import Turn
from benchmarks.cost.workloads import WORKLOADS
from benchmarks.errors import short_of_memory
from benchmarks.machine import fingerprint, git_state, usable_cores, versions
from benchmarks.records.store import Store, content_key
from benchmarks.run import isolate
from benchmarks.run.code_hash import essence
from benchmarks.run.isolate import Event, Job, Outcome

#: the code that decides a cost
CODE = (
    *("cost/measurement.py", "cost/contestant.py", "cost/comparison.py", "cost/counting.py"),
    *("cost/turns.py", "cost/work.py", "counters.py", "workloads.py"),
    *("peers/*.py", "models/*.py", "training.py", "../maml/*.py"),
)


#: what a record says of its setting, beside the workload
FIELDS = ("work", "backbone", "meta_batch", "inner_steps", "rounds", "seconds")
#: ends that are results: such a setting is not measured again unasked
FINISHED = ("ok", "out-of-memory", "timeout")
#: seconds without which no setting is begun where the whole run has a limit
LEAST_SECONDS = 30.0
#: at most so many settings are prepared at a time, each with a core; on a CPU at most so many are in a wave, each with
#: so many bytes of memory
PLACES, WAVE, WAVE_BYTES = 8, 8, 1.5e9
#: on a GPU a wave has as many as its memory holds: so many bytes for each, its captured launches and what its compilers
#: try among them (twelve took 141e9); and where the run has a time limit, so many seconds for each
GPU_BYTES, SETTING_SECONDS = 13e9, 20.0


def run(
    settings: Sequence[Setting],
    store: Store,
    profile: str,
    device: str,
    line: Callable[[str], None],
    memory_bytes: int | None = None,
    seconds: float | None = None,
    again: bool = False,
) -> list[dict[str, Any]]:
    """Measure what has no record, keep a record of each setting, and return the records of all of them.

    Nothing runs beside a setting while it is timed; ``line`` is told what happens. seconds: no setting is begun later
    than this, and the last wave is cut short; a setting that was cut is measured anew by the next run. again: measure
    what has a record too. One that ran out of memory beside others, or failed beside others on a GPU, is measured once
    more, alone."""
    facts = context(device)
    keys = {key_of(setting, device, facts): setting for setting in settings}
    todo = {key: s for key, s in keys.items() if again or not _finished(store.get(key))}
    line(f"{len(todo)} settings to measure, {len(keys) - len(todo)} measured before")
    if todo and (absent := _absent(todo.values())):
        line(f"not installed here, so nothing is compared with: {', '.join(absent)} (make peers)")
    end = None if seconds is None else time.monotonic() + seconds
    waiting, done = list(todo), 0
    places, size = _sizes(memory_bytes, (facts["machine"]["gpu"] or {}).get("memory_gib"), limited=end is not None)
    alone: list[str] = []
    while waiting:
        left = None if end is None else end - time.monotonic()
        if left is not None and left < min(LEAST_SECONDS, todo[waiting[0]].limit):
            line(f"time is up; the same command goes on with the other {len(waiting)} settings")
            break
        possible = size if left is None else max(1, min(size, int(left // SETTING_SECONDS)))
        wave = waiting[: 1 if waiting[0] in alone else possible]
        del waiting[: len(wave)]
        chosen = {key: _cut(todo[key], left) for key in wave}

        def keep(key: str, outcome: Outcome, last: str | None, chosen: Mapping[str, Setting] = chosen) -> None:
            nonlocal done
            record = _record(key, chosen[key], outcome, last, profile, device, facts)
            ran_out = end is not None and _ran_out(record)
            trouble = None if len(chosen) == 1 or ran_out else _trouble(record)
            record["cut"] = ran_out or trouble is not None
            with store.lock(key):
                store.write(record)
            if trouble is not None:
                alone.append(key)
                line(f"{todo[key]}: {trouble} beside others; it is measured once more, alone")
                return
            done += 1
            line(f"[{done}/{len(todo)}] {todo[key]}: {_said(outcome, record)}")

        _measured(chosen, device, memory_bytes, places, left, keep)
        waiting = [key for key in wave if key in alone and len(wave) > 1] + waiting
    kept = (store.get(key) for key in keys)
    return [record for record in kept if record is not None]


def _sizes(memory_bytes: int | None, gpu_gib: float | None, limited: bool) -> tuple[int, int]:
    """How many settings are prepared at a time, and how many make a wave. In a run with a time limit a wave that is
    prepared by the CPU's cores has no more than there are places, so that what stands first is timed early."""
    places = max(1, min(PLACES, usable_cores() or 1))
    size = WAVE if gpu_gib is None else int(gpu_gib * 2**30 // GPU_BYTES)
    if memory_bytes is not None:
        size = min(size, int(memory_bytes // WAVE_BYTES))
    return places, max(1, min(size, places) if limited and gpu_gib is None else size)


def _cut(setting: Setting, left: float | None) -> Setting:
    return setting if left is None else dataclasses.replace(setting, limit=min(left, setting.limit))


def environments(
    store: Store, profile: str, line: Callable[[str], None], seconds: float = 900.0, again: bool = False
) -> list[dict[str, Any]]:
    """The record of control steps per second of the simulators (`benchmarks.cost.control_steps`), measured where there
    is none yet; its work is "environment", and its rows have columns of their own."""
    facts, folder = context("cpu"), Path(__file__).parents[1]
    files = [*sorted(folder.glob("environments/*.py")), folder / "cost" / "throughput.py"]
    libraries = {name: _version(name) for name in ("torch", "mujoco", "gymnasium")}
    code = [essence(path.read_text(encoding="utf-8")) for path in files]
    key = content_key({"cell": "throughput", "code": code, "machine": facts["machine"]["id"], "versions": libraries})
    if again or not _finished(store.get(key)):
        with tempfile.TemporaryDirectory() as logs:
            job = Job(key, ("benchmarks.cost.control_steps:measure", {}), Path(logs) / f"{key}.log", seconds)
            outcome = isolate.run([job], 1, lambda event: None, threads=None, preload=PRELOAD)[key]
        record = {
            "key": key,
            "cell": "cost",
            "label": "control steps",
            "profile": profile,
            "device": "cpu",
            **_ended(outcome),
            "setting": {"work": "environment", "backbone": "", "meta_batch": 0, "inner_steps": 0},
            **(outcome.value or {"task": None, "threads": None, "rounds": None, "rows": []}),
            **facts,
        }
        with store.lock(key):
            store.write(record)
        line(f"control steps per second: {outcome.status}{f' ({outcome.reason})' if outcome.reason else ''}")
    kept = store.get(key)
    return [kept] if kept is not None else []


def _ended(outcome: Outcome) -> dict[str, Any]:
    """How and when a process ended, as every record says it."""
    now = datetime.datetime.now(datetime.UTC)
    return {
        "status": outcome.status,
        "reason": outcome.reason,
        "stderr": outcome.stderr,
        "memory": {"peak_bytes": outcome.peak_bytes},
        "started": (now - datetime.timedelta(seconds=outcome.seconds)).isoformat(timespec="seconds"),
        "finished": now.isoformat(timespec="seconds"),
        "files": {},
        "sizes": {},
    }


def _finished(record: Mapping[str, Any] | None) -> bool:
    return record is not None and record["status"] in FINISHED and not record.get("cut")


def _ran_out(record: Mapping[str, Any]) -> bool:
    """Whether time ended the setting, a variant before it was timed or counted, or one after a few rounds."""
    rows = record["rows"]
    few = min(LEAST_ROUNDS, record["setting"]["rounds"])
    short = any(row["status"] == "ok" and ((row["rounds"] or 0) < few or row["plan"] is None) for row in rows)
    return short or "timeout" in (record["status"], *(row["status"] for row in rows))


def _trouble(record: Mapping[str, Any]) -> str | None:
    """What others on the machine may have caused, in words: the setting or a variant of it ran out of memory, or had
    another plan for want of it, or the system killed it, as it does then; on a GPU that others use any failure, but not
    a result that is another one."""
    ends = [(record["status"], record["reason"]), *((row["status"], row["reason"]) for row in record["rows"])]
    plans = [(row["plan"] or {}).get("why") or "" for row in record["rows"]]
    short = any(status == "out-of-memory" or "killed by SIGKILL" in (reason or "") for status, reason in ends)
    if short or any(map(short_of_memory, plans)):
        return "out of memory"
    failed = any(status == "error" and not comparison.is_verdict(reason or "") for status, reason in ends)
    return "failed" if failed and record["device"].startswith("cuda") else None


def _absent(settings: Iterable[Setting]) -> list[str]:
    """The libraries that would compete and are not installed."""
    asked = {variant.implementation for setting in settings for variant in setting.variants}
    return [name for name in peers.names() if name in asked and not peers.installed(name)]


def _measured(
    wave: Mapping[str, Setting],
    device: str,
    memory_bytes: int | None,
    places: int,
    left: float | None,
    keep: Callable[[str, Outcome, str | None], None],
) -> None:
    """Run the settings of a wave, by key in the order of their turns; ``keep`` is told of each when it has ended: how,
    and what it was doing last."""
    last: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        numbers = {key: number for number, key in enumerate(wave)}
        # the largest first: with one of them at the end, all but one place would be idle
        prepared = [numbers[key] for key in sorted(wave, key=lambda key: -wave[key].size)]
        turns = {
            key: Turn(folder, number, len(wave), places, prepared[: prepared.index(number)])
            for key, number in numbers.items()
        }

        def on_event(event: Event) -> None:
            key = event.job.key
            if event.kind == "progress":
                last[key] = event.progress["line"]
            elif event.outcome is not None:
                turns[key].ended()
                keep(key, event.outcome, last.get(key))

        seconds = sum(setting.limit for setting in wave.values()) if left is None else left
        jobs = []
        for key, setting in wave.items():
            given = {"setting": grid.plain(setting), "device": device, "left": left}
            call = "benchmarks.cost.measurement:measure", {**given, "turn": dataclasses.asdict(turns[key])}
            jobs.append(Job(key, call, Path(folder) / f"{key}.log", seconds, memory_bytes))
        isolate.run(jobs, len(jobs), on_event, threads=None, preload=PRELOAD)


def context(device: str) -> dict[str, Any]:
    """What every record says of the machine and the code."""
    return {
        "machine": fingerprint(device),
        "versions": versions(),
        "git": git_state(Path(__file__).parents[2]),
    }


def key_of(setting: Setting, device: str, facts: dict[str, Any]) -> str:
    """The content key: setting, code, device, machine, and the versions of the libraries that compete."""
    libraries = {name: _version(name) for name in ("torch", *peers.names()) if name not in ("ours", "loop")}
    return content_key(
        {
            "cell": "cost",
            "setting": {name: value for name, value in grid.plain(setting).items() if name != "limit"},
            "code": _code(),
            "device": device.partition(":")[0],
            "machine": facts["machine"]["id"],
            "versions": libraries,
        }
    )


@functools.cache
def _code() -> list[str]:
    """What decides a cost of the code as it is now; parsing it takes a third of a second."""
    folder = Path(__file__).parents[1]
    files = sorted(path for pattern in CODE for path in folder.glob(pattern))
    return [essence(path.read_text(encoding="utf-8")) for path in files]


def _version(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None


def _record(
    key: str,
    setting: Setting,
    outcome: Outcome,
    last: str | None,
    profile: str,
    device: str,
    facts: dict[str, Any],
) -> dict[str, Any]:
    workload = WORKLOADS[setting.backbone]
    ended = _ended(outcome)
    if outcome.reason is not None and last is not None:
        ended["reason"] = f"{outcome.reason} (while {last})"
    return {
        "key": key,
        "cell": "cost",
        "label": str(setting),
        "profile": profile,
        "device": device,
        **ended,
        "setting": {
            **{name: getattr(setting, name) for name in FIELDS},
            **{name: getattr(workload, name) for name in ("kind", "input_shape", "way", "shot", "queries", "inner_lr")},
        },
        **(outcome.value or {"rows": [], "ceilings": None, "threads": None, "precision": None, "stages": None}),
        **facts,
    }


def _said(outcome: Outcome, record: dict[str, Any]) -> str:
    if outcome.status != "ok":
        return f"{outcome.status} ({record['reason']})"
    rows = record["rows"]
    timed = sum(row["status"] == "ok" for row in rows)
    odd = {f"{row['label']}: {row['reason']}": None for row in rows if row["status"] not in ("ok", "skipped")}
    seconds = sum(spent for stage, spent in record["stages"].items() if stage != "waiting")
    return f"{timed} of {len(rows)} variants in {seconds:.0f} s" + "".join(f"; {reason}" for reason in odd)
