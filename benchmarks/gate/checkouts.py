"""Two commits side by side: git worktrees of base and head, and scripts of the gate that run the code of either."""

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


def run_script(script: Path, checkout: Path, arguments: Sequence[str], seconds: float) -> dict[str, Any]:
    """What a script prints in a fresh process that imports the code of ``checkout``, with one thread: JSON in one line.
    Raises `MetabenchError` in one line where it fails or takes longer than ``seconds``."""
    with Conversation(script, checkout, arguments, seconds) as process:
        found = process.hear()
        assert isinstance(found, dict)
        return found


class Conversation:
    """A script in a fresh process that imports the code of ``checkout``, with one thread, and speaks JSON, a line at a
    time. Raises `MetabenchError` in one line where it fails, says something else, or is still there after ``seconds``.

    slower: what `timed` is told to plant."""

    def __init__(
        self,
        script: Path,
        checkout: Path,
        arguments: Sequence[str],
        seconds: float,
        slower: float = 1.0,
    ) -> None:
        self.name, self.seconds, self.late = f"{script.name} on {checkout.name}", seconds, False
        environment = {**os.environ, "PYTHONPATH": str(checkout), "METABENCH_GATE_SLOWER": str(slower)}
        environment |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": ""}
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  a pipe that nobody reads could fill up
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(script), *arguments],
            env=environment,
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
        """What the script answers to one line."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended, and says why when it is heard
            self.process.stdin.write(json.dumps(words) + "\n")
            self.process.stdin.flush()
        return self.hear()

    def hear(self) -> Any:
        """The next line that the script prints."""
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
