"""The cost of second order, from the records of `metabench cost`: frames, ratios with intervals, and sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.errors import MetabenchError
from benchmarks.records.record import Cost, Machine, Record
from benchmarks.stats import timing
from reports import words

#: the saving by first order that Finn et al. (2017, section 5.2) report
PAPER = "roughly 33 %"
#: its readings as a ratio of times, second order over first: a third more meta-steps per second, or a third of the time
#: saved
READINGS = {"speed": 1.33, "time saved": 1.5}
MEANINGS = " or ".join(f"{number:g} times if it means {what}" for what, number in READINGS.items())
#: tolerance of "roughly", beyond either reading
ROUGHLY = 1.1
OUTCOMES = ("holds", "fails", "undecided")

WORKS = ("meta-step", "evaluation")
#: the work of settings with several learners; `reports.cost.learners` shows them
LEARNERS = "learners"

#: kind of work that is timed by environment steps -> the unit of its speed
THROUGHPUTS = {"environment": "control steps per second", "recurrent": "environment steps per second"}

DEVICES = {"cpu": "the CPU", "cuda": "the GPU"}

#: the suite's own implementation, with the plan that it trains with
OURS = "ours/rule"

#: what identifies a setting, in the order of the tables
SETTING = ("machine", "device", "work", "backbone", "meta_batch", "inner_steps")

#: columns of the terminal's tables
SHOWN = (
    *("milliseconds", "low", "high", "stable", "compile_seconds", "peak_bytes", "flops", "operations", "launches"),
    *("adapt_milliseconds_per_task", "share_of_ceiling", "gradient_error"),
)


def load(paths: Path | str | Iterable[Path | str]) -> list[Record]:
    """The cost records of one store or several, oldest first; raises `MetabenchError` where there are none."""
    from benchmarks.records.store import Store

    folders = [Path(paths)] if isinstance(paths, (str, Path)) else [Path(path) for path in paths]
    found = {record.key: record for folder in folders for record in Store(folder, read_only=True).records("cost")}
    if not found:
        raise MetabenchError(f"no costs in {', '.join(map(str, folders))}: run `metabench cost` first")
    return sorted(found.values(), key=lambda record: (record.finished, record.key))


def rows(records: Sequence[Record], works: Sequence[str] = WORKS) -> pd.DataFrame:
    """One row per variant: setting, order, implementation, status and all its numbers.

    The newest record of a setting on a machine counts. works: the kinds of work that are wanted."""
    newest: dict[tuple[Any, ...], Record] = {}
    for record in records:
        if work_of(record) in works:
            newest[place_of(record)] = record
    found = [
        {**dict(zip(SETTING, place, strict=True)), **row}
        for place, record in newest.items()
        for row in (_cost(record).rows or _unmeasured(record))
    ]
    frame = pd.DataFrame(found)
    frame = frame.reindex(columns=list(dict.fromkeys([*frame.columns, *SHOWN])))
    if not found:
        return frame
    upwards = [name != "work" for name in SETTING]  # training before evaluation
    return frame.sort_values(list(SETTING), ascending=upwards, kind="stable", ignore_index=True)


def milliseconds(value: float) -> str:
    """Three digits, without an exponent."""
    return f"{value:.3g}" if value < 999.5 else f"{value:,.0f}"


def interval(value: float, low: float, high: float, form: Callable[[float], str] = "{:.2f}".format) -> str:
    """A number with the ends of its interval in brackets."""
    return f"{form(value)} [{form(low)}, {form(high)}]"


def described(row: Mapping[str, Any]) -> str:
    """The setting of a row in words."""
    tested = row["work"] == "evaluation"
    batch = words.count(row["meta_batch"], "episode" if tested else "task") + " evaluated" * tested
    return f"{row['backbone']}, {batch}, {row['inner_steps']} inner step{'s' if row['inner_steps'] > 1 else ''}"


def place_of(record: Record) -> tuple[Any, ...]:
    """The values of `SETTING`."""
    setting = _cost(record).setting
    own = (work_of(record), setting["backbone"], setting["meta_batch"], setting["inner_steps"])
    return _machine(record).id, record.device, *own


def work_of(record: Record) -> str:
    """The kind of work that was timed."""
    return str(_cost(record).setting.get("work", "meta-step"))


def _cost(record: Record) -> Cost:
    assert record.cost is not None, record.key
    return record.cost


def _machine(record: Record) -> Machine:
    assert record.machine is not None, record.key
    return record.machine


def untimed(records: Sequence[Record]) -> dict[str, int]:
    """The number of failed variants, by status."""
    frame = rows(records, (*WORKS, LEARNERS))
    failed = frame.loc[~frame["status"].isin(("ok", "skipped")), "status"] if len(frame) else []
    return dict(Counter(map(str, failed)))


def _unmeasured(record: Record) -> list[dict[str, Any]]:
    """The row of a setting whose process was killed: out of memory is a result."""
    facts = {"order": "", "implementation": "", "label": "all", "status": record.status}
    return [{**facts, "reason": record.reason, "samples_milliseconds": []}]


def throughput(records: Sequence[Record], work: str) -> pd.DataFrame:
    """Environment steps per second, one row per machine, task and way to do the work, a key of `THROUGHPUTS`."""
    timed = [record for record in records if work_of(record) == work]
    newest = {(_machine(record).id, _cost(record).setting["task"]): record for record in timed}
    return pd.DataFrame(
        [
            {"machine": machine, "task": task, "threads": record.threads, **row}
            for (machine, task), record in newest.items()
            for row in _cost(record).rows or [{"label": "all", "status": record.status, "reason": record.reason}]
        ]
    )


def ratios(records: Sequence[Record]) -> pd.DataFrame:
    """Second over first order, one row per setting and implementation that has both.

    Columns: those of `SETTING`, ``label``, ``time`` with its bootstrap interval ``low`` and ``high`` (both orders were
    timed in the same rounds), ``stable``, and ``memory``, ``flops``, ``operations``, NaN where they are not counted."""
    frame = rows(records)
    found = []
    timed = frame[frame["status"] == "ok"] if len(frame) else frame
    groups = timed.groupby([*SETTING, "label"], sort=False) if len(timed) else ()
    for place, group in groups:
        orders = {row["order"]: row for row in group.to_dict("records")}
        if {"first", "second"} - orders.keys():
            continue
        second, first = orders["second"], orders["first"]
        time = timing.ratio(second["samples_milliseconds"], first["samples_milliseconds"])
        counts = {
            name: _over(second[column], first[column])
            for name, column in (("memory", "peak_bytes"), ("flops", "flops"), ("operations", "operations"))
        }
        found.append(
            {
                **dict(zip((*SETTING, "label"), place, strict=True)),
                "time": time.value,
                "low": time.low,
                "high": time.high,
                "stable": bool(second["stable"]) and bool(first["stable"]),
                **counts,
            }
        )
    columns = [*SETTING, "label", "time", "low", "high", "stable", "memory", "flops", "operations"]
    return pd.DataFrame(found, columns=columns)


def _over(second: Any, first: Any) -> float:
    known = pd.notna(second) and pd.notna(first) and first
    return float(second) / float(first) if known else float("nan")


def sentences(records: Sequence[Record], label: str = OURS) -> list[str]:
    """The saving of leaving the second derivatives out, a sentence per setting, and the paper's."""
    return [_sentence(row) for row in ratios(records).to_dict("records") if row["label"] == label]


