"""A user's own files: what one does when it is imported reaches no other, and the process of the run imports none."""

from __future__ import annotations

import functools
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from whole_runs import Answer, profile, start, wait_until

import benchmarks as mb
from benchmarks import registry
from benchmarks.errors import MetabenchError
from benchmarks.models import BACKBONES, register_backbone
from benchmarks.python_api.names import named
from benchmarks.records.store import Store
from benchmarks.run import cells, own_files, profiles, resolution
from benchmarks.run.resolution import Request

pytestmark = pytest.mark.fault("S5")

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
#: notes what its process looks like each time it is imported and used
WITNESS = """
import os, signal, sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
import torch
from benchmarks.api import MetaLearner
from benchmarks.registry import register_method

def note(where):
    plugins = sorted(name.rpartition("_")[0] for name in sys.modules if name.startswith("metabench_plugin"))
    seen = (torch.get_default_dtype(), signal.getsignal(signal.SIGTERM), os.getcwd(), plugins)
    with open(Path(__file__).with_name("notes"), "a") as file:
        print(where, *seen, file=file)

note("import")

@register_method("NAME")
@dataclass(frozen=True)
class Witness(MetaLearner):
    '''Predicts zeros.'''
    kinds: ClassVar = frozenset({"regression"})
    fits: ClassVar = False
    backbone: str = ""
    value: float = 0.0

    def adapt(self, state, support, tasks):
        note("adapt")
        yield lambda x, memory=None: (x.new_full((*x.shape[:2], tasks.outputs), self.value), None)
"""
WAVES = """
from typing import ClassVar
from dataclasses import dataclass
from benchmarks.registry import register_task
from benchmarks.tasks.sinusoid import Sinusoid

@register_task("own-waves")
@dataclass(frozen=True)
class Waves(Sinusoid):
    variants: ClassVar = {"k1": {"shot": 1}, "k2": {"shot": 2}}
"""
RUDE = """
import os, signal, sys, torch
torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)
os.chdir("/")
signal.signal(signal.SIGTERM, signal.SIG_IGN)
sys.modules["math"] = None
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tiny.toml").write_text(profile())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, name: str, before: str = "", text: str = WITNESS) -> str:
    (folder / f"{name}.py").write_text(before + text.replace("NAME", name))
    return f"./{name}.py"


def run(command_line: Callable[..., Answer], *arguments: str) -> Answer:
    return command_line("run", "-p", "tiny.toml", *arguments, "--store", "store", "--jobs", "1")


def test_a_file_that_changes_its_process_changes_no_other(folder: Path, command_line: Callable[..., Answer]) -> None:
    ours = (torch.get_default_dtype(), signal.getsignal(signal.SIGTERM), os.getcwd())
    methods = ("-m", write(folder, "rude", RUDE), "-m", write(folder, "mild"), "-m", "constant")
    answer = run(command_line, *methods, "-t", "sinusoid/k5")
    assert answer.code == 0, answer
    assert {record.label for record in Store(folder / "store").evaluations()} == {"rude", "mild", "constant"}
    notes = (folder / "notes").read_text().splitlines()
    mild = [line for line in notes if "plugin_mild" in line or "rude" not in line]
    assert {line.partition(" ")[0] for line in mild} == {"import", "adapt"}
    assert {line.partition(" ")[2] for line in mild} == {f"torch.float32 0 {folder} ['metabench_plugin_mild']"}
    assert not [name for name in sys.modules if name.startswith(("metabench_plugin_rude", "metabench_plugin_mild"))]
    assert (torch.get_default_dtype(), signal.getsignal(signal.SIGTERM), os.getcwd()) == ours


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("import os; os._exit(0)", "bad.py can't be imported: exited with code 0 in the middle"),
        ("import sys; sys.exit(0)", "bad.py:1 can't be imported: SystemExit: 0"),
        ("import time; time.sleep(99)", "bad.py:1 can't be imported: took longer than 1 s"),
        ("import os; os.kill(os.getpid(), 11)", "bad.py:1 can't be imported: killed by SIGSEGV"),
        ("kept = [b'x' * 10**8 for _ in range(9)]; import time; time.sleep(99)", "the limit is 0.60 GB"),
        ("1 / 0", "bad.py:1 can't be imported: ZeroDivisionError"),
    ],
)
def test_a_file_whose_import_ends_in_any_way_is_one_line_and_code_2(
    folder: Path, command_line: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch, statement: str, said: str
) -> None:
    monkeypatch.setattr(own_files, "SECONDS", 1.0 if statement == "import time; time.sleep(99)" else 60.0)
    methods = ("-m", write(folder, "bad", f"{statement}\n"), "-m", write(folder, "good"))
    answer = run(command_line, *methods, "--memory", "0.6")
    assert (answer.code, answer.out) == (2, "")
    assert said in answer.err
    assert answer.err.count("\n") == 1
    assert "good" not in answer.err
    assert not (folder / "store").exists()


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("os._exit(0)", "exited with code 0 in the middle"),
        ("sys.exit(0)", "SystemExit: 0"),
        ("time.sleep(99)", "took longer than 2 s"),
    ],
)
def test_a_file_whose_import_ends_its_cell_fails_alone(
    folder: Path, command_line: Callable[..., Answer], statement: str, reason: str
) -> None:
    (folder / "tiny.toml").write_text(profile(kill_after=2))
    before = f"""
