"""``metabench compare``, ``power`` and ``episodes`` as a user meets them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pandas as pd
import pytest

from benchmarks import comparing
from benchmarks.__main__ import main

specification = importlib.util.spec_from_file_location(
    "made_up_records", Path(__file__).with_name("made_up_records.py")
)
made_up = importlib.util.module_from_spec(specification)
specification.loader.exec_module(made_up)


@pytest.fixture
def metabench(monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["metabench", *map(str, arguments)])
        with pytest.raises(SystemExit) as ending:
            main()
        told = capsys.readouterr()
        return ending.value.code or 0, told.out, told.err

    return call


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


def test_two_methods_are_compared_with_the_numbers_of_the_table(store, metabench, tmp_path):
    code, out, err = metabench("compare", "maml", "fomaml", "--store", store, "-o", tmp_path / "table.csv")
    assert (code, err) == (0, "")
    frame = comparing.compare_methods(store, "maml", "fomaml")
    assert list(frame["verdict"]) == ["better", "better"]
    points = 100 * frame.set_index("task").loc["glyphs-v1/5w1s", ["advantage", "low", "high"]].astype(float)
    assert "{:+.2f} points [{:+.2f}, {:+.2f}]".format(*points) in out
    assert "factor" in out
    written = pd.read_csv(tmp_path / "table.csv")
    assert list(written["advantage"]) == pytest.approx(list(frame["advantage"]))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("compare", "nobody", "maml"), "'nobody' is no store, no commit and no method"),
        (("compare", "theirs.parquet"), "theirs.parquet"),
        (("power", "--delta", "-1"), "--delta must be above 0"),
        (("power", "--delta", "1", "-m", "nobody"), "unknown method 'nobody'"),
        (("episodes", "nothing-v1"), "nothing"),
        (("episodes", "sinusoid-v1/k10", "-n", "0"), "0 episodes"),
    ],
)
def test_a_mistake_is_one_line(store, metabench, arguments, named):
    place = () if arguments[0] == "episodes" else ("--store", store)
    code, out, err = metabench(*arguments, *place)
    assert (code, out) == (2, "")
    assert named in err
    assert err.count("\n") == 1


def test_scores_on_other_episodes_are_refused_in_one_line(store, metabench, tmp_path):
    rows = [(episode, query, 1.0) for episode in range(100) for query in range(10)]
    theirs = pd.DataFrame(rows, columns=["episode", "query", "score"]).assign(
        task="glyphs-v1/5w1s", episodes_digest="0" * 16
    )
    theirs.to_parquet(tmp_path / "theirs.parquet")
    code, _, err = metabench("compare", tmp_path / "theirs.parquet", "--store", store)
    assert code == 2
    assert "episodes_digest 0000000000000000 is not that of our first 100" in err
    assert err.count("\n") == 1


def test_power_says_how_many_episodes(store, metabench):
    code, out, _ = metabench("power", "--delta", "0.5", "--store", store)
    assert code == 0
    for line in comparing.power_table(store, 0.5).to_dict("records"):
        assert f"{line['power']:.0%}" in out
        assert f"{line['episodes_needed']:,.0f}" in out


def test_episodes_are_exported_with_their_digest(metabench, tmp_path):
    code, out, _ = metabench("episodes", "sinusoid-v1/k10", "-n", "4", "-o", tmp_path / "deep" / "list.parquet")
    assert code == 0
    frame = pd.read_parquet(tmp_path / "deep" / "list.parquet")
    assert sorted(frame["episode"].unique()) == [0, 1, 2, 3]
    assert frame["episodes_digest"].iloc[0] in out
