"""The places that ``--executor`` names, and the part of a run that executors need."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.checks import check_known
from benchmarks.errors import MetabenchError
from benchmarks.records.store import Store

#: the options of each kind that are ours; SLURM takes those of sbatch, too
OPTIONS = {"local": ("gpus", "per"), "ray": ("per",), "slurm": ("workers",)}
FORMS = "local, local:gpus=4,per=2, ray, ray:HOST:PORT, ray:HOST:PORT,per=2, slurm:workers=16,partition=gpu"


@dataclass(frozen=True)
class Place:
    """A place that ``--executor`` names. address: of the head of a Ray cluster. numbers: the options that are ours.
    options: for sbatch."""

    kind: str = "local"
    address: str | None = None
    numbers: Mapping[str, int] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Place:
        """Read ``KIND[:ADDRESS][,NAME=NUMBER]``; raises `MetabenchError` for anything else."""
        kind, colon, rest = text.partition(":")
        if kind not in OPTIONS:
            raise MetabenchError(f"unknown executor {text!r}; known: {FORMS}")
        address, numbers, options = None, {}, {}
        parts = rest.split(",") if colon else []
        if "" in parts:
            raise MetabenchError(f"executor {text!r} has an empty option; known: {FORMS}")
        names = [part.partition("=")[0] for part in parts]
        if twice := {name for name in names if names.count(name) > 1}:
            raise MetabenchError(f"executor {text!r}: {', '.join(sorted(twice))} twice")
        for part in parts:
            name, equals, value = part.partition("=")
            if kind == "ray" and not equals and address is None:
                address = part
            elif name in OPTIONS[kind]:
                if not (value.isascii() and value.isdigit() and 0 < int(value) < 10_000):
                    raise MetabenchError(f"executor {text!r}: {name} = {value!r} is no number from 1 to 9999")
                numbers[name] = int(value)
            elif kind == "slurm":
                options[name] = value
            else:
                check_known(f"option of executor {kind!r}", name, OPTIONS[kind])
        if "per" in numbers and kind == "local" and "gpus" not in numbers:
            raise MetabenchError(f"executor {text!r}: per = cells on each GPU; say how many, as in local:gpus=4,per=2")
        return cls(kind, address, numbers, options)

    def check(self, jobs: int | None) -> None:
        """Refuse a number of processes where the place has its own."""
        if jobs is not None and (self.kind == "ray" or "gpus" in self.numbers):
            raise MetabenchError(f"--jobs {jobs} is not for this executor: it has as many as there is room for")

    @property
    def here(self) -> bool:
        """Whether cells run on this machine, so that the device must be here."""
        return self.kind == "local"

    def slots(self, device: str) -> int | None:
        """Cells at once, where the place says it; raises `MetabenchError` for GPUs that are not here."""
        if "gpus" not in self.numbers:
            return None
        if device != "cuda":
            raise MetabenchError(f"executor local with gpus = {self.numbers['gpus']} needs --device cuda, not {device}")
        self.gpus()
        return self.numbers["gpus"] * self.numbers.get("per", 1)

    def gpus(self) -> list[str]:
        """Names of this machine's GPUs for CUDA_VISIBLE_DEVICES, as many as the place has."""
        wanted, visible = self.numbers.get("gpus", 0), os.environ.get("CUDA_VISIBLE_DEVICES")
        if not wanted:
            return []
        import torch

        names = visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]
        if wanted > len(names):
            raise MetabenchError(f"executor local with gpus = {wanted}: this machine has {len(names)}")
        return names[:wanted]


@dataclass(frozen=True)
class Needed:
    """The part of a run that executors need. jobs, threads: processes here, and CPU threads of each. memory: the limit
    of each in GB, if one is given. given: the arguments of the run, for workers that repeat it."""

    store: Store
    jobs: int
    device: str
    threads: int
    memory: float | None
    given: Mapping[str, Any]
