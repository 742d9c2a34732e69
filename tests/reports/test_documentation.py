"""README, CONTRIBUTING and docs/ say the truth: examples hold the contract, commands parse, paths and names exist."""

import dataclasses
import importlib
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import made_up_records as made_up
import pytest
import typer

from benchmarks import conformance, registry
from benchmarks.commands import options
from benchmarks.commands.app import app
from benchmarks.run import profiles
from benchmarks.run.resolution import check_settings
from reports import readme, words
from reports.results import Results, load

ROOT = Path(__file__).parents[2]
DOCUMENTS = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(ROOT.glob("docs/*.md"))]
}
PACKAGES = ("benchmarks", "maml", "baselines", "reports")
#: the README's example as a file
EXAMPLE = ROOT / "docs" / "examples" / "prototypical_network.py"
#: made by running something, and ignored by git
GENERATED = ("reports/runs", "reports/index.html")

FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")


def blocks(document: str, language: str) -> list[str]:
    return [body for name, body in FENCED.findall(DOCUMENTS[document]) if name == language]


def prose(document: str) -> str:
    """The text without fenced blocks."""
    return FENCED.sub("", DOCUMENTS[document])


def code(document: str) -> list[str]:
    """Inline code, and the lines of shell blocks."""
    shell = [line for body in blocks(document, "sh") for line in body.splitlines() if line.strip()]
    return [*INLINE.findall(prose(document)), *shell]


# --- examples ----------------------------------------------------------------------------------------------------

PLUGINS = [
    pytest.param(document, number, id=f"{document}-{number}")
    for document in ("README.md", "docs/recipes.md")
    for number, body in enumerate(blocks(document, "python"))
    if "@register_" in body  # the others are cells of a notebook
]