def _sentence(row: Mapping[str, Any]) -> str:
    steps = f"{row['inner_steps']} inner step{'s' if row['inner_steps'] > 1 else ''}"
    memory = ""
    if pd.notna(row["memory"]):
        saved = 100 * (1 - 1 / row["memory"])
        memory = f" and takes {abs(saved):.0f} % {'less' if saved >= 0 else 'more'} memory"
    interval = f"[{row['low']:.2f}, {row['high']:.2f}]"
    speed = f"First order is {row['time']:.2f} times {interval} as fast as second order"
    where = f"at {steps} on {row['backbone']} ({words.count(row['meta_batch'], 'task')}, {row['device']})"
    unstable = "" if row["stable"] else " (unstable: noisy timing)"
    return f"{speed}{memory} {where}{unstable}; the paper's {PAPER}: {claim(row['low'], row['high'], row['stable'])}."


def claim(low: float, high: float, stable: bool = True) -> str:
    """What becomes of the paper's 33 % at an interval of the ratio of times: it "holds" between its readings, "fails"
    outside, or is "undecided"; with a tenth of tolerance either way. Noisy timing decides nothing."""
    least, most = min(READINGS.values()) / ROUGHLY, max(READINGS.values()) * ROUGHLY
    if stable and least <= low and high <= most:
        return "holds"
    return "fails" if stable and (high < least or low > most) else "undecided"


