"""``metabench compare``, ``power`` and ``episodes`` as a user meets them."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import made_up_records as made_up
import pandas as pd
import pytest

from benchmarks.commands import console
from benchmarks.compare import stores
from reports.cost import terminal
from reports.results import load

QUICK = Path(__file__).parents[2] / "reports" / "reference" / "quick"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    make = made_up.Maker(folder, episodes=100)
    for seed in (0, 1):
        make.evaluation("maml", made_up.GLYPHS, seed, regime="query", level=0.9)
        make.evaluation("fomaml", made_up.GLYPHS, seed, regime="query", level=0.6)
        make.evaluation("maml", made_up.SINUSOID, seed, level=0.4)
        make.evaluation("fomaml", made_up.SINUSOID, seed, level=0.8)
    return folder


@pytest.fixture
def quick_power(monkeypatch):
    """The power table of the committed records, which the command then shows without computing it again."""
    monkeypatch.setattr(stores, "power_table", lambda store, delta, methods=(): powers(store, delta))
    return powers(QUICK, 1.0)


powers = functools.cache(stores.power_table)


def test_two_methods_are_compared_with_the_numbers_of_the_table(store, command_line, tmp_path):
    answer = command_line("compare", "maml", "fomaml", "--store", store, "-o", tmp_path / "table.csv")
    assert (answer.code, answer.err) == (0, "")
    frame = stores.compare("maml", "fomaml", store)
    assert list(frame["verdict"]) == ["better", "better"]
    points = 100 * frame.set_index("task").loc["glyphs-v1/5w1s", ["advantage", "low", "high"]].astype(float)
    assert "{:+.2f} points [{:+.2f}, {:+.2f}]".format(*points) in answer.out
    assert "factor" in answer.out
    written = pd.read_csv(tmp_path / "table.csv")
    assert list(written["advantage"]) == pytest.approx(list(frame["advantage"]))


@pytest.mark.fault("S6", "S9")
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("compare", "nobody", "maml"), "'nobody' is no store, no commit and no method"),
        (("compare", "theirs.parquet"), "theirs.parquet is no parquet file: name one with scores, or a second method"),
        (("compare", "maml"), "maml is no parquet file: name one with scores, or a second method"),
        (("compare", "maml", "maml"), "'maml' and 'maml' are the same"),
        (("power", "--delta", "-1"), "--delta -1: a difference is a finite number above 0"),
        (("power", "--delta", "inf"), "--delta inf: a difference is a finite number above 0"),
        (("power", "--delta", "1", "-m", "nobody"), "unknown method in"),
        (("episodes", "nothing-v1"), "nothing"),
        (("episodes", "sinusoid-v1/k10", "-n", "0"), "0 episodes"),
        (("episodes", "sinusoid-v1/k10", "-n", 10**20), "100,000 is the most"),
        (("episodes", "sinusoid-v1/k10", "-o", ""), "an empty path"),
    ],
)
def test_a_mistake_is_one_line(store, command_line, arguments, named):
    place = () if arguments[0] == "episodes" else ("--store", store)
    answer = command_line(*arguments, *place)
    assert (answer.code, answer.out) == (2, "")
    assert named in answer.err
    assert answer.err.count("\n") == 1


def test_scores_on_other_episodes_are_refused_in_one_line(store, command_line, tmp_path):
    rows = [(episode, query, 1.0) for episode in range(100) for query in range(10)]
    theirs = pd.DataFrame(rows, columns=["episode", "query", "score"]).assign(
        task="glyphs-v1/5w1s", episodes_digest="0" * 16
    )
    theirs.to_parquet(tmp_path / "theirs.parquet")
    answer = command_line("compare", tmp_path / "theirs.parquet", "--store", store)
    assert answer.code == 2
    assert "episodes_digest 0000000000000000 is not that of our first 100" in answer.err
    assert answer.err.count("\n") == 1


@pytest.mark.fault("U6")
def test_power_says_how_many_episodes(store, command_line):
    answer = command_line("power", "--delta", "0.5", "--store", store, "-m", "maml,fomaml")
    assert answer.code == 0
    assert "0.5 points of accuracy" in answer.out
    assert "0.5 % of the error" in answer.out
    for line in stores.power_table(store, 0.5).to_dict("records"):
        assert f"{line['power']:.0%}" in answer.out
        assert f"{line['episodes_needed']:,.0f}" in answer.out


@pytest.mark.fault("U5", "U6")
def test_power_of_many_pairs_is_a_line_per_test(command_line, monkeypatch, quick_power):
    monkeypatch.setenv("COLUMNS", "80")
    frame = quick_power
    short = command_line("power", "--delta", "1", "--store", QUICK).out
    assert len(short.splitlines()) <= 60
    assert "every pair: --all" in short.lower()
    monkeypatch.setenv("COLUMNS", "200")
    wide = command_line("power", "--delta", "1", "--store", QUICK).out
    for test, group in frame[frame["scope"] == "models"].groupby("test"):
        power = f"{group['power'].median():.0%}"
        assert re.search(rf"^{re.escape(test)}: 1 .* models +{len(group)} +{power} ", wide, re.MULTILINE), test
    every = command_line("power", "--delta", "1", "--store", QUICK, "--all").out
    assert sum(line.count("%") for line in every.splitlines()[1:] if " - " in line) == len(frame)


@pytest.mark.fault("U5")
@pytest.mark.parametrize("command", [("compare", "maml", "fomaml"), ("power", "--delta", "1", "--all"), ("cost",)])
def test_tables_of_80_columns_have_whole_words(command_line, monkeypatch, quick_power, command):
    monkeypatch.setenv("COLUMNS", "80")
    if command == ("cost",):
        shown = console.screen(80)
        with shown.capture() as taken:
            terminal.show(load(QUICK).costs, shown)
        out = taken.get()
        known = {"gradient", "error", "implementation,", "operations", "second", "first", "learn2learn,", "ours/rule,"}
    else:
        out = command_line(*command, "--store", QUICK).out
        known = {"maml", "fomaml", "models", "omniglot-v1/5w1s,", "half-cheetah-direction-v2/quick,"}
        known |= {"under-trained"} if command[0] == "compare" else {"nearest-neighbour-embedding"}
    assert max(map(len, out.splitlines())) <= 80
    assert "…" not in out
    assert known <= {word.strip(":") for word in out.split()} | set(out.split())


def test_what_only_one_store_has_is_said_below_the_table(command_line, tmp_path):
    for name, methods in (("mine", ("maml", "fomaml", "finetune")), ("yours", ("maml",))):
        make = made_up.Maker(tmp_path / name)
        for method in methods:
            make.evaluation(method, made_up.SINUSOID, level=0.4)
    answer = command_line("compare", tmp_path / "mine", tmp_path / "yours", "-o", tmp_path / "table.csv")
    assert answer.code == 0
    table, below = answer.out.split("only in ", 1)
    assert "maml" in table
    assert "finetune" not in table
    assert " ".join(below.split()).startswith(f"{tmp_path / 'mine'}: fomaml, finetune (sinusoid-v1/k10, 10-shot)")
    assert list(pd.read_csv(tmp_path / "table.csv")["verdict"]) == ["equivalent", "can't say", "can't say"]


@pytest.mark.parametrize("arguments", [("compare", "maml", "fomaml"), ("power", "--delta", "1")])
def test_last_checkpoints_are_told_from_the_best(command_line, tmp_path, arguments):
    make = made_up.Maker(tmp_path)
    for model in ("best", "last"):
        for method, level in (("maml", 0.4), ("fomaml", 0.8)):
            make.evaluation(method, made_up.SINUSOID, level=level, model=model)
    answer = command_line(*arguments, "--store", tmp_path)
    assert answer.code == 0
    assert answer.out.count("sinusoid-v1/k10, 10-shot") == 2
    assert " ".join(answer.out.split()).count("10-shot, last checkpoint") == 1


def test_episodes_are_exported_with_their_digest(command_line, tmp_path):
    answer = command_line("episodes", "sinusoid-v1/k10", "-n", "4", "-o", tmp_path / "deep" / "list.parquet")
    assert answer.code == 0
    frame = pd.read_parquet(tmp_path / "deep" / "list.parquet")
    assert sorted(frame["episode"].unique()) == [0, 1, 2, 3]
    assert frame["episodes_digest"].iloc[0] in answer.out
    assert str(tmp_path / "deep" / "list.parquet") in answer.out


def test_episodes_say_where_they_are_written(command_line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer = command_line("episodes", "sinusoid-v1/k10", "-n", "2")
    assert f"wrote {tmp_path / 'sinusoid-v1-k10-2.parquet'}: " in answer.out
    assert (tmp_path / "sinusoid-v1-k10-2.parquet").is_file()
