"""Mistakes that would end a run late are told in one line before it begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import benchmarks as mb
from benchmarks.errors import MetabenchError


@pytest.mark.parametrize(
    ("method", "tasks", "options", "line"),
    [
        ("maml", "sinusoid/k5", {"settings": {"maml.backbone": "conv4-64"}}, "takes no inputs of shape [1]"),
        ("maml", "sinusoid/k5", {"settings": {"maml.backbone": "wide"}}, "can't be trained: unknown backbone 'wide'"),
        ("maml", "glyphs/5w1s", {"shots": [50]}, "50 shots and 15 queries per class need 65 images"),
    ],
)
def test_what_would_end_a_run_after_its_training_is_one_line_before(
    tmp_path: Path, method: str, tasks: str, options: dict[str, Any], line: str
) -> None:
    with pytest.raises(MetabenchError) as error:
        mb.run(methods=method, tasks=tasks, store=tmp_path / "new", **options)
    assert line in str(error.value)
    assert not (tmp_path / "new").exists()


def test_a_budget_for_a_method_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('[mine]\nextends = "smoke"\nmeta_steps_of = { mamll = 7 }\n')
    with pytest.raises(MetabenchError, match=r"'mamll' .did you mean 'maml'"):
        mb.run("maml", "sinusoid/k5", profile=str(tmp_path / "mine.toml"), store=tmp_path / "new")


def test_the_scores_of_several_stores_are_no_table() -> None:
    with pytest.raises(MetabenchError, match="is no path of one store"):
        mb.results(["one", "two"])  # type: ignore[arg-type]
