"""A whole run of the cost benchmark: every setting that has no record yet, one process after the other."""

from __future__ import annotations

import datetime
import tempfile
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks import isolate, measure, peers
from benchmarks.cost import grid
from benchmarks.cost.grid import Setting
from benchmarks.isolate import Event, Job, Outcome
from benchmarks.program import essence
from benchmarks.store import Store, content_key
from benchmarks.workloads import WORKLOADS

#: modules that the fork server imports for the children; none starts a thread
PRELOAD = (*isolate.PRELOAD, "benchmarks.cost.measurement")
#: the code that decides a cost
CODE = ("cost/*.py", "peers/*.py", "models/*.py", "workloads.py", "counters.py", "training.py", "../maml/*.py")


def run(
    settings: Sequence[Setting],
    store: Store,
    profile: str,
    device: str,
    line: Callable[[str], None],
    memory_bytes: int | None = None,
) -> list[dict[str, Any]]:
    """Measure what has no record, keep a record of each setting, and return the records of all of them.

    Settings run one at a time and nothing beside them; ``line`` is told what happens."""
    facts = context(device)
    keys = {key_of(setting, device, facts): setting for setting in settings}
    todo = {key: s for key, s in keys.items() if (store.get(key) or {}).get("status") != "ok"}
    line(f"{len(todo)} settings to measure, {len(keys) - len(todo)} measured before")
    last: dict[str, str] = {}
    done = 0

    def on_event(event: Event) -> None:
        nonlocal done
        key = event.job.key
        if event.kind == "progress":
            last[key] = event.progress["line"]
        if event.kind == "finished" and event.outcome is not None:
            done += 1
            record = _record(key, todo[key], event.outcome, last.get(key), profile, device, facts)
            with store.lock(key):
                store.write(record)
            line(f"[{done}/{len(todo)}] {todo[key]}: {_said(event.outcome, record)}")

    with tempfile.TemporaryDirectory() as logs:
        jobs = [
            Job(
                key,
                ("benchmarks.cost.measurement:measure", {"setting": grid.plain(setting), "device": device}),
                Path(logs) / f"{key}.log",
                setting.limit,
                memory_bytes,
            )
            for key, setting in todo.items()
        ]
        isolate.run(jobs, 1, on_event, threads=None, preload=PRELOAD)
    return [record for key in keys if (record := store.get(key)) is not None]


def context(device: str) -> dict[str, Any]:
    """What every record says of the machine and the code."""
    return {
        "machine": measure.machine(device),
        "versions": measure.versions(),
        "git": measure.git_state(Path(__file__).parents[2]),
    }


def key_of(setting: Setting, device: str, facts: dict[str, Any]) -> str:
    """The content key: setting, code, device, machine, and the versions of the libraries that compete."""
    folder = Path(__file__).parents[1]
    files = sorted(path for pattern in CODE for path in folder.glob(pattern))
    libraries = {name: _version(name) for name in ("torch", *peers.names()) if name not in ("ours", "loop")}
    return content_key(
        {
            "cell": "cost",
            "setting": {name: value for name, value in grid.plain(setting).items() if name != "limit"},
            "code": [essence(path.read_text(encoding="utf-8")) for path in files],
            "device": device.partition(":")[0],
            "machine": facts["machine"]["id"],
            "versions": libraries,
        }
    )


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
    now = datetime.datetime.now(datetime.UTC)
    measured = outcome.value or {"rows": [], "ceilings": None, "threads": None, "precision": None}
    reason = outcome.reason
    if reason is not None and last is not None:
        reason = f"{reason} (while {last})"
    return {
        "key": key,
        "cell": "cost",
        "status": outcome.status,
        "reason": reason,
        "stderr": outcome.stderr,
        "label": str(setting),
        "profile": profile,
        "setting": {
            **{name: getattr(setting, name) for name in ("backbone", "meta_batch", "inner_steps", "rounds", "seconds")},
            **{name: getattr(workload, name) for name in ("kind", "input_shape", "way", "shot", "queries", "inner_lr")},
        },
        **measured,
        "device": device,
        "memory": {"peak_bytes": outcome.peak_bytes},
        **facts,
        "started": (now - datetime.timedelta(seconds=outcome.seconds)).isoformat(timespec="seconds"),
        "finished": now.isoformat(timespec="seconds"),
        "files": {},
        "sizes": {},
    }


def _said(outcome: Outcome, record: dict[str, Any]) -> str:
    if outcome.status != "ok":
        return f"{outcome.status} ({record['reason']})"
    rows = record["rows"]
    timed = sum(row["status"] == "ok" for row in rows)
    odd = {f"{row['label']}: {row['reason']}": None for row in rows if row["status"] != "ok"}
    return f"{timed} of {len(rows)} variants in {outcome.seconds:.0f} s" + "".join(f"; {reason}" for reason in odd)
