"""Two commits next to each other: git worktrees of base and head, and scripts of the gate that run the code of
either."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.errors import MetabenchError
from benchmarks.machine import git

ROOT = Path(__file__).parents[2]
#: a change that touches none of these makes no step slower and no score worse
CODE = ("benchmarks", "maml", "baselines", "constraints.txt", "pyproject.toml")
#: seconds that a git command may take: a worktree of a large repository takes a while
GIT_SECONDS = 120.0


def default_base() -> str | None:
    """The revision to compare with: METABENCH_GATE_BASE, else HEAD~1; None if this is the first commit.

    A value of zeros, GitHub's name for the state before a new branch, counts as unset. Raises `MetabenchError` in a
    shallow clone, which lacks the commit before."""
    given = os.environ.get("METABENCH_GATE_BASE", "").strip()
    if given.strip("0"):
        return given
    if _commit("HEAD~1"):
        return "HEAD~1"
    if _shallow():
        raise MetabenchError(f"{ROOT} is a shallow clone without the commit before HEAD: run git fetch --deepen=1")
    return None


def resolve(revision: str) -> str:
    """The commit that a revision names."""
    found = _commit(revision)
    if found is None:
        hint = "; the clone is shallow: git fetch --unshallow" if _shallow() else ""
        raise MetabenchError(f"no commit {revision!r} in {ROOT} to compare with (METABENCH_GATE_BASE, --base){hint}")
    return found


def _commit(revision: str) -> str | None:
    return _git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")


def _shallow() -> bool:
    return _git("rev-parse", "--is-shallow-repository") == "true"


def _git(*arguments: str) -> str | None:
    return git(ROOT, *arguments, seconds=GIT_SECONDS)


def unchanged(base: str, head: str) -> bool:
    """Whether no code differs between two commits."""
    return _git("diff", "--quiet", base, head, "--", *CODE) is not None


def edited() -> bool:
    """Whether code differs from HEAD: what is counted then is of no commit."""
    return _git("diff", "--quiet", "HEAD", "--", *CODE) is None


def uncommitted() -> bool:
    """Whether files differ from HEAD, the commit that is measured."""
    return bool(_git("status", "--porcelain", "--untracked-files=no"))


@contextlib.contextmanager
def worktrees(base: str, head: str) -> Iterator[dict[str, Path]]:
    """Check both commits out into a temporary folder; yields the paths of "base" and "head"."""
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


def run_script(script: Path, checkout: Path, arguments: Sequence[str], seconds: float) -> dict[str, Any]:
    """The line of JSON that a script prints; as in `Conversation`."""
    with Conversation(script, checkout, arguments, seconds) as process:
        found = process.hear()
        assert isinstance(found, dict)
        return found


class Conversation:
    """A script in a fresh process with one thread that imports the code of ``checkout`` and speaks JSON in lines.

    Raises `MetabenchError` if the script fails, prints anything else, or takes longer than ``seconds``."""

    def __init__(self, script: Path, checkout: Path, arguments: Sequence[str], seconds: float) -> None:
        self.name, self.seconds, self.late = f"{script.name} on {checkout.name}", seconds, False
        environment = {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": ""}
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  a pipe that is not read could fill up
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(script), *arguments],
            env={**os.environ, **environment},
            cwd=checkout,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
        )
        self.alarm = threading.Timer(seconds, self._end)
        self.alarm.start()

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, *raised: object) -> None:
        self.alarm.cancel()
        self.process.kill()
        self.process.communicate()
        self.errors.close()

    def _end(self) -> None:
        self.late = True
        self.process.kill()

    def ask(self, *words: Any) -> Any:
        """The answer to one line."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the script has ended; `hear` tells why
            self.process.stdin.write(json.dumps(words) + "\n")
            self.process.stdin.flush()
        return self.hear()

    def hear(self) -> Any:
        """The next line."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        try:
            return json.loads(line)
        except ValueError:
            raise MetabenchError(self._why(line)) from None

    def _why(self, line: str) -> str:
        code = None if line else self.process.wait()
        if self.late:
            return f"{self.name} took longer than {self.seconds:.0f} s"
        if not code:
            return f"{self.name} printed no JSON"
        self.errors.seek(0)
        return f"{self.name} failed: {(self.errors.read().strip() or f'exit code {code}').splitlines()[-1]}"
