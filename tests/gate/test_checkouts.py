"""Two commits next to each other: which are compared, whose repository is touched, and scripts that fail."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.errors import MetabenchError
from benchmarks.gate import checkouts

ROOT = Path(__file__).parents[2]


def git(root: Path, *words: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "protocol.file.allow=always")
    done = subprocess.run(["git", "-C", str(root), *identity, *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_both_commits_are_checked_out_and_nothing_is_left(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with the variables of a hook of another repository, which would be touched in this one's place."""
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    with monkeypatch.context() as hook:
        for name, value in {"GIT_DIR": ".git", "GIT_WORK_TREE": ".", "GIT_INDEX_FILE": ".git/index"}.items():
            hook.setenv(name, str(other / value))
        with checkouts.worktrees(checkouts.resolve("HEAD~1"), checkouts.resolve("HEAD")) as paths:
            texts = {side: (path / "maml" / "x.py").read_text() for side, path in paths.items()}
    assert texts == {"base": "x = 1", "head": "x = 2"}
    assert len(git(repository, "worktree", "list").splitlines()) == 1
    assert [path.name for path in other.iterdir()] == [".git"]


@pytest.mark.fault("E1")
@pytest.mark.skipif(os.name == "nt", reason="the hook is a shell script")
def test_a_pre_commit_hook_that_makes_worktrees_leaves_the_commit_alone(repository: Path, tmp_path: Path) -> None:
    """In a linked worktree git sets GIT_INDEX_FILE for hooks; the user's commit became empty."""
    linked = tmp_path / "linked"
    git(repository, "worktree", "add", "-q", str(linked))
    code = (
        "from pathlib import Path; from benchmarks.gate import checkouts as c; c.ROOT = Path.cwd()\n"
        "with c.worktrees(c.resolve('HEAD~1'), c.resolve('HEAD')): pass"
    )
    hook = repository / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -c "{code}"\n')
    hook.chmod(hook.stat().st_mode | stat.S_IXUSR)
    (linked / "maml" / "x.py").write_text("x = 3")
    git(linked, "commit", "-q", "-a", "-m", "3")
    assert git(linked, "show", "HEAD:maml/x.py") == "x = 3"
    assert git(linked, "status", "--porcelain") == ""


def test_one_function_of_the_suite_calls_git() -> None:
    folders = [ROOT / name for name in ("benchmarks", "maml", "baselines", "reports")]
    texts = {path: path.read_text(encoding="utf-8") for folder in folders for path in folder.rglob("*.py")}
    calling = [path.name for path, text in texts.items() if '("git", ' in text or '["git", ' in text]
    assert calling == ["machine.py"]


def test_the_base_is_the_commit_before_unless_one_is_named(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert checkouts.default_base() == "HEAD~1"
    monkeypatch.setenv("METABENCH_GATE_BASE", "main~5")
    assert checkouts.default_base() == "main~5"
    with pytest.raises(MetabenchError, match=r"no commit 'main~5' in .* \(METABENCH_GATE_BASE, --base\)$"):
        checkouts.resolve("main~5")
    monkeypatch.setenv("METABENCH_GATE_BASE", 40 * "0")
    assert checkouts.default_base() == "HEAD~1"
    git(repository, "checkout", "-q", "HEAD~1")
    assert checkouts.default_base() is None


@pytest.mark.fault("E6")
def test_a_shallow_clone_is_told_from_a_first_commit(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{repository}", "shallow")
    monkeypatch.setattr(checkouts, "ROOT", tmp_path / "shallow")
    with pytest.raises(MetabenchError, match=r"is a shallow clone without the commit before HEAD: run git fetch"):
        checkouts.default_base()
    with pytest.raises(MetabenchError, match=r"no commit 'HEAD~3' .*; the clone is shallow: git fetch --unshallow$"):
        checkouts.resolve("HEAD~3")


def test_only_a_change_of_code_makes_a_difference(repository: Path) -> None:
    assert not checkouts.unchanged("HEAD~1", "HEAD")
    (repository / "README.md").write_text("words")
    git(repository, "add", ".")
    git(repository, "commit", "-q", "-m", "words")
    assert checkouts.unchanged("HEAD~1", "HEAD")
    assert not checkouts.uncommitted()
    (repository / "maml" / "x.py").write_text("x = 3")
    assert checkouts.uncommitted()


@pytest.mark.parametrize(
    ("code", "seconds", "told"),
    [
        ("import time; time.sleep(60)", 1, r"^script.py on .* took longer than 1 s$"),
        ("", 20, r"^script.py on .* printed no JSON$"),
        ("print('words')", 20, r"^script.py on .* printed no JSON$"),
        ("print(1 / 0)", 20, r"^script.py on .* failed: ZeroDivisionError: division by zero$"),
    ],
)
def test_a_script_that_fails_is_told_in_one_line(tmp_path: Path, code: str, seconds: float, told: str) -> None:
    (tmp_path / "script.py").write_text(code)
    with pytest.raises(MetabenchError, match=told):
        checkouts.run_script(tmp_path / "script.py", tmp_path, [], seconds)
