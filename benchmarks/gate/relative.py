"""The relative layer: base and head in two worktrees, timed in alternated processes until every step is decided."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.errors import MetabenchError
from benchmarks.gate import timed
from benchmarks.gate.decision import LOOKS, Decision, decide, noise

ROOT = Path(__file__).parents[2]
#: what a change must touch to be timed at all
TIMED_PATHS = ("benchmarks", "maml", "baselines", "constraints.txt", "pyproject.toml")
#: seconds that a process of `timed` may take
PROCESS_SECONDS = 120.0
#: smallest change that counts, where it is not the default of 2 %; None: the default
THRESHOLDS: dict[str, float] = {"episodes, sinusoid": 0.05}

#: (side "base" or "head", names of steps) -> seconds of each, None where the side hasn't the step
Timer = Callable[[str, Sequence[str]], Mapping[str, float | None]]


@dataclass
class Series:
    """What the processes of both sides saw of one step, pair by pair; ``decision`` is the latest."""

    base: list[float] = field(default_factory=list)
    head: list[float] = field(default_factory=list)
    decision: Decision | None = None

    @property
    def open(self) -> bool:
        return self.decision is None or not self.decision.final


@dataclass(frozen=True)
class Finding:
    """The verdict on one step and how it was reached; noise is the spread of equal processes (of the base)."""

    step: str
    decision: Decision
    noise: float
    repeated: bool = False


def compare(
    timer: Timer,
    names: Sequence[str],
    seconds: float = float("inf"),
    thresholds: Mapping[str, float] = THRESHOLDS,
    line: Callable[[str], None] = lambda text: None,
) -> list[Finding]:
    """Time both sides until every step is decided; what is slower is timed once more from the start before it counts.

    seconds: no pair beyond the third is begun after so many (half of it the second time); what is open then can't be
    told."""
    end = time.monotonic() + seconds
    found = {step: _finding(step, series) for step, series in _alternate(timer, names, end, thresholds, line).items()}
    suspects = [step for step, finding in found.items() if finding.decision.verdict == "slower"]
    if suspects:
        line(f"slower, so timed once more: {'; '.join(suspects)}")
        again = _alternate(timer, suspects, time.monotonic() + seconds / 2, thresholds, line)
        found |= {step: _finding(step, series, repeated=True) for step, series in again.items()}
    return list(found.values())


def _alternate(
    timer: Timer, names: Sequence[str], end: float, thresholds: Mapping[str, float], line: Callable[[str], None]
) -> dict[str, Series]:
    series = {name: Series() for name in names}
    for pair in range(LOOKS[-1]):
        asked = [name for name, each in series.items() if each.open]
        if not asked or (pair >= LOOKS[0] and time.monotonic() > end):
            break
        # base first, then head first: a drift of the machine meets both
        for side in ("base", "head") if pair % 2 == 0 else ("head", "base"):
            for name, value in timer(side, asked).items():
                if value is not None:
                    getattr(series[name], side).append(value)
        if pair + 1 in LOOKS:
            line(f"{pair + 1} pairs of processes")
            for name in asked:
                series[name].decision = _decide(series[name], thresholds.get(name))
    return series


def _decide(series: Series, threshold: float | None) -> Decision:
    if not series.base or not series.head:
        nan = float("nan")
        return Decision("no baseline", nan, nan, nan, 0, True)
    pairs = min(len(series.base), len(series.head))
    arguments = () if threshold is None else (threshold,)
    return decide(series.base[:pairs], series.head[:pairs], *arguments)


def _finding(step: str, series: Series, repeated: bool = False) -> Finding:
    decision = series.decision or _decide(series, None)
    return Finding(step, decision, noise(series.base) if series.base else float("nan"), repeated)


def default_base() -> str | None:
    """The commit to compare with: METABENCH_GATE_BASE, else the one before this one; None where there is none."""
    given = os.environ.get("METABENCH_GATE_BASE")
    if given:
        return given
    return "HEAD~1" if _commit("HEAD~1") else None


def resolve(revision: str) -> str:
    """The commit that a revision names."""
    found = _commit(revision)
    if found is None:
        raise MetabenchError(f"no commit {revision!r} in {ROOT} to compare with (METABENCH_GATE_BASE, --base)")
    return found


def _commit(revision: str) -> str | None:
    return _git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def unchanged(base: str, head: str) -> bool:
    """Whether nothing differs between two commits that could make a step slower."""
    return _git("diff", "--quiet", base, head, "--", *TIMED_PATHS) is not None


def uncommitted() -> bool:
    """Whether files differ from HEAD, which is what is timed."""
    return bool(_git("status", "--porcelain", "--untracked-files=no"))


@contextlib.contextmanager
def worktrees(base: str, head: str) -> Iterator[Timer]:
    """Check both commits out into a temporary folder, and time either there."""
    with tempfile.TemporaryDirectory(prefix="metabench-gate-") as folder:
        paths = {side: Path(folder).resolve() / side for side in ("base", "head")}
        try:
            for side, commit in (("base", base), ("head", head)):
                if _git("worktree", "add", "--detach", "--force", str(paths[side]), commit) is None:
                    raise MetabenchError(f"git can't make a worktree of {commit} in {folder}")
            yield lambda side, names: time_steps(paths[side], names)
        finally:
            for path in paths.values():
                _git("worktree", "remove", "--force", str(path))


def time_steps(checkout: Path, names: Sequence[str], slower: float = 1.0) -> dict[str, float | None]:
    """What one fresh process sees of the code in ``checkout``: seconds per step by name."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "METABENCH_GATE_SLOWER": str(slower)}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": ""}
    command = [sys.executable, "-P", str(Path(timed.__file__)), *names]
    try:
        done = subprocess.run(
            command, env=environment, cwd=checkout, capture_output=True, text=True, timeout=PROCESS_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise MetabenchError(f"timing {checkout.name} took longer than {PROCESS_SECONDS:.0f} s") from None
    if done.returncode:
        raise MetabenchError(f"timing {checkout.name} failed: {(done.stderr.strip() or 'no output').splitlines()[-1]}")
    found: dict[str, float | None] = json.loads(done.stdout.splitlines()[-1])
    return found
