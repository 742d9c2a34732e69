"""Where a record was computed: the machine and the commit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from benchmarks.records.entries import Gpu


@dataclass(frozen=True)
class Machine:
    """`benchmarks.machine.fingerprint` of the process that computed the record. node: which of several equal machines,
    None in older records."""

    id: str
    cpu: str
    architecture: str
    physical_cores: int | None
    logical_cores: int | None
    usable_cores: int | None
    memory_gib: int | None
    system: str
    os: str
    gpu: Annotated[dict[str, Any], Gpu] | None = None
    threads: dict[str, Any] = field(default_factory=dict)
    node: str | None = None


@dataclass(frozen=True)
class Git:
    """The checked-out commit, and whether files differed from it."""

    commit: str
    dirty: bool
