"""Facts of the machine, the installed versions and the commit, for records."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import math
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

#: libraries that the cost benchmark compares with
PEERS = ("learn2learn", "higher", "torchopt", "jax")
#: packages whose versions are recorded
PACKAGES = (
    *("torch", "numpy", "scipy", "pandas", "pyarrow", "matplotlib", "pillow", "mujoco", "gymnasium"),
    *PEERS,
)

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

#: facts that identify a machine: they decide its speed and stay constant while it runs
IDENTITY = ("cpu", "architecture", "physical_cores", "logical_cores", "usable_cores", "memory_gib", "system", "gpu")


def fingerprint(device: str = "cpu") -> dict[str, Any]:
    """Facts of this machine: processor, cores, memory (GiB), system, thread settings.

    For a CUDA device also its name, memory (GiB), driver and CUDA version. ``id`` is a short hash of the constant
    facts, ``node`` one of the machine's name (on a Ray cluster, the node's id). A CPU's fingerprint never touches CUDA;
    a GPU's initialises it in this process."""
    facts: dict[str, Any] = {
        "cpu": _cpu_model(),
        "architecture": platform.machine(),
        "physical_cores": _physical_cores(),
        "logical_cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "memory_gib": memory_gib(),
        "system": platform.system(),
        "os": platform.platform(),
        "gpu": _gpu(device) if device.startswith("cuda") else None,
        "threads": thread_settings(),
        "node": os.environ.get("METABENCH_NODE") or hashlib.sha256(platform.node().encode()).hexdigest()[:8],
    }
    identity = json.dumps([facts[name] for name in IDENTITY], sort_keys=True)
    return {"id": hashlib.sha256(identity.encode()).hexdigest()[:8], **facts}


#: CPU seconds of `_piece_of_work` on an idle core of a laptop of 2024
_PIECE_SECONDS = 0.025


def pace(repeats: int = 5) -> float:
    """How many times longer than on an idle laptop a fixed piece of Python takes now, in CPU time.

    Seconds compare at equal paces only: other processes take caches and clock rate from this one."""
    fastest = math.inf
    for _ in range(repeats):
        began = time.process_time()
        _piece_of_work()
        fastest = min(fastest, time.process_time() - began)
    return fastest / _PIECE_SECONDS


def _piece_of_work() -> None:
    for number in range(100):
        names = {f"name {index}": index * number % 7 for index in range(400)}
        json.loads(json.dumps(sorted(names.items(), key=str)))


def _cpu_model() -> str:
    """Name of the processor without its nominal frequency."""
    text = _text(Path("/proc/cpuinfo"))
    name = re.search(r"^(?:model name|Model|Hardware)\s*:\s*(.+)$", text, re.MULTILINE)
    model = name[1] if name else platform.processor() or platform.machine()
    if platform.system() == "Darwin":
        model = _output("sysctl", "-n", "machdep.cpu.brand_string") or model
    return re.sub(r"\s*@\s*[\d.]+\s*GHz", "", model).strip()


def _text(path: Path) -> str:
    """A file of the system in any encoding; empty where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _physical_cores() -> int | None:
    try:
        import psutil
    except ImportError:
        return None
    cores: int | None = psutil.cpu_count(logical=False)
    return cores


def usable_cores() -> int | None:
    """Cores that this process may use: fewer than the machine's under taskset, or with a container's share of time."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(filter(None, (cores, *_control_group_cores())), default=None)


def _control_group_cores(system: Path = Path("/")) -> Iterator[int]:
    """The limits of this process's control groups on CPU time, in cores, rounded up."""
    for folder, version in _control_groups("cpu", system):
        if version == 2:
            quota, _, period = _text(folder / "cpu.max").partition(" ")
        else:
            quota, period = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
        with contextlib.suppress(ValueError, ZeroDivisionError):  # no such group here, or "max"
            if int(quota) > 0:
                yield math.ceil(int(quota) / int(period))


def memory_gib() -> int | None:
    """Memory of the machine in GiB; None if unknown."""
    found = _physical_memory()
    return None if found is None else round(found / 2**30)


def usable_memory() -> int | None:
    """Bytes of memory that this process may use: less than the machine's in a container; None if unknown."""
    return min(filter(None, (_physical_memory(), *_control_group_limits())), default=None)


def _physical_memory() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _control_group_limits(system: Path = Path("/")) -> Iterator[int]:
    """The limits of this process's control groups on memory, in bytes."""
    for folder, version in _control_groups("memory", system):
        with contextlib.suppress(ValueError):  # no such group here, or "max"
            yield int(_text(folder / ("memory.max" if version == 2 else "memory.limit_in_bytes")))


def _control_groups(controller: str, system: Path) -> Iterator[tuple[Path, int]]:
    """The folders of this process's control group and of those above it, with the version of cgroup, 1 or 2.

    Inside a container the group may be named by its path outside, where only the root is visible."""
    for line in _text(system / "proc/self/cgroup").splitlines():
        controllers, _, group = line.partition(":")[2].partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        root = system / "sys/fs/cgroup" / (controller if controllers else "")
        place = root / group.lstrip("/")
        for folder in (place, *place.parents):
            if folder.is_relative_to(root):
                yield folder, 1 if controllers else 2


def thread_settings() -> dict[str, Any]:
    """Thread variables that are set, and torch's threads if torch is already imported."""
    settings: dict[str, Any] = {name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ}
    torch = sys.modules.get("torch")
    if torch is not None:
        settings["torch"] = torch.get_num_threads()
    return settings


def _gpu(device: str) -> dict[str, Any]:
    import torch

    facts = torch.cuda.get_device_properties(torch.device(device))
    driver = re.search(r"Module.*?(\d+\.[\d.]+)", _text(Path("/proc/driver/nvidia/version")))
    return {
        "name": facts.name,
        "memory_gib": round(facts.total_memory / 2**30),
        "capability": f"{facts.major}.{facts.minor}",
        "driver": driver[1] if driver else None,
        "cuda": torch.version.cuda,
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that can affect a number or a time."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_state(root: Path) -> dict[str, Any] | None:
    """The commit checked out at ``root`` and whether files differ from it; None outside a checkout or without git.

    METABENCH_COMMIT names the commit of files that were copied without their history."""
    if named := os.environ.get("METABENCH_COMMIT"):
        return {"commit": named, "dirty": False}
    commit = git(root, "rev-parse", "HEAD")
    inside = git(root, "ls-files", "--", ".")
    if not commit or not inside:  # an installation inside another checkout has no tracked file
        return None
    return {"commit": commit, "dirty": bool(git(root, "status", "--porcelain"))}


def git(root: Path, *arguments: str, seconds: float = 30) -> str | None:
    """Output of git in a folder; None if it fails or is not installed.

    Without the variables that git sets in a hook (GIT_DIR, GIT_INDEX_FILE and others): they would direct this call to
    the repository and the index of the hook."""
    environment = {name: value for name, value in os.environ.items() if name not in _local_variables()}
    return _output("git", "-C", str(root), *arguments, seconds=seconds, environment=environment)


@functools.cache
def _local_variables() -> frozenset[str]:
    return frozenset((_output("git", "rev-parse", "--local-env-vars") or "").split())


def _output(*command: str, seconds: float = 30, environment: Mapping[str, str] | None = None) -> str | None:
    """Output of a command; None if it fails or does not exist."""
    options: Any = {"encoding": "utf-8", "errors": "replace", "env": environment}
    try:
        done = subprocess.run(command, capture_output=True, timeout=seconds, check=True, **options)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
