"""``metabench gate``: its options, its findings in words, and its exit code."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

if TYPE_CHECKING:
    from benchmarks.gate import exact, history


def gate(
    accept: Annotated[bool, Option("--accept", help="Make the present counts the committed ones.")] = False,
    base: Annotated[
        str | None, Option(metavar="COMMIT", help="Compare with it; default: METABENCH_GATE_BASE, else HEAD~1.")
    ] = None,
    exact_only: Annotated[bool, Option("--exact-only", help="Only count.")] = False,
    untimed: Annotated[bool, Option("--untimed", help="Count and train, but don't time.")] = False,
    seconds: Annotated[
        float, Option(metavar="S", min=1, help="Time limit of timing; a slower step is timed again after it.")
    ] = 60.0,
    past: Annotated[
        Path | None,
        Option("--history", metavar="FILE", help="Add counts and times to it; default: METABENCH_GATE_HISTORY."),
    ] = None,
) -> None:
    """Check whether anything is slower or worse: counts against committed ones, scores and times against another
    commit.

    Exit code: 0 if nothing is, 1 if something is, 2 for a mistake in the command."""
    from benchmarks.gate import exact, history

    # bad files and commits end the run here, before minutes of work
    known = exact.read()
    commits = None if exact_only or accept else _commits(base)
    kept = history.History(history.path(past)) if commits or (past and not accept) else None
    failed = _exact(accept, known, kept)
    if commits and kept:
        failed = _against(*commits, None if untimed else seconds, kept) or failed
    if failed:
        raise typer.Exit(1)


def _exact(accept: bool, known: Mapping[str, Mapping[str, exact.Counts]], kept: history.History | None) -> bool:
    """Whether a committed count has changed; the history keeps which."""
    from benchmarks.gate import checkouts, exact

    now, version = exact.measure(), exact.torch_version()
    if accept:
        exact.accept(now, version)
        typer.echo(f"{exact.FILE.name} holds the counts of torch {version}: commit it with the change")
        return False
    findings = list(exact.compare(now, known, version))
    for finding in findings:
        typer.echo(f"exact: {finding.step}: {finding.verdict}" + (f": {finding.message}" if finding.message else ""))
    changed = [finding.step for finding in findings if finding.verdict == "changed"]
    if kept and version in known and checkouts.edited():
        typer.echo("trend: code differs from HEAD; its counts are not added to the history")
    elif kept and version in known:
        kept.add_counts(checkouts.resolve("HEAD"), len(now), changed)
    if changed:
        typer.echo(
            "exact: if the change is intended, run `metabench gate --accept` and commit "
            f"benchmarks/gate/{exact.FILE.name} with it, so that a review sees its cost"
        )
    return bool(changed)


def _commits(base: str | None) -> tuple[str, str] | None:
    """The commits to compare; None, after a line about it, if there is no commit before this one."""
    from benchmarks.gate import checkouts

    revision = base or checkouts.default_base()
    if revision is None:
        typer.echo("quality, relative: no baseline: there is no commit before this one")
        return None
    return checkouts.resolve(revision), checkouts.resolve("HEAD")


def _against(before: str, now: str, seconds: float | None, kept: history.History) -> bool:
    """Whether a score is worse or a step slower than in the base commit. seconds: None: don't time."""
    from benchmarks.gate import checkouts

    if checkouts.uncommitted():
        typer.echo("quality, relative: files differ from HEAD; HEAD is measured")
    if before != now and checkouts.unchanged(before, now):
        typer.echo(f"quality, relative: same: no code differs from {before[:10]}")
        return False
    with checkouts.worktrees(before, now) as paths:
        worse = _quality(paths)
        slower = seconds is not None and _relative(paths, seconds, now, kept)
    if worse or slower:
        what = " and ".join(name for name, found in (("worse", worse), ("slower", slower)) if found)
        typer.echo(
            f"{what} than {before[:10]}: if that is intended, say in the commit message what it buys; there is nothing "
            "to accept, since the next change is compared with this one"
        )
    return worse or slower


def _quality(paths: Mapping[str, Path]) -> bool:
    """Whether a score dropped."""
    from benchmarks.gate import quality

    sides = quality.train(paths)
    findings = quality.compare(sides["base"], sides["head"])
    for one in findings:
        told = (
            f"{one.means[0]:.4g} -> {one.means[1]:.4g}, better by {one.advantage:.3g} [{one.low:.3g}, {one.high:.3g}]"
        )
        typer.echo(f"quality: {one.run}: {one.verdict}: {one.message or told}")
    return any(one.verdict == "worse" for one in findings)


def _relative(paths: Mapping[str, Path], seconds: float, now: str, kept: history.History) -> bool:
    """Whether a step is slower; the times of head go into the history of this machine."""
    from benchmarks.gate import relative, timed

    findings = relative.compare(
        lambda names: relative.time_pair(paths, names),
        list(timed.STEPS),
        seconds,
        line=lambda text: typer.echo(f"relative: {text}"),
    )
    for one in findings:
        found = one.decision
        told = f"{found.ratio:.3f} [{found.low:.3f}, {found.high:.3f}] of the time before, {found.pairs} pairs"
        told += f"{', timed twice' if one.repeated else ''}; pairs spread by {one.noise:.1%}"
        typer.echo(f"relative: {one.step}: {found.verdict}" + (f": {told}" if found.verdict != "no baseline" else ""))
    count = kept.add(now, {one.step: one.seconds for one in findings if one.seconds})
    if count:
        typer.echo(f"trend: {count} times added to {os.path.relpath(kept.file)}; `metabench report` shows it")
    for line in kept.steps_up():
        typer.echo(f"trend: {line}")
    return any(one.decision.verdict == "slower" for one in findings)
