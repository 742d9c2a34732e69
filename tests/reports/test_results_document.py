"""What docs/results.md says of published numbers and of claims."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import made_up_records as made_up

from reports import readme
from reports.results import load


def test_the_results_page_says_why_a_published_number_may_differ(tmp_path: Path) -> None:
    make = made_up.Maker(tmp_path / "store")
    task = dataclasses.replace(made_up.SINUSOID, id="tabular-mdp-v1/n10", name="tabular-mdp", metric="return")
    task = dataclasses.replace(task, higher_is_better=True, equivalence_margin=5.0, kind="control")
    for player, level in (("opsrl", 60.0), ("psrl", 138.0)):
        make.evaluation(player, task, level=level, fits=False)
    maml = dataclasses.replace(made_up.GLYPHS, id="omniglot-v1/5w1s", name="omniglot", fields={"shot": 1})
    make.evaluation("maml", maml, level=0.9, regime="query")
    make.evaluation("siamese-nets", maml, level=0.5, regime="query")
    text = readme.section([load(tmp_path / "store")], tmp_path)
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.partition("**Published")[2].splitlines()
    ]
    found = {row[0]: row for row in rows if len(row) == 9}
    assert found["opsrl"][7:] == ["below", "the source does not say how many processes its player draws; here 5"]
    assert found["opsrl"][6].startswith("−")
    assert found["psrl"][7:] == ["agrees", ""]
    assert found["maml"][6:] == ["", "not at the published budget", ""]
    assert "- MAML is better than Siamese nets: holds on 1 of 1 case." in text