@pytest.fixture
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is forgotten after it."""
    registry.discover()
    for table in ("_methods", "_tasks"):
        monkeypatch.setattr(registry, table, dict(getattr(registry, table)))


@pytest.mark.usefixtures("own_registry")
@pytest.mark.parametrize(("document", "number"), PLUGINS)
def test_an_example_holds_the_contract(document: str, number: int, tmp_path: Path) -> None:
    path = tmp_path / f"example_{Path(document).stem.lower()}_{number}.py"
    path.write_text(blocks(document, "python")[number], encoding="utf-8")
    assert conformance.complaints(conformance.check_file(path)) == []


def test_the_readme_has_a_method_of_at_most_25_lines_and_the_recipes_have_methods_and_tasks() -> None:
    (smallest,) = blocks("README.md", "python")
    assert smallest == EXAMPLE.read_text(encoding="utf-8")
    assert "@register_method" in smallest
    assert len(smallest.splitlines()) <= 25
    kinds = re.findall(r"^@register_(\w+)", "\n".join(blocks("docs/recipes.md", "python")), re.MULTILINE)
    assert set(kinds) == {"method", "task"}


def test_documents_are_short_enough_to_be_read_and_the_first_command_comes_early() -> None:
    for name, most in {"README": 150, "CONTRIBUTING": 200, "docs/performance": 200, "docs/statistics": 150}.items():
        assert len(DOCUMENTS[f"{name}.md"].splitlines()) <= most
    assert DOCUMENTS["README.md"].partition("\nmake ")[0].count("\n") < 40


def test_records_can_be_read_as_the_documentation_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make = made_up.Maker(tmp_path / "reports" / "runs" / "quick")
    make.evaluation("maml", made_up.SINUSOID, level=0.4)
    key = make.evaluation("maml", made_up.GLYPHS, seed=1, regime="query", level=0.5, slope=0.4, steps=6)
    make.unfinished("finetune", made_up.GLYPHS, "error", "planted")
    monkeypatch.chdir(tmp_path)
    (snippet,) = blocks("docs/records.md", "python")
    names: dict[str, Any] = {}
    exec(snippet, names)
    table = names["table"].set_index("task")
    assert set(table.index) == {made_up.SINUSOID.id, made_up.GLYPHS.id}
    scores = make.store.scores(make.store.get(key))
    assert table.loc[made_up.GLYPHS.id, "score"] == pytest.approx(scores["best/query/5"].mean())
    assert "query" in capsys.readouterr().out


# --- commands ----------------------------------------------------------------------------------------------------


def commands(document: str) -> Iterator[list[str]]:
    """The command lines of the suite that a document names, as words without ``metabench``."""
    for line in code(document):
        words = shlex.split(line, comments=True) if line.startswith(("metabench ", "python -m ")) else []
        if words[:1] == ["metabench"]:
            yield words[1:]
        elif words[:3] == ["python", "-m", "benchmarks"] and words[3:]:
            yield words[3:]


COMMANDS = [
    pytest.param(words, id=f"{document}: {' '.join(words)}") for document in DOCUMENTS for words in commands(document)
]


@pytest.mark.parametrize("words", COMMANDS)
def test_a_command_line_is_understood(words: list[str]) -> None:
    known = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert words[0] in known
    if not words[1:]:  # a command that is spoken of
        return
    given = known[words[0]].make_context(words[0], words[1:]).params
    if given.get("profile") and not given["profile"].endswith(".toml"):
        profiles.load(given["profile"])
    methods = options.names(given.get("method") or ())
    for name in methods:
        assert is_example(name) or registry.method_entry(name)
    tasks = given.get("task") or ()
    for name in options.names([tasks] if isinstance(tasks, str) else tasks):
        assert is_example(name) or registry.build_task(name)
    own = {Path(name).stem.replace("_", "-") for name in methods if is_example(name)}
    settings = options.settings(given.get("setting"))
    check_settings({key: value for key, value in settings.items() if key.split(".")[0] not in own})


def is_example(name: str) -> bool:
    """Whether a document shows this file."""
    return ".py" in name and any(f"`{Path(name.partition('.py')[0]).name}.py`" in one for one in DOCUMENTS.values())


def test_every_command_and_every_profile_is_in_the_documents() -> None:
    shown = {words[0] for words in commands("docs/commands.md")}
    assert shown == set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    for document in ("README.md", "docs/commands.md"):
        assert set(profiles.names()) <= set(INLINE.findall(DOCUMENTS[document]))


def test_the_profile_of_the_documentation_is_one(tmp_path: Path) -> None:
    (text,) = blocks("docs/commands.md", "toml")
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    (block,) = profiles.load(str(tmp_path / "mine.toml")).blocks
    assert (block.seeds, block.methods, block.meta_steps) == (5, ("maml", "fomaml"), 5000)


def test_every_registered_name_of_the_suite_is_in_the_changelog() -> None:
    own = [entry for table in (registry.methods(), registry.tasks()) for entry in table.values()]
    own = [one for one in own if ROOT in one.path.parents]
    names = {f"{one.name}-v{one.cls.version}" if hasattr(one.cls, "version") else one.name for one in own}
    assert names - set(INLINE.findall(DOCUMENTS["CHANGELOG.md"])) == set()


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    lines = {line for document in DOCUMENTS for line in code(document)}
    assert {name for line in lines for name in re.findall(r"^make ([a-z-]+)", line)} - targets == set()


def test_the_readme_says_how_to_run_and_how_to_test() -> None:
    shell = "\n".join(blocks("README.md", "sh"))
    for line in (r"make bench\b", r"make test\b", r"open reports/index.html\b"):
        assert re.search(f"^{line}", shell, re.MULTILINE)


# --- names -------------------------------------------------------------------------------------------------------


def test_every_link_leads_somewhere() -> None:
    links = {(name, link) for name in DOCUMENTS for link in re.findall(r"\]\(([^)\s]+)\)", prose(name))}
    inside = {(name, link.partition("#")[0]) for name, link in links if not re.match(r"https?://|#", link)}
    assert {(name, link) for name, link in inside if not (ROOT / name).parent.joinpath(link).exists()} == set()


def inline() -> set[tuple[str, str]]:
    """Inline code of every document."""
    return {(name, text) for name in DOCUMENTS for text in INLINE.findall(prose(name))}


def test_every_path_exists() -> None:
    """Of inline code that looks like a path from the root of the checkout."""
    tops, path = {path.name for path in ROOT.iterdir()}, re.compile(r"\.?[\w.-]+(/[\w.-]+)*/?")
    named = {(name, text) for name, text in inline() if "/" in text and path.fullmatch(text)}
    named = {(name, text) for name, text in named if text.partition("/")[0] in tops and not text.startswith(GENERATED)}
    assert {(name, text) for name, text in named if not (ROOT / text).exists()} == set()


def test_every_dotted_name_exists() -> None:
    dotted = re.compile(rf"({'|'.join(PACKAGES)})(\.\w+)+")
    assert {(name, text) for name, text in inline() if dotted.fullmatch(text) and not resolves(text)} == set()


def resolves(name: str) -> bool:
    """Whether a dotted name is a module, or something in one."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            found = getattr(found, part, None)
        return found is not None
    return False


def test_every_environment_variable_is_read_somewhere() -> None:
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "benchmarks").rglob("*.py"))
    named = {name for text in DOCUMENTS.values() for name in re.findall(r"METABENCH_[A-Z_]+", text)}
    assert {name for name in named if f'"{name}"' not in sources} == set()


@pytest.mark.fault("U5")
def test_the_number_of_methods_of_smoke_is_said_as_it_is() -> None:
    smoke = profiles.load("smoke")
    methods = {name for block in smoke.blocks for name in block.methods}
    texts = {**DOCUMENTS, "Makefile": (ROOT / "Makefile").read_text(), "about": smoke.about}
    told = {name: re.findall(r"(\w+) methods\W[^.|]{,40}(?:small|image) task", text) for name, text in texts.items()}
    assert {name for name, found in told.items() if found} == {
        *("README.md", "CONTRIBUTING.md", "docs/commands.md", "Makefile", "about")
    }
    assert {number for found in told.values() for number in found} == {str(len(methods))}
    assert len(smoke.blocks) == 2


