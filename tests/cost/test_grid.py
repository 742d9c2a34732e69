"""The grids of the cost benchmark: the settings of the profiles, and the choice of the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.cost import grid
from benchmarks.cost.grid import Choice, Variant
from benchmarks.cost.workloads import WORKLOADS
from benchmarks.errors import MetabenchError

#: a complete grid
GRID = """[[cost.quick.grids]]
backbones = ["mlp-40-40"]
inner_steps = [1]
meta_batches = [4]
orders = ["second", "first"]
implementations = ["loop"]
rounds = 5
seconds = 1
limit = 60
"""


@pytest.mark.parametrize("profile", grid.profiles())
def test_every_profile_is_a_list_of_settings(profile: str) -> None:
    found = grid.settings(profile)
    assert found
    assert {each.backbone for each in found} <= set(WORKLOADS)
    for each in found:
        orders = {variant.order for variant in each.variants}
        assert orders == {"first"} if each.work == "evaluation" else "second" in orders
        assert grid.from_plain(json.loads(json.dumps(grid.plain(each)))) == each


def test_ours_stands_for_every_plan_unless_one_is_forced() -> None:
    labels = [variant.label for variant in grid.variants(["ours", "loop"], ["first"])]
    assert labels[:2] == ["ours/rule", "ours/eager"]
    assert {"ours/compiled", "ours/all", "ours/one"} < set(labels)
    assert labels[-1] == "loop"
    assert [v.label for v in grid.variants(["ours", "loop"], ["first"], plan="one")] == ["ours/one", "loop"]


def test_the_command_line_replaces_the_lists_of_the_profile() -> None:
    """Inner steps and meta-batches are those of training, unless an evaluation is asked for."""
    (only,) = grid.settings("quick", Choice(["mlp-40-40"], [7], [2], ["second"], ["loop"]))
    assert (only.backbone, only.inner_steps, only.meta_batch) == ("mlp-40-40", 7, 2)
    assert only.variants == (Variant("second", "loop"),)
    backbone = "conv4-64-strided"
    assert {each.work for each in grid.settings("standard", Choice([backbone]))} == {"meta-step", "evaluation"}
    assert {each.work for each in grid.settings("standard", Choice([backbone], [3]))} == {"meta-step"}
    (only,) = grid.settings("standard", Choice([backbone], [3], [7], work="evaluation"))
    assert (only.work, only.inner_steps, only.meta_batch) == ("evaluation", 3, 7)
    assert str(only) == "conv4-64-strided, 7 episodes evaluated, 3 inner steps"
    with pytest.raises(MetabenchError, match="has no setting like that"):
        grid.settings("standard", Choice([backbone], orders=["second"], work="evaluation"))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--device", "cuda"], "device 'cuda' is missing: torch"),
        (["--device", "tpu"], "unknown device 'tpu'; known: cpu, cuda, cuda:N"),
        (["-i", "lop"], "unknown implementation 'lop' (did you mean 'loop'?); known: "),
        (["-i", "ours/fast"], "unknown plan of 'ours' 'fast'; known: "),
        (["-b", "conv5"], "unknown backbone 'conv5' (did you mean 'conv4-64'?); known: "),
        (["--plan", "fast"], "unknown plan of 'ours' 'fast'; known: "),
        (["--order", "third"], "unknown order 'third'; known: "),
        (["--work", "training"], "unknown work 'training'; known: "),
        (["--profile", "quik"], "unknown cost profile 'quik' (did you mean 'quick'?); known: "),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(
    options: list[str], told: str, tmp_path: Path, command_line: Callable[..., Any]
) -> None:
    if options[-1] == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    answer = command_line("cost", *options, "--store", tmp_path / "store")
    assert answer.code == 2
    (line,) = answer.err.strip().splitlines()
    assert line.startswith("metabench: ")
    assert told in line
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[cost.quick]\ngrids = 3", "write each grid as a block"),
        ("[cost.quick", "is not TOML"),
        ("[[cost.quick.grids]]\nbackbone = ['a']", "unknown key of cost profile 'quick' 'backbone'"),
        ("[[cost.quick.grids]]\nbackbones = ['mlp-40-40']", "a grid lacks inner_steps"),
        ("[[cost.quick.grids]]\nrounds = 0", "rounds = 0 is not above 0"),
        ("[[cost.quick.grids]]\nrounds = 'many'", "rounds = 'many' is str"),
        (f"{GRID}work = 'training'", "unknown work of cost profile 'quick' 'training'"),
        (f"{GRID}work = 'evaluation'", "an evaluation keeps no graph"),
        ("[cost.other]\ngrids = []", "unknown cost profile 'quick'"),
    ],
)
def test_a_mistake_in_the_file_is_one_line(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "cost.toml").write_text(text)
    with pytest.raises(MetabenchError, match=told) as caught:
        grid.settings("quick", path=tmp_path / "cost.toml")
    assert "\n" not in str(caught.value)
