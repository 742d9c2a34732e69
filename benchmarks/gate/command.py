"""``metabench gate``: both layers, what they found in words, and the exit code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from benchmarks.gate.relative import Finding


def gate(
    accept: Annotated[bool, typer.Option("--accept", help="Make the counts of now the committed ones.")] = False,
    base: Annotated[
        str | None,
        typer.Option(metavar="COMMIT", help="Compare times with it; default: METABENCH_GATE_BASE, else HEAD~1."),
    ] = None,
    exact_only: Annotated[bool, typer.Option("--exact-only", help="Count, and time nothing.")] = False,
    seconds: Annotated[
        float, typer.Option(metavar="N", min=1, help="No pair of processes is begun after so many.")
    ] = 60.0,
) -> None:
    """Is anything slower than before? Counts against committed ones, times against the commit before.

    Exit code: 0 where nothing is, 1 where something is, 2 for a mistake in the command."""
    commits = None if exact_only or accept else _commits(base)
    changed = _exact(accept)
    slower = commits is not None and _relative(*commits, seconds)
    if changed or slower:
        raise typer.Exit(1)


def _exact(accept: bool) -> bool:
    """Whether a committed count has changed."""
    from benchmarks.gate import exact

    now, version = exact.measure(), exact.torch_version()
    if accept:
        exact.accept(now, version)
        typer.echo(f"{exact.FILE.name} holds the counts of torch {version}: commit it with the change")
        return False
    findings = list(exact.compare(now, exact.read(), version))
    for finding in findings:
        typer.echo(f"exact: {finding.step}: {finding.verdict}" + (f": {finding.message}" if finding.message else ""))
    changed = [finding for finding in findings if finding.verdict == "changed"]
    if changed:
        typer.echo(
            "exact: if the change is meant, run `metabench gate --accept` and commit "
            f"benchmarks/{exact.FILE.name} with it, so that its price is seen in review"
        )
    return bool(changed)


def _commits(base: str | None) -> tuple[str, str] | None:
    """The commits to compare; None, and a line about it, where there is nothing to compare with."""
    from benchmarks.gate import relative

    revision = base or relative.default_base()
    if revision is None:
        typer.echo("relative: no baseline: there is no commit before this one")
        return None
    return relative.resolve(revision), relative.resolve("HEAD")


def _relative(before: str, now: str, seconds: float) -> bool:
    """Whether a step is slower than in the base commit."""
    from benchmarks.gate import relative, timed

    if relative.uncommitted():
        typer.echo("relative: files differ from HEAD; the commit is timed, not they")
    if before != now and relative.unchanged(before, now):
        typer.echo(f"relative: same: no code differs from {before[:10]}")
        return False
    with relative.worktrees(before, now) as timer:
        findings = relative.compare(
            timer, list(timed.STEPS), seconds, line=lambda text: typer.echo(f"relative: {text}")
        )
    for finding in findings:
        typer.echo(f"relative: {_said(finding)}")
    return any(finding.decision.verdict == "slower" for finding in findings)


def _said(finding: Finding) -> str:
    decision = finding.decision
    if decision.verdict == "no baseline":
        return f"{finding.step}: no baseline"
    interval = f"{decision.ratio:.3f} [{decision.low:.3f}, {decision.high:.3f}] of the time before"
    again = ", timed twice" if finding.repeated else ""
    return (
        f"{finding.step}: {decision.verdict}: {interval}, {decision.pairs} pairs{again}; "
        f"equal processes spread by {finding.noise:.1%}"
    )
