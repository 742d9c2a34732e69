"""Odd command lines: never a traceback, never a hang; a mistake is one line, exit code 2, and leaves nothing behind."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from made_up_records import GLYPHS, SINUSOID, Maker
from whole_runs import Answer, profile

from benchmarks.commands.app import app

#: seconds after which a command line counts as hanging
PATIENCE = 120
ODD = (
    *("", " ", "-", "--", "=", ",", ".", "..", "/", "~", "\x00", "\n", "x\ny", "\ud800", "🙂", "٣", "a" * 5000),
    *("nan", "inf", "-inf", "-1", "0", "1e999", "10" * 30, "0x10", "1_0", "1.5", "True", "None", "[1]", "{}"),
    *("../../esc", "/dev/null", "/dev/full", "/proc/self/mem", "file.txt", "folder", "store", "./broken.py", "link"),
    *("tiny.toml", "./tiny.toml:none", "maml", "mamel", "maml,", ",maml", "maml,maml", "sinusoid", "sinusoid/k7"),
    *("sinusoid-v9/k5", "maml.inner_lr=x", "maml.inner_lr=", "maml.nothing=1", "sinusoid.device=cuda", "a.b.c=1"),
    *(
        "cuda:-1",
        "cpu:0",
        "eager,tasks=x",
        "all",
        "HEAD~99999",
        "store/records",
        "--help=1",
        "-h-",
        "-m",
        "scores.parquet",
    ),
)
NUMBERS = ("nan", "inf", "-inf", "-1", "0", "0.5", "1e999", "1e18", str(2**63), str(2**200), "1e-320", "007", "-0.0")
#: what keeps a command that would take long from starting: each line has a mistake of its own
MISTAKEN: dict[str, tuple[tuple[str, ...], ...]] = {
    "run": (
        *(("-p", "nowhere"), ("-p", "./tiny.toml", "-m", "nobody"), ("-p", "./tiny.toml", "-t", "sinusoid/k7")),
        *(("-p", "./tiny.toml", "--set", "constant.x=1"), ("-p", "./tiny.toml", "--device", "tpu")),
    ),
    "cost": (("--profile", "nowhere"), ("--profile", "smoke", "--device", "tpu")),
    "gate": (("--base", "nowhere"),),
    "prepare": (("-t", "nowhere"),),
    "doctor": (("--nowhere",),),
}
#: arguments and options that a command can't do without
NEEDED = {
    "target": "copies", "sources": "store", "into": "joined", "first": "maml", "second": "fomaml", "delta": "1",
    "task": "sinusoid/k5", "path": "./broken.py", "output": "scores.csv",
}  # fmt: skip
#: flags that would let these begin all the same
LEFT_OUT = {"--accept", "--exact-only", "--base", "--history", "--help", "--install-completion", "--show-completion"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small store and files of several kinds."""
    place = tmp_path / "one" / "two" / "three"
    make = Maker(place / "store", episodes=10)
    for label in ("maml", "fomaml"):
        make.evaluation(label, GLYPHS, regime="query", level=0.8)
        make.evaluation(label, SINUSOID, level=1.0)
    (place / "folder").mkdir()
    (place / "file.txt").write_text("words\n")
    (place / "scores.parquet").write_bytes(b"PAR1 no parquet PAR1")
    (place / "broken.py").write_text("def broken(:\n")
    (place / "tiny.toml").write_text(profile())
    (place / "link").symlink_to("link")
    monkeypatch.setenv("METABENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("METABENCH_DATA", raising=False)
    return place


@pytest.fixture
def no_hang() -> Iterator[Callable[[int], Any]]:
    def late(*_: object) -> None:
        raise TimeoutError(f"a command line took more than {PATIENCE} s")

    before = signal.signal(signal.SIGALRM, late)
    yield signal.alarm
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def odd_line(draw: random.Random) -> list[str]:
    """A command with odd values for some of its options and arguments, or hardly a command."""
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    if draw.random() < 0.05:
        return draw.choices(ODD, k=draw.randint(1, 3))
    name = draw.choice(sorted(commands))
    known = [each for each in commands[name].params if not LEFT_OUT & set(each.opts)]
    odd = draw.sample(known, min(len(known), draw.randint(1, 2)))
    line = [name]
    for parameter in known:
        if parameter in odd:
            value = draw.choice(draw.choice((ODD, NUMBERS)))
        elif parameter.required and draw.random() < 0.95:
            value = NEEDED[parameter.name]
        elif "--store" in parameter.opts:
            value = "store"
        else:
            continue
        named = [] if parameter.param_type_name == "argument" else [draw.choice(parameter.opts)]
        line += named if getattr(parameter, "is_flag", False) else [*named, value]
    return [*line, *draw.choice(MISTAKEN.get(name, ((),)))]


@pytest.mark.parametrize(
    "seeds", [range(12), pytest.param(range(12, 212), marks=pytest.mark.fuzz)], ids=["few", "many"]
)
def test_an_odd_command_line_is_answered(
    folder: Path, here: Callable[..., Answer], no_hang: Callable[[int], Any], seeds: range
) -> None:
    failures = []
    for seed in seeds:
        line = odd_line(random.Random(f"line {seed}"))
        before = set(folder.rglob("*"))
        no_hang(PATIENCE)
        try:
            answer = here(*line)
        except BaseException as error:
            failures.append((seed, line, repr(error)))
            continue
        no_hang(0)
        said = answer.err.splitlines()
        told = len(said) == 1 and said[0].startswith("metabench: ") and answer.out == ""
        new = set(folder.rglob("*")) - before
        if answer.code not in (0, 1, 2) or (answer.code == 2 and (not told or new)) or "Traceback" in answer.err:
            failures.append((seed, line, answer, new))
    assert failures == []