def test_a_newcomer_is_told_where_the_command_is() -> None:
    for document in ("README.md", "docs/commands.md"):
        assert "`.venv/bin/metabench`" in DOCUMENTS[document].partition("## Why")[0]
    (line,) = [line for line in code("README.md") if "the table above" in line]
    assert "--store reports/reference/quick" in line


def test_the_protocol_names_the_episodes_of_the_profiles() -> None:
    said = re.findall(r"([\d,]+)(?: test episodes)? in `(\w+)`", DOCUMENTS["docs/protocol.md"])
    assert [name for _, name in said] == ["quick", "standard", "paper"]
    for number, name in said:
        found = {b.episodes for b in profiles.load(name).blocks if registry.build_task(b.task).kind != "control"}
        assert found - ({400} if name == "quick" else set()) == {int(number.replace(",", ""))}


# --- the tables of README and results ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def committed() -> list[Results]:
    return [load(path) for path in readme.stores()]


def test_the_tables_are_those_of_the_committed_records(committed: list[Results]) -> None:
    assert readme.current(DOCUMENTS[readme.README]) == readme.overview(committed)
    assert readme.current(DOCUMENTS[readme.RESULTS]) == readme.section(committed, ROOT / "docs")


def test_the_picture_of_the_readme_is_that_of_the_committed_records(committed: list[Results]) -> None:
    drawing = readme.picture(committed)
    assert (ROOT / readme.PICTURE).is_file() == (drawing is not None)
    if drawing is None:
        return
    kept = (ROOT / readme.PICTURE).read_text(encoding="utf-8")
    # not byte for byte: another version of matplotlib writes the same picture otherwise
    words, outlines = re.compile(r"<text[^>]*>([^<]*)<"), re.compile(r' d="([^"]*)"')
    assert words.findall(kept) == words.findall(drawing)
    numbers = [[float(one) for one in re.findall(r"-?[\d.]+", " ".join(outlines.findall(x)))] for x in (kept, drawing)]
    assert numbers[0] == pytest.approx(numbers[1], abs=0.05)


@pytest.fixture(scope="module")
def made_up_results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    path = tmp_path_factory.mktemp("reports") / "reference" / "quick"
    made_up.full_store(path)
    return load(path)


def test_documents_are_updated_and_keep_the_rest(tmp_path: Path, made_up_results: Results) -> None:
    paths = [tmp_path / name for name in (readme.README, readme.RESULTS)]
    paths[1].parent.mkdir()
    (path,) = made_up_results.stores
    for document in paths:
        document.write_text(f"before\n\n{readme.BEGIN}old{readme.END}\n\nafter\n", encoding="utf-8")
    assert readme.stores(path.parent) == [path]
    readme.update(tmp_path, [path])
    texts = [document.read_text(encoding="utf-8") for document in paths]
    for text, begin in zip(texts, ("| method |", "## quick\n"), strict=True):
        assert text.startswith(f"before\n\n<!-- table -->\n{begin}")
        assert text.endswith("<!-- /table -->\n\nafter\n")
    assert f"({Path(os.path.relpath(path, paths[1].parent)).as_posix()})" in texts[1]
    readme.update(tmp_path, [path])
    assert [document.read_text(encoding="utf-8") for document in paths] == texts
    readme.update(tmp_path, [])
    assert {readme.current(document.read_text(encoding="utf-8")) for document in paths} == {readme.NOTHING}


def test_every_score_of_the_overview_is_that_of_its_column(made_up_results: Results) -> None:
    head, _, *rows = [line for line in readme.overview([made_up_results]).splitlines() if line.startswith("|")]
    tests = [cell.strip().partition("<br>")[0] for cell in head.strip("|").split("|")[1:]]
    expected: dict[tuple[str, str], set[str]] = {}
    for result in made_up_results.results:
        place = (result.name, words.title(result.column, made_up_results.columns))
        expected.setdefault(place, set()).add(words.plus_minus(result.interval, result.metric))
    shown = {}
    for row in rows:
        name, *cells = (cell.strip() for cell in row.strip("|").split("|"))
        shown |= {(name, test): cell.strip("*†") for test, cell in zip(tests, cells, strict=True) if cell}
    assert len(shown) > 3
    for place, cell in shown.items():
        assert cell.replace("*", "") in expected[place]
    assert {place for place in expected if place[1] in tests} == shown.keys()


def test_every_score_of_the_results_page_is_that_of_the_results(tmp_path: Path, made_up_results: Results) -> None:
    results = made_up_results.results
    rows = re.findall(r"^\|.* ± .*", readme.section([made_up_results], tmp_path), re.MULTILINE)
    shown = sorted(cell.strip() for row in rows for cell in row.split("|") if "±" in cell)
    mark = {True: words.UNDER_TRAINED, False: ""}
    assert shown == sorted(words.plus_minus(r.interval, r.metric) + mark[r.under_trained] for r in results)
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
