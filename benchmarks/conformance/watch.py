"""State that a plug-in must leave alone: other splits, random generators, settings of the process."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.api import TaskDistribution


def watched(tasks: TaskDistribution) -> tuple[TaskDistribution, list[tuple[str, str]]]:
    """The same distribution, and a list that grows by (method, split) with each call from outside."""
    asked: list[tuple[str, str]] = []
    inside: list[str] = []

    def noting(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(method)

        @functools.wraps(method)
        def call(self: TaskDistribution, *arguments: Any, **named: Any) -> Any:
            if not inside:
                asked.append((name, signature.bind(self, *arguments, **named).arguments["split"]))
            inside.append(name)
            try:
                return method(self, *arguments, **named)
            finally:
                inside.pop()

        return call

    cls = type(tasks)
    public = ((name, method) for name, method in inspect.getmembers(cls, inspect.isfunction) if name[0] != "_")
    overridden = {
        name: noting(name, method) for name, method in public if "split" in inspect.signature(method).parameters
    }
    values = {field.name: getattr(tasks, field.name) for field in dataclasses.fields(tasks) if field.init}
    return type(cls.__name__, (cls,), overridden)(**values), asked


def generators() -> dict[str, str]:
    """The states of the global random generators."""
    return {
        "torch": str(torch.get_rng_state().numpy().tobytes()),
        "numpy": str(np.random.get_state(legacy=False)),  # noqa: NPY002
        "random": str(sys.modules["random"].getstate()),
    }


def settings() -> dict[str, str]:
    """Settings of the process that every other method sees."""
    return {
        "torch's default dtype": str(torch.get_default_dtype()),
        "torch's default device": str(torch.get_default_device()),
        "torch's number of threads": str(torch.get_num_threads()),
        "torch's gradient mode": str(torch.is_grad_enabled()),
        "torch's deterministic algorithms": str(torch.are_deterministic_algorithms_enabled()),
        "torch's precision of matrix products": torch.get_float32_matmul_precision(),
        "numpy's handling of errors": str(np.geterr()),
        "the current folder": os.getcwd(),
        **{
            f"the handler of {number.name}": str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)
        },
    }


def changes(before: dict[str, str], after: dict[str, str]) -> str:
    """The names whose values differ, as a list in words."""
    return ", ".join(name for name in before if before[name] != after[name])