def overview(records: Sequence[Record], label: str = OURS) -> list[str]:
    """A sentence per machine and device: the range of ratios, and how often the paper's claim holds."""
    frame = ratios(records)
    told = []
    for (machine, device), group in frame[frame["label"] == label].groupby(["machine", "device"], sort=False):
        least, most = group.loc[group["time"].idxmin()], group.loc[group["time"].idxmax()]
        span = (
            f"{least.time:.2f} times ({_where(least)}) to {most.time:.2f} times ({_where(most)})"
            if len(group) > 1
            else f"{most.time:.2f} times ({_where(most)})"
        )
        unsure = noisy(group, "settings")
        told.append(
            f"On {device_name(records, machine, device)} a meta-step of second order takes {span} as long "
            f"as one of first order{unsure and f' ({unsure})'}. The paper's {PAPER} ({MEANINGS}) {_counted(group)}."
        )
    return told


def device_name(records: Iterable[Record], machine: str, device: str) -> str:
    """``the CPU``, with its model if there are several machines; ``the GPU (its model)``."""
    kind = device.partition(":")[0]
    models = {_machine(record).id: _machine(record) for record in records if record.device == device}
    known, model = models.get(machine), None
    if known and kind == "cuda":
        model = (known.gpu or {}).get("name")
    elif known and len(models) > 1:
        model = known.cpu
    return DEVICES.get(kind, device) + (f" ({model})" if model else "")


def unstable(group: pd.DataFrame) -> int:
    """How many rows are unstable."""
    return int((~group["stable"].astype(bool)).sum())


def noisy(group: pd.DataFrame, what: str) -> str:
    """``2 of 5 points are unstable: noisy timing``; empty where none is."""
    if not (found := unstable(group)):
        return ""
    are = "is" if found == 1 else "are"
    return f"{found} of {len(group)} {what} {are} unstable: noisy timing"


def _where(row: Any) -> str:
    return f"{row.backbone}, {row.inner_steps} step{'s' if row.inner_steps > 1 else ''}"


def _counted(group: pd.DataFrame) -> str:
    """``holds at 2, fails at 1 of 3 settings``."""
    found = [claim(row.low, row.high, row.stable) for row in group.itertuples()]
    counts = [f"{'is ' * (word == 'undecided')}{word} at {found.count(word)}" for word in OUTCOMES if word in found]
    return f"{', '.join(counts)} of {len(found)} settings"


def against(records: Sequence[Record], label: str = OURS) -> pd.DataFrame:
    """The time of every implementation over ours on the same order, with intervals.

    fastest: whether it is the fastest of the others in our precision."""
    frame = rows(records)
    timed = frame[frame["status"] == "ok"] if len(frame) else frame
    found = []
    for place, group in timed.groupby([*SETTING, "order"], sort=False) if len(timed) else ():
        samples = dict(zip(group["label"], group["samples_milliseconds"], strict=True))
        others = (
            {name: timing.ratio(values, samples[label]) for name, values in samples.items() if name != label}
            if (label in samples)
            else {}
        )
        foreign = {name: each.value for name, each in others.items() if _rivals(name, label)}
        fastest = min(foreign, key=lambda name: foreign[name], default=None)
        for name, each in others.items():
            own = {"label": name, "time": each.value, "low": each.low, "high": each.high, "fastest": name == fastest}
            found.append({**dict(zip((*SETTING, "order"), place, strict=True)), **own})
    return pd.DataFrame(found, columns=[*SETTING, "order", "label", "time", "low", "high", "fastest"])


def _rivals(label: str, ours: str) -> bool:
    """Whether it is another library in our precision."""
    return not label.startswith("ours") and ("tf32" in label) == ("tf32" in ours)


def speedups(records: Sequence[Record], label: str = OURS, peer: str = "learn2learn") -> pd.DataFrame:
    """The time of ``peer`` over ours, and that of the fastest of the others.

    One row per setting and order: those of `SETTING`, ``order``, ``peer`` with its interval ``low`` and ``high`` (NaN
    where it was not timed), ``fastest`` (its label) and ``fastest_time`` with ``fastest_low`` and ``fastest_high``."""
    frame = against(records, label)
    found = []
    for place, group in frame.groupby([*SETTING, "order"], sort=False):
        rows = {row["label"]: row for row in group.to_dict("records")}
        best = next((row for row in rows.values() if row["fastest"]), None)
        if best is None:
            continue
        known = rows.get(peer, dict.fromkeys(("time", "low", "high"), float("nan")))
        found.append(
            {
                **dict(zip((*SETTING, "order"), place, strict=True)),
                "peer": known["time"],
                "low": known["low"],
                "high": known["high"],
                "fastest": best["label"],
                **{f"fastest_{name}": best[name] for name in ("time", "low", "high")},
            }
        )
    columns = ["peer", "low", "high", "fastest", "fastest_time", "fastest_low", "fastest_high"]
    return pd.DataFrame(found, columns=[*SETTING, "order", *columns])
