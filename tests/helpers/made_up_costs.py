"""Records of `metabench cost` with planted times, of a CPU and of a GPU."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from made_up_records import MACHINE, key_of

from benchmarks.cost import entry
from benchmarks.cost.grid import Variant
from benchmarks.records.record import Cost, Git, Record
from benchmarks.records.store import Store

NOISE = (1.0, 1.1, 1.2, 1.3, 1.4)
CPU = dataclasses.replace(MACHINE, id="aaaa")
GPU = dataclasses.replace(
    MACHINE,
    id="bbbb",
    gpu={"name": "Imaginary H100 80GB", "memory_gib": 80, "capability": "9.0", "driver": "550.1", "cuda": "12.8"},
)
#: label -> how many times as long as ours/rule it takes on the GPU
ON_GPU = {
    "ours/rule": 1.0, "ours/eager": 4.0, "ours/graph": 1.02, "ours/graph-tf32": 0.8, "ours/graph-bf16": 0.9,
    "ours/compiled-graph": 0.7, "loop": 30.0, "learn2learn": 40.0, "learn2learn/tf32": 39.0, "jax": 1.5,
    "jax/tf32": 1.1, "torchopt": 45.0,
}  # fmt: skip


def row(order: str, label: str, milliseconds: float, **changes: Any) -> dict[str, Any]:
    """A variant whose five rounds took these milliseconds times 1 to 1.4."""
    name, _, plan = label.partition("/")
    samples = [milliseconds * each for each in NOISE]
    times = {"milliseconds": samples[2], "low": samples[0], "high": samples[-1], "samples_milliseconds": samples}
    counted = {"peak_bytes": 2**20 * (3 if order == "second" else 2), "flops": 1.5e8, "operations": 100}
    stable = {"spread": 0.05, "stable": True, "launches": 900 if label.startswith("loop") else None}
    return {**entry.empty_row(Variant(order, name, plan)), **times, **counted, **stable, **changes}


def untimed(order: str, name: str, status: str, reason: str) -> dict[str, Any]:
    return {**entry.empty_row(Variant(order, name)), "status": status, "reason": reason}


def record(
    backbone: str, meta_batch: int, inner_steps: int, rows: list[dict[str, Any]], gpu: bool = True,
    work: str = "meta-step", **changes: Any,
) -> Record:  # fmt: skip
    setting = {"work": work, "backbone": backbone, "meta_batch": meta_batch, "inner_steps": inner_steps}
    device, machine = ("cuda", GPU) if gpu else ("cpu", CPU)
    found = Record(
        key_of("cost", device, *setting.values()),
        "cost",
        f"{backbone}, {meta_batch} tasks, {inner_steps} inner steps",
        profile="standard",
        device=device,
        cost=Cost(setting, tuple(rows)),
        peak_bytes=1,
        started="2031-05-02T10:00:00+00:00",
        finished="2031-05-02T10:01:00+00:00",
        machine=machine,
        versions={"python": "3.11.2", "torch": "2.13.0"},
        git=Git("e" * 40, False),
    )
    return dataclasses.replace(found, **changes)


def costs(folder: Path, gpu: bool = True, cpu: bool = False) -> Store:
    """Two networks at one and five inner steps, second order 1.6 and 2.4 times first on the GPU, 1.4 and 2.0 on the
    CPU; a variant that ran out of memory, one that is absent, and a setting that ran out of memory as a whole."""
    store = Store(folder)
    for device in [True] * gpu + [False] * cpu:
        labels = ON_GPU if device else {"ours/rule": 1.0, "learn2learn": 20.0, "jax": 1.5}
        for backbone, meta_batch in (("conv4-64-strided", 32), ("mlp-40-40", 25)):
            for steps, ratio in ((1, 1.6), (5, 2.4)) if device else ((1, 1.4), (5, 2.0)):
                rows = [row("second", label, 2 * ratio * slower) for label, slower in labels.items()]
                rows += [row("first", label, 2 * slower) for label, slower in labels.items()]
                if device and steps == 5:
                    why = "CUDA out of memory. Tried to allocate 20.00 GiB."
                    rows += [untimed("second", "higher", "out-of-memory", why)]
                rows += [untimed("first", "another", "skipped", "another is not installed")]
                store.write(record(backbone, meta_batch, steps, rows, device))
        if device:
            late = {"status": "out-of-memory", "reason": "the process was ended"}
            store.write(record("resnet12", 32, 10, [], device, **late))
    return store
