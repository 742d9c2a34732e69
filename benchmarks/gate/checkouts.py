"""Two commits side by side: git worktrees of base and head, and scripts of the gate that run the code of either."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.errors import MetabenchError

ROOT = Path(__file__).parents[2]
#: what a change must touch to make a step slower or a score worse
CODE = ("benchmarks", "maml", "baselines", "constraints.txt", "pyproject.toml")


def default_base() -> str | None:
    """The commit to compare with: METABENCH_GATE_BASE, else the one before this one; None where there is none.

    Only zeros, which is what GitHub calls the state before a branch, is none given."""
    given = os.environ.get("METABENCH_GATE_BASE", "").strip()
    if given.strip("0"):
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
    """Whether nothing differs between two commits that could make a step slower or a score worse."""
    return _git("diff", "--quiet", base, head, "--", *CODE) is not None


def uncommitted() -> bool:
    """Whether files differ from HEAD, which is what is measured."""
    return bool(_git("status", "--porcelain", "--untracked-files=no"))


@contextlib.contextmanager
def worktrees(base: str, head: str) -> Iterator[dict[str, Path]]:
    """Check both commits out into a temporary folder: "base" and "head" -> path."""
    with tempfile.TemporaryDirectory(prefix="metabench-gate-") as folder:
        paths = {side: Path(folder).resolve() / side for side in ("base", "head")}
        try:
            for side, commit in (("base", base), ("head", head)):
                if _git("worktree", "add", "--detach", "--force", str(paths[side]), commit) is None:
                    raise MetabenchError(f"git can't make a worktree of {commit} in {folder}")
            yield paths
        finally:
            for path in paths.values():
                _git("worktree", "remove", "--force", str(path))


def run_script(
    script: Path, checkout: Path, arguments: Sequence[str], seconds: float, variables: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """What a script prints in a fresh process that imports the code of ``checkout``, with one thread: JSON in its last
    line. Raises `MetabenchError` in one line where it fails or takes longer than ``seconds``."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), **(variables or {})}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": ""}
    command = [sys.executable, "-P", str(script), *arguments]
    try:
        done = subprocess.run(command, env=environment, cwd=checkout, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise MetabenchError(f"{script.name} on {checkout.name} took longer than {seconds:.0f} s") from None
    if done.returncode:
        said = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise MetabenchError(f"{script.name} on {checkout.name} failed: {said}")
    try:
        found = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        raise MetabenchError(f"{script.name} on {checkout.name} printed no JSON") from None
    assert isinstance(found, dict)
    return found
