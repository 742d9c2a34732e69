"""Execution plans: how a meta-step is run, never its result.

A plan is words with commas between them: ``compiled``, ``eager,tasks=4``, ``bf16``. The method's rule fills in the
rest. Records hold the plan in full.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from benchmarks.checks import check_fields
from benchmarks.errors import MetabenchError

#: eager: operation by operation; compiled: one program by torch's compiler for these shapes; graph: the launches of
#: either, captured once and replayed (CUDA)
Mode = Literal["eager", "compiled", "graph", "compiled-graph"]
#: of the meta-gradient: torch.float32; TF32 products and convolutions (CUDA); automatic mixed precision in bfloat16
Precision = Literal["float32", "tf32", "bf16"]
#: how the network runs on T tasks: layers with a task axis, `torch.vmap`, or one task after the other
PerTask = Literal["layers", "vmap", "loop"]

_WORDS: dict[str, tuple[str, Any]] = {
    **{word: ("mode", word) for word in get_args(Mode)},
    **{word: ("precision", word) for word in get_args(Precision)},
    **{word: ("per_task", word) for word in get_args(PerTask)},
    "checkpointed": ("checkpointed", True),
}
_NUMBERS = ("tasks", "threads")
#: the words of a plan
WORDS = (*_WORDS, *(f"{name}=N" for name in _NUMBERS))


@dataclass(frozen=True)
class Plan:
    """How a meta-step is run.

    tasks: per pass through the network. threads: simultaneous passes, each in a Python thread with one CPU thread for
    torch's operations; 1: one pass at a time, with all of torch's threads. checkpointed: discard the activations of an
    inner step and recompute them in the meta-gradient's backward pass.

    Raises `ValueError` for values below 1 and for parts that exclude each other.
    """

    tasks: int
    mode: Mode = "eager"
    precision: Precision = "float32"
    checkpointed: bool = False
    per_task: PerTask = "layers"
    threads: int = 1

    def __post_init__(self) -> None:
        check_fields(self, "at least 1", "tasks", "threads")
        if self.threads > 1 and self.mode != "eager":
            raise ValueError(f"threads={self.threads} and {self.mode} exclude each other")
        if self.checkpointed and self.compiled:  # the compiler would merge both computations
            raise ValueError(f"checkpointed and {self.mode} exclude each other")

    @property
    def compiled(self) -> bool:
        """Whether torch's compiler is used."""
        return self.mode in ("compiled", "compiled-graph")

    @property
    def captured(self) -> bool:
        """Whether launches are captured in a CUDA graph."""
        return self.mode in ("graph", "compiled-graph")

    def __str__(self) -> str:
        """All words of this plan, so that the rule adds nothing."""
        words = [self.mode, f"tasks={self.tasks}", f"threads={self.threads}", self.precision, self.per_task]
        return ",".join(words + ["checkpointed"] * self.checkpointed)

    def facts(self) -> dict[str, Any]:
        """The plan as plain data, for records."""
        return {"name": str(self), "compiled": self.compiled, **dataclasses.asdict(self)}


def parse(text: str) -> dict[str, Any]:
    """The fields set by a spelled plan; raises `MetabenchError` for unknown words and words that exclude each other.

    >>> parse("compiled,tasks=4")
    {'mode': 'compiled', 'tasks': 4}"""
    fields: dict[str, Any] = {}
    for word in filter(None, (part.strip() for part in text.split(","))):
        name, _, number = word.partition("=")
        if word in _WORDS:
            name, value = _WORDS[word]
        elif name in _NUMBERS and number.isdigit():
            value = int(number)
        else:
            raise MetabenchError(f"unknown word {word!r} in the plan {text!r}; known: {', '.join(WORDS)}")
        if fields.setdefault(name, value) != value:
            raise MetabenchError(f"plan {text!r}: {fields[name]} and {value} exclude each other")
    try:
        Plan(**{"tasks": 1, **fields})
    except ValueError as error:
        raise MetabenchError(f"plan {text!r}: {error}") from None
    return fields


def settle(rule: Plan, forced: str, device: str) -> Plan:
    """The rule's plan with the forced words in place of its own; raises `MetabenchError` if the device lacks them."""
    fields = parse(forced)
    check_device(forced, device)
    if fields.get("threads", 1) > 1 or (fields.get("checkpointed") and rule.compiled):
        fields.setdefault("mode", "eager")
    if fields.get("mode", "eager") != "eager":
        fields.setdefault("threads", 1)
    return dataclasses.replace(rule, **fields)


def rehearsed(
    chosen: Plan, why: str, forced: str, device: str, rehearse: Callable[[Plan], None]
) -> tuple[Plan, dict[str, Any]]:
    """The chosen or forced plan, rehearsed if it compiles, captures or maps, and its facts for the record.

    chosen, why: the method's plan and its reason. forced: words that replace its own. rehearse: runs one step.

    If the chosen plan fails, it falls back to eager. A forced one raises `MetabenchError`."""
    plan = settle(chosen, forced, device)
    why = "forced" if forced else why
    if plan.mode != "eager" or plan.per_task == "vmap":
        try:
            rehearse(plan)
        except Exception as error:  # no compiler, or a network that can't be traced, among others
            line = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            if {"mode", "per_task"} & parse(forced).keys():
                raise MetabenchError(f"plan {forced!r} fails here: {line}") from error
            plan, why = dataclasses.replace(plan, mode="eager"), f"not {plan.mode}: {line}"
    return plan, {**plan.facts(), "forced": forced or None, "why": why}


def check_device(text: str, device: str) -> None:
    """Refuse a spelled plan that asks for CUDA's words on another device."""
    fields = parse(text)
    needs_cuda = [word for word in fields.values() if word in ("graph", "compiled-graph", "tf32")]
    if needs_cuda and not device.startswith("cuda"):
        raise MetabenchError(f"plan {text!r}: {' and '.join(needs_cuda)} needs a CUDA device, not {device!r}")