import os, sys, time
with open("imports", "a+") as file:
    file.write("x")
    file.seek(0)
    if len(file.read()) > 2:  # two jobs have described it
        {statement}
"""
    methods = ("-m", write(folder, "bad", before), "-m", write(folder, "good"))
    answer = run(command_line, *methods, "-t", "sinusoid/k5", "--set", "bad.value=2.5")
    assert answer.code == 1
    found = {record.label: record for record in Store(folder / "store").records()}
    assert found["good"].ok
    assert found["bad"].failed
    assert reason in (found["bad"].reason or "")
    assert found["bad"].method is not None
    assert found["bad"].method.fields["value"] == 2.5
    assert found["bad"].method.role == "learner"


@pytest.mark.parametrize("command", ["prepare", "run"])
def test_a_task_that_ends_its_process_ends_no_command_with_success(
    folder: Path, command_line: Callable[..., Answer], command: str
) -> None:
    (folder / "bad.py").write_text("import os\nos._exit(0)\n")
    answer = command_line(command, "-t", "./bad.py")
    assert (answer.code, answer.out) == (2, "")
    assert "bad.py can't be imported: exited with code 0 in the middle" in answer.err


def test_an_interrupt_while_a_file_is_imported_ends_it(folder: Path) -> None:
    before = "import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(99)\n"
    process = start(folder, "run", "-p", "tiny.toml", "-m", write(folder, "hangs", before))
    wait_until(lambda: (folder / "pid").exists() and (folder / "pid").read_text(), 60, process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert re.fullmatch(r"metabench: interrupted.*\n", err)
    with pytest.raises(ProcessLookupError):
        os.kill(int((folder / "pid").read_text()), 0)


def keys(found: resolution.Resolution) -> dict[tuple[str, str], str]:
    """(label, what the cell does) -> key."""
    return {(cell.label, str(cell)): cell.key for cell in cells.expand(found)}


def test_keys_are_those_of_a_process_that_imports_everything(folder: Path) -> None:
    tiny, settings = profiles.load("tiny.toml"), {"one.value": 2.5, "maml.meta_batch": 3}
    given = [write(folder, "one"), write(folder, "two", "import math\n"), "maml"]
    methods, tasks, own = named([*given, str(EXAMPLES / "prototypical_network.py")], str(EXAMPLES / "control_task.py"))
    request = Request(methods, ["sinusoid/k5", *tasks], settings=settings)
    found = own_files.resolve_with(own, tiny, request)
    try:
        registry.discover(own.files)
        expected = resolution.resolve(tiny, request)
    finally:
        for path in own.files:
            registry.forget_file(Path(path))
    assert list(keys(found).items()) == list(keys(expected).items())
    ran = [cell for cell in cells.expand(found) if cell.skip is None]
    files = {(cell.label, cell.draft.task.name): [Path(path).name for path in cell.files] for cell in ran}
    assert files == {
        ("one", "sinusoid"): ["one.py"],
        ("two", "sinusoid"): ["two.py"],
        ("maml", "sinusoid"): [],
        ("maml", "hidden-place"): ["control_task.py"],
    }


def test_a_task_of_ones_own_may_have_a_version_and_a_variant() -> None:
    names = ["sinusoid/k5", "mine-v2/a", "mine", "other-v2"]
    groups = own_files._groups(names, {"mine": ("m.py",), "other-v2": ("o.py",)})
    assert groups == {(): ["sinusoid/k5"], ("m.py",): ["mine-v2/a", "mine"], ("o.py",): ["other-v2"]}
    assert own_files._groups([], {"mine": ("m.py",)}) == {(): []}


BACKBONE = """
from torch import nn
from benchmarks.models import register_backbone
register_backbone("own", lambda shape: nn.Linear(shape[-1], 4))
"""


def flat(shape: tuple[int, ...]) -> nn.Module:
    return nn.Flatten()


@pytest.mark.fault("K1")
@pytest.mark.parametrize("factory", [nn.Flatten, functools.partial(flat)])
def test_a_factory_whose_code_is_not_in_the_key_is_refused(factory: Any) -> None:
    with pytest.raises(MetabenchError, match="for backbone 'flat', write a function here that makes it"):
        register_backbone("flat", factory)


@pytest.mark.parametrize(("name", "said"), [("conv4-64", "has the name of another"), ("a, b", "use letters, digits")])
def test_a_backbone_has_a_name_of_its_own(name: str, said: str) -> None:
    before = dict(BACKBONES)
    with pytest.raises(MetabenchError, match=said):
        register_backbone(name, flat)
    assert before == BACKBONES


def test_only_methods_with_an_own_backbone_import_its_file(folder: Path) -> None:
    (folder / "net.py").write_text(BACKBONE)
    methods, tasks, own = named(["./net.py", "maml", "fomaml", write(folder, "mine")], "sinusoid/k5")
    request = Request(methods, tasks, settings={"maml.backbone": "own"})
    found = cells.expand(own_files.resolve_with(own, profiles.load("tiny.toml"), request))
    files = {cell.label: tuple(Path(path).name for path in cell.files) for cell in found}
    assert files == {"maml": ("net.py",), "fomaml": (), "mine": ("mine.py",)}
    plain = cells.expand(resolution.resolve(profiles.load("tiny.toml"), Request(["maml"], tasks)))
    assert {cell.key for cell in plain}.isdisjoint(cell.key for cell in found if cell.label == "maml")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"mine.valu": 1.0}, "unknown field of 'mine' 'valu' (did you mean 'value'?)"),
        ({"mine.value": "big"}, "mine.value = 'big' is str, not float"),
        ({"mien.value": 1.0}, "unknown method or task in settings 'mien' (did you mean 'mine'?)"),
        ({"maml.inner_lr": 1.0}, "setting maml.inner_lr: this run has no maml; it has mine, sinusoid"),
    ],
)
def test_a_setting_that_an_own_method_lacks_is_named(folder: Path, settings: dict[str, object], said: str) -> None:
    methods, tasks, own = named(write(folder, "mine"), "sinusoid/k5")
    with pytest.raises(MetabenchError) as refusal:
        own_files.resolve_with(own, profiles.load("tiny.toml"), Request(methods, tasks, settings=settings))
    assert said in str(refusal.value)


def test_a_name_that_two_files_register_is_refused(folder: Path) -> None:
    (folder / "again.py").write_text(WITNESS.replace("NAME", "mine"))
    methods, tasks, own = named([write(folder, "mine"), "./again.py"], "sinusoid/k5")
    with pytest.raises(MetabenchError, match=r"'mine' is registered twice: in .*again.py and in .*mine.py"):
        own_files.resolve_with(own, profiles.load("tiny.toml"), Request(methods, tasks))


def test_a_variant_of_an_own_task_follows_its_file(folder: Path) -> None:
    path = folder / "waves.py"
    path.write_text(WAVES)
    assert named("maml", "./waves.py/k2")[1] == ["own-waves/k2"]
    with pytest.raises(MetabenchError, match=r"no such plug-in file: \./gone\.py$"):
        named("maml", "./gone.py/k2")
    with pytest.raises(MetabenchError, match=r"mine\.py/k2: a method has no variants: write .*mine\.py$"):
        named(f"{write(folder, 'mine')}/k2", "sinusoid")
    mb.run("nearest-neighbour", "./waves.py/k2", profile="tiny.toml", store="runs")
    with pytest.raises(MetabenchError, match=r"own-waves is no task of the suite: .* task='\./mine\.py/k2'"):
        mb.load("runs", "nearest-neighbour", "own-waves/k2")
    try:
        assert mb.load("runs", "nearest-neighbour", "./waves.py/k2")[2].id == "own-waves-v1/k2"
    finally:
        registry.forget_file(path.resolve())
