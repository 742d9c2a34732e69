"""README, CONTRIBUTING and docs/ say the truth: examples hold the contract, commands parse, paths and names exist."""

import importlib
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
from benchmarks.cost import grid
from benchmarks.run import profiles
from benchmarks.run.resolution import check_settings

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
    if words[0] == "cost":
        assert given["profile"] in grid.profiles()
    elif given.get("profile") and not given["profile"].endswith(".toml"):
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
    assert (block.seeds, block.methods, block.examples) == (5, ("maml", "fomaml"), 1_600_000)
    assert block.patience == 0.25


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
        blocks = [each for each in profiles.load(name).blocks if registry.build_task(each.task).kind != "control"]
        others = {"quick": {"sinusoid/k10": 400}}.get(name, {})
        assert {each.task: each.episodes for each in blocks} == {
            each.task: others.get(each.task, int(number.replace(",", ""))) for each in blocks
        }
