"""The command line on a screen: nothing is cut at 80 columns, any encoding will do, and Ctrl-C is one line."""

from __future__ import annotations

import dataclasses
import functools
import io
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import made_up_records as made_up
import pandas as pd
import pytest
import typer
from rich.console import Console
from whole_runs import profile

from benchmarks.commands import console
from benchmarks.commands.app import app
from benchmarks.python_api import view
from reports import terminal, words
from reports.results import Results, load
from reports.scores import heat

ROOT = Path(__file__).parents[2]


@functools.cache
def _loaded(*paths: Path) -> Results:
    return load(paths)


def loaded(paths: Path | list[Path], older: bool = False) -> Results:
    """The records of these stores, read once in this file."""
    return _loaded(*([paths] if isinstance(paths, Path) else map(Path, paths)))


COMMANDS = sorted(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shown") / "store"
    made_up.full_store(folder)
    return folder


@pytest.fixture
def screen(monkeypatch):
    """Sets the width of the terminal."""

    def width(columns: int) -> None:
        monkeypatch.setenv("COLUMNS", str(columns))

    width(80)
    return width


@pytest.mark.parametrize("columns", ["0", "-5", "wide", ""])
def test_a_width_that_is_none_counts_as_unset(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    assert console.screen().width == 100


@pytest.mark.fault("U4")
def test_help_and_version_have_their_usual_names(command_line):
    assert command_line("-h").out == command_line("--help").out
    assert command_line("run", "-h").out == command_line("run", "--help").out
    assert re.fullmatch(r"metabench (\d+\.\d+\.\d+|from .*, not installed)\n", command_line("--version").out)


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_fits_80_columns_with_whole_words(command_line, screen, command):
    answer = command_line(*filter(None, [command]), "-h")
    assert answer.code == 0
    assert max(map(len, answer.out.splitlines())) <= 80
    assert not re.search(r"\w(\.\.\.|…)$", answer.out, re.MULTILINE)  # as the parser cuts a sentence


@pytest.mark.fault("U5")
@pytest.mark.parametrize("columns", [80, 100])
def test_list_is_whole(command_line, screen, columns):
    from benchmarks.commands import catalogue

    screen(columns)
    out = command_line("list").out
    assert max(map(len, out.splitlines())) <= columns
    found, words = catalogue.load(), " ".join(out.split())
    for entry in (*found["methods"].values(), *found["tasks"].values()):
        assert " ".join(entry["summary"].split()[:3]) in words
    for name in (*found["methods"], *found["tasks"], *found["profiles"]):
        assert re.search(rf"^{name}\s", out, re.MULTILINE)


@pytest.mark.fault("U5")
@pytest.mark.parametrize("columns", [80, 100])
@pytest.mark.parametrize("choice", [(), ("--all",), ("--test", "sinusoid")])
@pytest.mark.parametrize("name", ["made up", "quick"])
def test_show_cuts_no_number(command_line, screen, store, columns, choice, name, monkeypatch):
    screen(columns)
    monkeypatch.setattr(terminal, "load", loaded)
    place = store if name == "made up" else ROOT / "reports" / "reference" / name
    answer = command_line("show", "--store", place, *choice)
    assert answer.code == 0
    assert max(map(len, answer.out.splitlines())) <= columns
    assert "…" not in answer.out
    results = loaded(place)
    shown = [result for result in results.results if "sinusoid" in result.column.task or choice == ("--all",)]
    if not choice:
        shown = [of for of in shown if of.row.own and of.column == results.leading(of.column.test)]
        shown = [of for of in shown if of.column.model == "best"]
    number = words.short
    for result in [of for of in shown if not results.repeated(of)]:
        assert re.search(rf"\s{re.escape(number(result.interval, result.metric))}(†|\s)", answer.out)


@pytest.mark.fault("U5")
@pytest.mark.parametrize("name", ["quick", "standard", "gpu"])
def test_show_of_the_committed_stores_has_at_most_60_lines(command_line, screen, name):
    screen(100)
    answer = command_line("show", "--store", ROOT / "reports" / "reference" / name)
    assert answer.code == 0
    assert len(answer.out.splitlines()) <= 60


@pytest.mark.fault("U5")
def test_show_of_forty_tests_has_at_most_60_lines_and_says_what_is_left(command_line, screen, tmp_path):
    screen(100)
    tmp_path = tmp_path / "my records"
    make = made_up.Maker(tmp_path, episodes=4)
    for number in range(40):
        for method in ("maml", f"own-{number}", f"other-{number}"):
            make.evaluation(method, dataclasses.replace(made_up.SINUSOID, id=f"sinusoid-v1/k{number}"), level=0.4)
    out = command_line("show", "--store", tmp_path).out
    assert len(out.splitlines()) <= 60
    shown = len(re.findall(r"squared error", out.split("Which is best?")[0]))
    (last,) = re.findall(r"further tests: (metabench show .* --all), or --test NAME", " ".join(out.split()))
    assert f"{40 - shown} further tests: " in out
    everything = command_line(*shlex.split(last)[1:]).out  # the command that it recommends is about the same records
    assert len(set(re.findall(r"^sinusoid-v1/k\d+", everything, re.MULTILINE))) == 40


def test_many_methods_fit_in_60_lines_and_no_winner_is_left_out(command_line, screen, tmp_path):
    screen(100)
    make = made_up.Maker(tmp_path)
    for number in range(8):
        task = dataclasses.replace(made_up.GLYPHS, id=f"glyphs-v1/{number}")
        for method in range(30):
            make.evaluation(f"method-{method:02}", task, level=0.01 * method)
        make.evaluation(f"winner-{number}", task, level=0.99)
    out = command_line("show", "--store", tmp_path).out
    assert len(out.splitlines()) <= 60
    assert re.search(r"^Trained, \d+ of 3\d", out, re.MULTILINE)
    assert set(re.findall(r"^winner-\d", out, re.MULTILINE)) == {f"winner-{number}" for number in range(8)}


def test_several_stores_are_shown_together(command_line, screen, tmp_path):
    for name, task in (("one", made_up.SINUSOID), ("two", made_up.GLYPHS)):
        made_up.Maker(tmp_path / name).evaluation("maml", task, level=0.4)
    stores = ("--store", tmp_path / "one", "--store", tmp_path / "two")
    out = " ".join(command_line("show", *stores).out.split())
    assert "mean squared error" not in out
    assert "squared error" in out
    assert "accuracy (%)" in out


def test_colours_say_nothing_that_the_text_does_not(store):
    def shown(**options):
        console = Console(width=100, record=True, file=io.StringIO(), **options)
        terminal.show(store, console)
        return console.export_text(clear=False), console.export_text(styles=True)

    plain, _ = shown(no_color=True)
    text, coloured = shown(force_terminal=True, color_system="truecolor")
    assert text == plain
    assert "\x1b[1;" in coloured, "bold"
    assert re.search(r"48;2;\d+;\d+;\d+m *\d\d\.\d ±", coloured), "a colour behind a number"
    assert re.search(r"38;2;91;101;112;48;2;\d+;\d+;\d+m *\S+ ±\S+†", coloured), "grey where under-trained"


def test_one_test_in_full_shows_the_spread_over_seeds(command_line, screen, store):
    for columns in (80, 160):
        screen(columns)
        out = command_line("show", "--store", store, "--test", "sinusoid").out
        assert "sd over seeds" in " ".join(out.split())


@pytest.mark.parametrize("choice", [(), ("--test", "sinusoid"), ("--all",)])
def test_tables_for_other_programs_have_the_numbers(command_line, store, choice):
    results = load(store)
    shown = {
        "md": command_line("show", "--store", store, *choice, "--format", "md").out,
        "latex": command_line("show", "--store", store, *choice, "--format", "latex").out,
    }
    frame = pd.read_csv(io.StringIO(command_line("show", "--store", store, *choice, "--format", "csv").out))
    overview = [cell.result for line in heat.heat(results, further=False).lines for cell in line.cells if cell.result]
    expected = results.results if choice else overview
    expected = [one for one in expected if choice != ("--test", "sinusoid") or "sinusoid" in one.column.task]
    assert sorted(frame["records"]) == sorted(one.keys for one in expected)
    number = words.short
    for one in expected:
        text = number(one.interval, one.metric)
        assert text in shown["md"]
        assert words.latex(text) in shown["latex"]
    assert shown["latex"].count(r"\begin{tabular}") == shown["latex"].count(r"\end{tabular}") > 0
    if not choice:
        assert re.search(r"\*\*\d[\d.]* ±[\d.]+\*\*", shown["md"])
        assert r"\textbf{" in shown["latex"]
        assert "**" not in shown["latex"]


def test_an_unknown_format_is_a_mistake(command_line, store):
    answer = command_line("show", "--store", store, "--format", "xls")
    assert (answer.code, answer.out) == (2, "")
    assert "'xls' is not one of 'md', 'csv', 'latex'" in answer.err


def test_an_unknown_test_is_a_mistake_that_names_the_known_ones(command_line, store):
    answer = command_line("show", "--store", store, "--test", "chess")
    assert (answer.code, answer.out) == (2, "")
    assert re.match(r"metabench: no test 'chess' here; known: .*; sinusoid-v1/k10", answer.err)


@pytest.mark.fault("U5")
def test_a_run_ends_with_its_scores_and_the_next_command(command_line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(profile())
    answer = command_line("run", "-p", "./mine.toml", "-m", "constant,chance", "--episodes", "5", "--threads", "1")
    assert answer.code == 0, answer.out
    (result,) = load(tmp_path / "reports" / "runs" / "tiny").results
    assert result.first.record.threads == 1
    assert len(result.row.episodes) == 5
    assert re.search(rf"^constant +{re.escape(words.short(result.interval, result.metric))}", answer.out, re.MULTILINE)
    assert "Which is best?" in answer.out
    end = answer.out.splitlines()[-2:]
    assert end[0] == f"records in {Path('reports/runs/tiny')}"
    assert end[1] == "next: metabench show --profile ./mine.toml, metabench report --profile ./mine.toml"
    shown = command_line(*end[1].partition("metabench ")[2].partition(",")[0].split())
    assert shown.code == 0
    assert shown.out in answer.out


@pytest.mark.fault("U6")
def test_no_time_left_is_none():
    assert view._clock(-111) == "0:00"
    assert view._clock(111) == "1:51"


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


@pytest.mark.fault("E2")
@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_an_output_that_is_not_utf_8_has_the_numbers(store, encoding):
    command = [sys.executable, "-m", "benchmarks", "show", "--store", str(store)]
    done = subprocess.run(command, env=environment(PYTHONIOENCODING=encoding), capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert re.search(r"\d (\+-|±)\d", done.stdout.decode(encoding))


@pytest.mark.fault("U4")
@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_completion_knows_commands_and_names(tmp_path):
    def completed(*words: str) -> list[str]:
        shell = environment(
            _METABENCH_COMPLETE="complete_bash", COMP_WORDS=" ".join(words), COMP_CWORD=str(len(words) - 1)
        )
        command = [sys.executable, "-m", "benchmarks"]
        return subprocess.run(command, env=shell, capture_output=True, text=True, timeout=60).stdout.split()

    assert completed("metabench", "comp") == ["compare"]
    assert completed("metabench", "run", "-m", "fom") == ["fomaml"]


SLOW = "import time\nprint('imported', flush=True)\ntime.sleep(60)\n"
RUN = ("run", "-p", "./mine.toml", "-m", "maml", "--jobs", "1")


@pytest.mark.fault("U6")
@pytest.mark.parametrize(
    ("after", "command"),
    [
        *((after, RUN) for after in (0.05, 0.3, 2.0)),
        (1.5, ("run", "-p", "./mine.toml", "-m", "./slow.py")),
        (1.5, ("check", "./slow.py")),
        (0.7, ("report", "--store", ROOT / "reports" / "reference" / "quick", "-o", "page.html")),
        (1.5, ("cost", "-p", "smoke", "--store", "costs")),
        (1.0, ("episodes", "sinusoid/k10", "-n", "100000")),
    ],
    ids=str,
)
def test_an_interrupt_at_any_time_is_one_line(tmp_path, after, command):
    (tmp_path / "mine.toml").write_text(profile(meta_steps=10**6))
    (tmp_path / "slow.py").write_text(SLOW)
    program = "from benchmarks.__main__ import main; print(flush=True); main()"
    whole = [sys.executable, "-c", program, *map(str, command)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(whole, cwd=tmp_path, env=environment(), text=True, start_new_session=True, **pipes)
    process.stdout.readline()  # the interpreter itself is up
    time.sleep(after)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the whole group
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert re.fullmatch(r"metabench: interrupted.*\n", said)
    assert not list(tmp_path.glob("*.parquet")) + list(tmp_path.glob("*.html"))
