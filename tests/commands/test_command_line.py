"""The command line as a user meets it: answers at once, works from anywhere, and a mistake is one clear line."""

import json
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from whole_runs import Answer, profile

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working directory, no data and no network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("METABENCH_OFFLINE", "1")
    monkeypatch.delenv("METABENCH_DATA", raising=False)
    return tmp_path


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("METABENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def metabench(folder, command_line):
    return command_line


def in_a_process(*command):
    """Runs a command in the current folder, with the CPU time that it took: the wall clock depends on who else runs."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Answer(done.returncode, done.stdout, done.stderr, spent)


@pytest.fixture(scope="module")
def importing_torch():
    """The CPU seconds of ``import torch``: what a command takes is held against it, for machines differ."""
    command = (sys.executable, "-c", "import torch")
    return min(in_a_process(*command).cpu_seconds for _ in range(2))


def test_help_answers_at_once(folder, importing_torch):
    answer = in_a_process(sys.executable, "-m", "benchmarks", "--help")
    assert answer.code == 0
    for command in ("list", "prepare", "run", "show", "report", "doctor", "check"):
        assert command in answer.out
    assert answer.cpu_seconds < importing_torch / 4


def test_list_is_quick_and_quicker_from_its_cache(folder, empty_cache, importing_torch):
    first = in_a_process(sys.executable, "-m", "benchmarks", "list", "--json")
    again = in_a_process(sys.executable, "-m", "benchmarks", "list", "--json")
    assert first.code == again.code == 0
    assert first.out == again.out
    assert first.cpu_seconds < 3 * importing_torch
    assert again.cpu_seconds < importing_torch / 2
    found = json.loads(again.out)
    assert {"maml", "fomaml", "finetune"} <= set(found["methods"])
    assert {"sinusoid", "omniglot", "glyphs"} <= set(found["tasks"])
    assert found["methods"]["fomaml"]["fields"]["second_order"] is False
    assert found["compatibility"]["maml"]["sinusoid"] is None
    assert "is for regression" in found["compatibility"]["constant"]["omniglot"]
    assert {"smoke", "quick", "standard", "paper"} <= set(found["profiles"])
    assert empty_cache.is_dir()


def test_list_is_a_table_for_people(metabench):
    answer = metabench("list")
    assert answer.code == 0
    for name in ("maml", "sinusoid", "variants: ", "methods: ", "quick"):
        assert name in answer.out


@pytest.mark.skipif(shutil.which("metabench", path=Path(sys.executable).parent) is None, reason="not installed")
def test_the_installed_command_works_from_anywhere(folder):
    answer = in_a_process(Path(sys.executable).parent / "metabench", "show", "--store", "nowhere")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("metabench: no store at nowhere")


def test_doctor_says_what_is_here(metabench):
    answer = metabench("doctor")
    assert answer.code == 0
    for word in ("torch", "python", "sinusoid", "METABENCH_DATA", "not set"):
        assert word in answer.out


@pytest.mark.fault("U6")
def test_doctor_decodes_nothing(metabench, folder, empty_cache, monkeypatch):
    from benchmarks.images import data

    for part in ("background", "evaluation"):
        (folder / "data" / "omniglot" / f"images_{part}").mkdir(parents=True)
    monkeypatch.setenv("METABENCH_DATA", str(folder / "data"))
    monkeypatch.setattr(data, "_build", None)
    lines = metabench("doctor").out.splitlines()
    (said,) = [line.split(maxsplit=1)[1].strip() for line in lines if line.split()[:1] == ["omniglot"]]
    assert said == "found, neither decoded nor checked yet: metabench prepare -t omniglot"


@pytest.mark.fault("U6")
def test_doctor_says_what_it_decodes(metabench, monkeypatch):
    from benchmarks import registry

    sinusoid = registry.task_entry("sinusoid").cls
    monkeypatch.setattr(sinusoid, "prepare", lambda self, line=lambda text: None: line("decoding 3 files"))
    out = metabench("doctor").out
    assert out.index("sinusoid: decoding 3 files\n") < out.index("METABENCH_DATA")


def test_prepare_names_what_is_missing(metabench, empty_cache):
    answer = metabench("prepare", "-t", "sinusoid")
    assert (answer.code, answer.out) == (0, "sinusoid: ready\n")
    answer = metabench("prepare", "-t", "miniimagenet")
    assert answer.code == 2
    assert "mini-imagenet" in answer.err


QUICK = ROOT / "reports" / "reference" / "quick"
RUN = ("run", "--profile", "smoke", "--store", "store")
MISTAKES = [
    ((*RUN, "-m", "mamel"), ("unknown method 'mamel'", "did you mean 'maml'?", "finetune")),
    ((*RUN, "-t", "sinusoids"), ("unknown task 'sinusoids'", "did you mean 'sinusoid'?", "omniglot")),
    ((*RUN, "-t", "sinusoid/k7"), ("variant", "'k7'", "k10")),
    ((*RUN, "-m", "./nowhere.py"), ("no such plug-in file", "nowhere.py")),
    ((*RUN, "-m", "./broken.py"), ("broken.py", "can't be imported", "SyntaxError")),
    ((*RUN, "-m", "./empty.py"), ("empty.py", "registers no method and no task", "@register_method")),
    ((*RUN, "--set", "maml.inner_rate=1"), ("unknown field of 'maml' 'inner_rate'", "inner_lr")),
    ((*RUN, "--set", "mamel.inner_lr=1"), ("in settings 'mamel'", "did you mean 'maml'?")),
    ((*RUN, "--set", "maml.inner_lr=fast"), ("maml.inner_lr = 'fast'", "not float")),
    ((*RUN, "--set", "maml.second_order=3"), ("maml.second_order = 3", "not bool")),
    ((*RUN, "--set", "sinusoid.shot=0"), ("sinusoid", "shot", "0")),
    ((*RUN, "--set", "inner_lr"), ("--set 'inner_lr'", "name.field=value")),
    (
        (*RUN, "-m", "maml", "--set", "finetune.weight_decay=1"),
        ("setting finetune.weight_decay", "no finetune", "maml"),
    ),
    (("run", "--profile", "quickly", "--store", "store"), ("unknown profile 'quickly'", "did you mean 'quick'?")),
    (("run", "--profile", "./nowhere.toml"), ("no such file of profiles", "nowhere.toml")),
    (("run", "--profile", "./esc.toml"), ("'../../esc'", "letters, digits")),
    (("run", "--profile", "./idle.toml"), ("profile 'idle' lists no tasks",)),
    ((*RUN, "--memory", "inf"), ("memory = inf",)),
    ((*RUN, "--seeds", "20231129"), ("seeds = 20231129", "1,000 is the most", "--seeds 20231129,")),
    ((*RUN, "--seeds", f"{2**40},"), (f"seeds = ({2**40},)", "numbers from 0 to 8388607")),
    ((*RUN, "--episodes", 10**20), (f"episodes = {10**20} is too large",)),
    ((*RUN, "--device", "cpu:7"), ("unknown device 'cpu:7'", "cpu, cuda, cuda:N")),
    ((*RUN, "--threads", "100000"), ("threads = 100000 is above the number of usable cores, ",)),
    ((*RUN, "--plan", "threads=100000"), ("plan 'threads=100000': threads = 100000 is above",)),
    ((*RUN, "-m", "constant", "-t", "bandit"), ("nothing ran: constant on bandit-v1/k5n10: constant is for regr",)),
    ((*RUN, "-m", "oracle", "-t", "sinusoid", "--only", "failed"), ("nothing ran: no cell is among the failed ones",)),
    ((*RUN, "-m", "./folder"), ("./folder is a folder", "folder/mine.py")),
    ((*RUN, "--set", "maml.inner_lr=nan"), ("maml.inner_lr = nan is no setting: it is not finite",)),
    ((*RUN, "--set", "maml.inner_lr=-inf"), ("maml.inner_lr = -inf is no setting: it is not finite",)),
    (("run", "--profile", "./none.toml"), ("profile 'none': methods = [] leaves nothing to run",)),
    (("run", "--profile", "./nothing.toml"), ("nothing.toml holds no profile", "[name]")),
    (("run", "-m", "constant", "--store", "folder"), ("folder is no store: it holds thesis.txt",)),
    (("keep", "folder", "--store", "store"), ("no store at store",)),
    (("keep", "folder", "--store", QUICK), ("folder is no store: it holds thesis.txt",)),
    (("keep", "", "--store", QUICK), ("an empty path",)),
    (("keep", "copy", "--store", "."), (". has no records to copy",)),
    (("merge", QUICK, "--into", "folder"), ("folder is no store: it holds thesis.txt",)),
    (("merge", QUICK, "empty", "--into", "both"), ("empty has no records to copy",)),
    (("cost", "--profile", "smoke", "--store", "folder"), ("folder is no store: it holds thesis.txt",)),
    (("export", "scores.txt", "--store", QUICK), ("scores.txt names no table: end it in .csv or .parquet",)),
    (("episodes", "sinusoid", "-o", "list.parquet"), ("sinusoid has several variants", "sinusoid/k10")),
    ((*RUN, "--seconds", "inf"), ("seconds = inf", "too large")),
    ((*RUN, "-m", "maml,mamel"), ("unknown method 'mamel'", "did you mean 'maml'?")),
    ((*RUN, "--set", "sinusoid.device=cuda"), ("sinusoid.device", "as in --device cuda")),
    ((*RUN, "--set", "sinusoid.variant=k5"), ("sinusoid.variant", "as in -t sinusoid/k5")),
    (("run", "--store", ""), ("an empty path",)),
    (("report", "-o", ""), ("an empty path",)),
    ((*RUN, "--device", "tpu"), ("unknown device 'tpu'", "cpu, cuda, cuda:N")),
    ((*RUN, "--seeds", "x"), ("--seeds 'x'", "3 or 0,2,5")),
    ((*RUN, "--shots", "many"), ("--shots 'many'",)),
    ((*RUN, "--jobs", "x"), ("--jobs",)),
    ((*RUN, "--colour"), ("--colour",)),
    (("run", "--store", "file.txt"), ("file.txt", "file")),
    (("show", "--store", "nowhere"), ("no store at nowhere", "name another folder")),
    (("report", "--store", "nowhere"), ("no store at nowhere", "name another folder")),
    (("report", "--store", "file.txt"), ("file.txt",)),
    (("check", "./nowhere.py"), ("no such plug-in file", "nowhere.py")),
    (("check",), ("argument",)),
    (("prepare", "-t", "sinusoids"), ("unknown task 'sinusoids'",)),
    (("dance",), ("dance",)),
]


@pytest.mark.fault("U4", "U7", "U9", "S2", "S6", "S9")
@pytest.mark.parametrize(("command", "said"), MISTAKES, ids=[" ".join(map(str, command)) for command, _ in MISTAKES])
def test_a_mistake_is_one_line_and_leaves_nothing(metabench, folder, command, said):
    (folder / "broken.py").write_text("def broken(:\n")
    (folder / "empty.py").write_text("x = 1\n")
    (folder / "file.txt").write_text("something else\n")
    (folder / "esc.toml").write_text('["../../esc"]\nextends = "smoke"\n')
    (folder / "nothing.toml").touch()
    (folder / "none.toml").write_text('[none]\nextends = "smoke"\nmethods = []\n')
    (folder / "empty").mkdir()
    (folder / "folder").mkdir()
    (folder / "folder" / "thesis.txt").touch()
    (folder / "idle.toml").write_text(profile().partition("[[")[0].replace("tiny", "idle"))
    before = sorted(folder.rglob("*"))
    answer = metabench(*command)
    assert answer.code == 2
    assert answer.out == ""
    assert answer.err.startswith("metabench: ")
    assert answer.err.count("\n") == 1
    for part in said:
        assert part in answer.err
    assert sorted(folder.rglob("*")) == before


def test_without_a_command_it_shows_what_there_is(metabench):
    answer = metabench()
    assert answer.code == 2
    assert "Usage: metabench" in answer.err + answer.out
    assert "doctor" in answer.err + answer.out


def test_broken_data_are_a_mistake_too(metabench, folder, empty_cache, monkeypatch):
    (folder / "data" / "omniglot").mkdir(parents=True)
    (folder / "data" / "omniglot" / "images_background.zip").write_bytes(b"no zip")
    (folder / "data" / "omniglot" / "images_evaluation.zip").write_bytes(b"no zip")
    monkeypatch.setenv("METABENCH_DATA", str(folder / "data"))
    answer = metabench(*RUN, "-t", "omniglot", "-m", "chance")
    assert answer.code == 2
    assert answer.err.count("\n") == 1
    assert "omniglot" in answer.err
    assert "images_background.zip" in answer.err
    assert not (folder / "store").exists()


@pytest.mark.parametrize("missing", ["typer", "torch"])
def test_a_library_that_this_python_lacks_is_one_line(missing: str) -> None:
    program = f"import sys; sys.modules[{missing!r}] = None; sys.argv[1:] = ['cost', '--profile', 'smoke']"
    command = [sys.executable, "-c", f"{program}; from benchmarks.__main__ import main; main()"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith(f"metabench: {missing} is not installed for {sys.executable}")
    assert done.returncode == 2


@pytest.mark.fault("U6")
def test_a_reason_of_several_lines_is_one_line_of_the_screen(metabench, folder):
    (folder / "wordy.py").write_text(WORDY)
    (folder / "mine.toml").write_text(profile())
    answer = metabench("run", "-p", "./mine.toml", "-m", "./wordy.py", "--store", "store")
    assert answer.code == 1
    assert re.search(r"^\[1/2\] wordy .*: error \(ValueError: one two\)$", answer.out, re.MULTILINE)
    assert "ValueError: one two" in " ".join(metabench("show", "--store", "store").out.split())


WORDY = """
from dataclasses import dataclass

from baselines.episodic import Episodic
from benchmarks.registry import register_method


@register_method("wordy")
@dataclass(frozen=True)
class Wordy(Episodic):
    \"\"\"Fails with two lines.\"\"\"

    kinds = frozenset({"regression"})

    def fit(self, tasks, seed, start=None):
        raise ValueError("one\\n   two")
"""


def test_a_folder_is_no_plug_in(metabench, folder):
    (folder / "own").mkdir()
    answer = metabench("check", "own")
    assert (answer.code, answer.err) == (
        2,
        "metabench: own is a folder: name the Python file in it, as in own/mine.py\n",
    )


def test_prepare_and_episodes_take_fields_of_the_task(metabench, folder):
    for way in range(5):
        for split in ("train", "val", "test"):
            (folder / "birds" / split / f"{split}{way}").mkdir(parents=True)
            for number in range(4):
                noise = np.random.default_rng([way, number, len(split), ord(split[1])]).integers(
                    0, 256, (16, 16), "uint8"
                )
                Image.fromarray(noise).save(folder / "birds" / split / f"{split}{way}" / f"{number}.png")
    fields = ("image-folder.root=birds", "image-folder.size=16", "image-folder.queries=2")
    given = [word for field in fields for word in ("--set", field)]
    answer = metabench("prepare", "-t", "image-folder", *given)
    assert (answer.code, answer.out.splitlines()[-1]) == (0, "image-folder: ready")
    answer = metabench("episodes", "image-folder/5w1s", "-n", "3", "-o", "list.csv", *given)
    assert (answer.code, answer.err) == (0, "")
    assert "image-folder-v1/5w1s[queries=2, root=birds" in Path("list.csv").read_text()
    answer = metabench("prepare", "-t", "sinusoid", "--set", "maml.inner_lr=1")
    assert (answer.code, answer.err) == (2, "metabench: unknown task in settings 'maml'; known: sinusoid\n")
