"""What `make readme` writes: the findings, the table and the pictures of the README, and docs/results.md."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

import made_up_records as made_up
import pytest

from reports import picture, readme, words
from reports.page.answers import answers
from reports.results import Results, load
from reports.scores import heat

ROOT = Path(__file__).parents[2]


def test_what_is_written_is_that_of_the_committed_records() -> None:
    for (name, marker), text in readme.parts(readme.stores(), ROOT).items():
        assert readme.current((ROOT / name).read_text(encoding="utf-8"), marker) == text


def test_the_pictures_are_those_of_the_committed_records() -> None:
    drawings = readme.pictures(load(readme.stores()))
    for name in (readme.COST, *map(readme.OVERVIEW.format, picture.THEMES)):
        assert (ROOT / name).is_file() == (name in drawings)
    for name, drawing in drawings.items():
        kept = (ROOT / name).read_text(encoding="utf-8")
        # not byte for byte: another version of matplotlib writes the same picture otherwise
        words, outlines = re.compile(r"<text[^>]*>([^<]*)<"), re.compile(r' d="([^"]*)"')
        assert words.findall(kept) == words.findall(drawing)
        numbers = [
            [float(one) for one in re.findall(r"-?[\d.]+", " ".join(outlines.findall(x)))] for x in (kept, drawing)
        ]
        assert numbers[0] == pytest.approx(numbers[1], abs=0.05)


@pytest.fixture(scope="module")
def made_up_results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    path = tmp_path_factory.mktemp("reports") / "reference" / "quick"
    made_up.full_store(path)
    return load(path)


def test_documents_are_updated_and_keep_the_rest(tmp_path: Path, made_up_results: Results) -> None:
    (path,) = made_up_results.stores
    (tmp_path / "docs").mkdir()
    blocks = [f"{begin}old{end}" for begin, end in map(readme.markers, ("findings", "table"))]
    for name in (readme.README, readme.RESULTS):
        (tmp_path / name).write_text("\n\n".join(["before", *blocks, "after\n"]), encoding="utf-8")
    assert readme.stores(path.parent) == [path]

    def texts() -> dict[str, str]:
        return {name: (tmp_path / name).read_text(encoding="utf-8") for name in (readme.README, readme.RESULTS)}

    readme.update(tmp_path, [path])
    first = texts()
    begins = {
        (readme.README, "findings"): "- **Which is best? ",
        (readme.README, "table"): "| method |",
        (readme.RESULTS, "table"): "## quick\n",
    }
    for (name, marker), begin in begins.items():
        assert first[name].startswith("before\n\n<!-- findings -->\n")
        assert readme.current(first[name], marker).startswith(begin)
        assert first[name].endswith("<!-- /table -->\n\nafter\n")
    link = Path(os.path.relpath(path, tmp_path / "docs")).as_posix()
    assert f"({link})" in first[readme.RESULTS]
    assert {one.name for one in tmp_path.glob("docs/*.svg")} == {"overview-light.svg", "overview-dark.svg"}
    readme.update(tmp_path, [path])
    assert texts() == first
    readme.update(tmp_path, [])
    assert {readme.current(texts()[name], marker) for name, marker in begins} == {readme.NOTHING}


def test_every_score_of_the_readmes_table_is_that_of_its_column(made_up_results: Results) -> None:
    head, _, *rows = [line for line in readme.table(made_up_results).splitlines() if line.startswith("|")]
    shown = heat.heat(made_up_results, further=False)
    assert head == "| method | " + " | ".join(f"{test.test}, {test.unit}" for test in shown.tests) + " |"
    expected = {}
    for line in shown.lines:
        results = [cell.result for cell in line.cells]
        texts = [words.short(one.interval, one.metric) if one else words.MISSING for one in results]
        expected[line.name] = texts
    found = {}
    for row in rows:
        name, *cells = (cell.strip() for cell in row.strip("|").split("|"))
        if not name.startswith("**"):
            found[name] = [cell.replace("*", "").removesuffix(words.UNDER_TRAINED) for cell in cells]
    assert found == expected
    assert sum(text != words.MISSING for texts in expected.values() for text in texts) > 3


def test_the_readme_has_at_most_ten_tests_and_twenty_methods_and_no_bold_one_is_left_out(tmp_path: Path) -> None:
    make = made_up.Maker(tmp_path / "store")
    for number in range(12):
        task = dataclasses.replace(made_up.GLYPHS, id=f"glyphs-v1/{number}")
        for method in range(25):
            make.evaluation(f"method-{method:02}", task, level=0.1 + 0.01 * method)
        make.evaluation("late", task, level=0.99) if number == 11 else None
    results = load(tmp_path / "store")
    shown = heat.fewer(heat.heat(results), readme.TESTS, readme.METHODS)
    assert (len(shown.tests), len(shown.lines)) == (10, 20)
    assert "glyphs-v1/11" in {test.test for test in shown.tests}, "it has one method more"
    assert "late" in {line.name for line in shown.lines}, "the winner of one test"
    text = readme.table(results)
    assert "Left out: 2 tests and 6 rows." in text
    assert text.count("\n| method-") + text.count("\n| late") == 20


def test_each_finding_has_an_answer_and_its_evidence(made_up_results: Results) -> None:
    lines = readme.findings(made_up_results).splitlines()
    said = answers(made_up_results)
    assert len(lines) == len(said) >= 2
    for line, answer in zip(lines, said, strict=True):
        assert line.startswith(f"- **{answer.question} {answer.chip}.** {answer.said}")
        assert answer.section == "changes" or re.search(r"interval [−+\d]|± ?\d", line), "an interval"


def test_every_score_of_the_results_page_is_that_of_the_results(tmp_path: Path, made_up_results: Results) -> None:
    results = made_up_results.results
    rows = re.findall(r"^\|.* ±.*", readme.section([made_up_results], tmp_path), re.MULTILINE)
    shown = sorted(cell.strip() for row in rows for cell in row.split("|") if "±" in cell)
    mark = {True: words.UNDER_TRAINED, False: ""}
    assert shown == sorted(words.short(r.interval, r.metric) + mark[r.under_trained] for r in results)
    assert any(cell.endswith(words.UNDER_TRAINED) for cell in shown)


def test_further_test_conditions_stay_out_of_the_readme(tmp_path: Path) -> None:
    make = made_up.Maker(tmp_path / "store")
    task = dataclasses.replace(made_up.SINUSOID, fields={"shot": 10})
    make.evaluation("maml", task, level=0.4)
    other = dataclasses.replace(task, id="sinusoid-v1/k5", fields={"shot": 5})
    make.evaluation("maml", other, level=0.7, trained_on=task.id)
    text = readme.section([load(tmp_path / "store")], tmp_path)
    assert text.count("| maml |") == 1
    assert "sinusoid-v1/k5" not in text
