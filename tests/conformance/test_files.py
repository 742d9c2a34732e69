"""``metabench check FILE``: the file in a process of its own, every ending in words, and modules as backbones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from whole_runs import Answer

from benchmarks import conformance, registry
from benchmarks.errors import MetabenchError

Findings = Callable[[str], list[conformance.Finding]]
ZEROS = """
from dataclasses import dataclass
from typing import ClassVar
from benchmarks.api import MetaLearner
from benchmarks.registry import register_method

@register_method("zeros")
@dataclass(frozen=True)
class Zeros(MetaLearner):
    '''Predicts zeros.'''
    kinds: ClassVar = frozenset({"regression"})
    fits: ClassVar = False

    def adapt(self, state, support, tasks):
        import os, sys, time
        yield lambda x, memory=None: (x.new_zeros(*x.shape[:2], tasks.outputs), None)
"""
#: names that can't be typed in a list of names, or that are paths
ODD_NAMES = ("", "a,b", "a b", "../a", "a/b", "<b>")
NETWORK = """
import torch
from torch import nn
from benchmarks.models import register_backbone

def network(shape):
    return nn.Sequential(nn.Flatten(), nn.Linear(shape[-1], 8), nn.Tanh())

register_backbone("own", network)
"""


def test_a_file_that_holds_the_contract(tmp_path: Path, command_line: Callable[..., Answer]) -> None:
    (tmp_path / "mine.py").write_text("print('aside')\n" + ZEROS)
    answer = command_line("check", tmp_path / "mine.py")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.splitlines() == [
        "tried:     import",
        "tried:     zeros: class data",
        "tried:     zeros on sinusoid-v1/k5: adaptation up to step 0 on 3 test episodes (regression)",
        f"{tmp_path / 'mine.py'}: holds the contract",
    ]


YIELD, IMPORT = "        yield", "\nfrom dataclasses"


@pytest.mark.fault("S5")
@pytest.mark.parametrize(
    ("before", "statement", "said"),
    [
        (IMPORT, "import os; os._exit(0)", "exited with code 0 in the middle (in: import)"),
        (IMPORT, "import sys; sys.exit(0)", "mine.py:1 can't be imported: SystemExit: 0"),
        (YIELD, "        os._exit(0)", "exited with code 0 in the middle (in: zeros on sinusoid-v1/k5"),
        (YIELD, "        time.sleep(99)", "mine.py:16: the check did not finish: took longer than 3 s"),
        (YIELD, "        os.kill(os.getpid(), 11)", "mine.py:16: the check did not finish: killed by SIGSEGV"),
    ],
)
def test_whatever_a_file_does_is_one_line_and_code_2(
    tmp_path: Path, command_line: Callable[..., Answer], before: str, statement: str, said: str
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(ZEROS.replace(before, statement + (before if before == IMPORT else f"\n{before}")))
    answer = command_line("check", path, "--seconds", 3 if "sleep" in statement else 60)
    assert answer.code == 2
    assert said in answer.err
    assert answer.err.count("\n") == 1
    assert "holds the contract" not in answer.out


@pytest.mark.fault("U2")
def test_a_complaint_is_printed_with_its_line(tmp_path: Path, command_line: Callable[..., Answer]) -> None:
    path = tmp_path / "mine.py"
    path.write_text(ZEROS.replace("        yield", "        raise OverflowError('too much')\n        yield"))
    answer = command_line("check", path)
    assert f"complaint: {path}:16: zeros on sinusoid-v1/k5: raises OverflowError: too much\n" in answer.out
    assert (answer.code, answer.err) == (2, f"metabench: {path}: 1 complaint\n")


@pytest.mark.fault("S5")
@pytest.mark.parametrize(
    ("text", "said"),
    [
        *((ZEROS.replace('"zeros"', f"'{odd}'"), "use letters, digits, '-', '_' and '.'") for odd in ODD_NAMES),
        ("x = 1", "registers no method and no task \\(use @register_method"),
        ("\nimport nothing_of_that_name", "odd.py:2 can't be imported: ModuleNotFoundError"),
        ("def f(:", "odd.py:1 can't be imported: SyntaxError"),
        ("import sys\nsys.exit(0)", "odd.py:2 can't be imported: SystemExit: 0"),
        ("from os import path\ndef f():\n  path.join(1)\nf()", "odd.py:3 can't be imported: TypeError"),
    ],
)
def test_a_file_that_is_no_plugin_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "odd.py"
    path.write_text(text)
    for _ in range(2):
        with pytest.raises(MetabenchError, match=said):
            registry.load_file(path)


def test_a_file_that_fails_registers_nothing(tmp_path: Path) -> None:
    path = tmp_path / "odd.py"
    path.write_text(ZEROS + "1 / 0\n")
    with pytest.raises(MetabenchError, match="ZeroDivisionError"):
        registry.load_file(path)
    assert "zeros" not in registry.methods()
    path.write_text(ZEROS)
    assert [entry.name for entry in registry.load_file(path)] == ["zeros"]


def test_files_of_one_name_in_two_folders_and_their_neighbours(tmp_path: Path) -> None:
    for folder, word in (("one", "zeros"), ("two", "ones")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"helper_of_{folder}.py").write_text(f"WORD = '{word}'\n")
        text = f"from helper_of_{folder} import WORD\n" + ZEROS.replace('"zeros"', "WORD")
        (tmp_path / folder / "mine.py").write_text(text)
    for _ in range(2):
        found = [registry.load_file(tmp_path / folder / "mine.py")[0].name for folder in ("one", "two")]
        assert found == ["zeros", "ones"]


@pytest.mark.fault("S5")
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("torch.set_default_dtype(torch.float64)", "changes torch's default dtype"),
        ("import os; os.chdir('/')", "changes the current folder"),
        ("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)", "changes the handler of SIGTERM"),
        ("torch.set_grad_enabled(False)", "changes torch's gradient mode"),
    ],
)
def test_settings_that_a_file_changes_are_named(
    tmp_path: Path, command_line: Callable[..., Answer], text: str, said: str
) -> None:
    (tmp_path / "mine.py").write_text(f"import torch\n{text}\n{ZEROS}")
    answer = command_line("check", tmp_path / "mine.py")
    assert answer.code == 2
    assert f"complaint: {said}: every method of the process would see that\n" in answer.out


# --- backbones -------------------------------------------------------------------------------------------------------


@pytest.mark.fault("U2")
def test_a_file_with_backbones_alone_is_checked_where_they_fit(findings: Findings) -> None:
    found = findings(NETWORK.replace("shape[-1]", "1"))
    assert conformance.complaints(found) == []
    assert [str(each) for each in found if each.kind == "tried"][1:] == [
        "backbone 'own' on sinusoid-v1/k5: inputs (1,), MAML for 2 meta-steps",
        "backbone 'own' on glyphs-v1/5w1s: inputs (1, 28, 28), MAML for 2 meta-steps",
    ]


def test_a_backbone_for_large_images_is_tried_without_training(findings: Findings) -> None:
    image = "nn.Sequential(nn.Conv2d(3, 4, 5, 8), nn.BatchNorm2d(4), nn.Flatten())"
    found = findings(NETWORK + f"\nregister_backbone('own', lambda shape: {image})\n")
    assert conformance.complaints(found) == []
    assert any("on inputs (3, 84, 84), without training" in str(each) for each in found)


@pytest.mark.fault("O1")
@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("nn.Tanh()", "nn.Dropout()", "backbone 'own' draws random numbers (Dropout '2')"),
        ("nn.Linear(shape[-1], 8)", "nn.Linear(7, 8)", "backbone 'own' fails on inputs of shape (3, 84, 84)"),
        ("nn.Linear(shape[-1], 8)", "nn.Linear(1 / 0, 8)", "mine.py:7: backbone 'own' fails on"),
    ],
)
def test_a_backbone_that_breaks_a_promise_is_one_line(findings: Findings, old: str, new: str, said: str) -> None:
    (line,) = conformance.complaints(findings(NETWORK.replace(old, new)))
    assert said in line


def test_a_backbone_that_vmap_does_not_follow_or_without_second_derivative_is_a_note(findings: Findings) -> None:
    body = """
class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return gradient * ctx.saved_tensors[0].cos()

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 8)

    def forward(self, x):
        return Once.apply(self.layer(x))

register_backbone("other", lambda shape: Net())
"""
    found = findings(NETWORK + body)
    assert conformance.complaints(found) == []
    notes = [str(each) for each in found if each.kind == "note"]
    assert any("backbone 'other' goes through the tasks one after the other (torch.vmap" in line for line in notes)
    assert any("no second derivative; use first order, as fomaml does" in line for line in notes)
