"""Which code is in the key of a cell: everything that its classes reach by import, and nothing else."""

import ast
import sys
import textwrap

import pytest

from benchmarks import registry
from benchmarks.program import essence
from benchmarks.run import cells, code_hash, profiles, resolution
from benchmarks.run.resolution import Request


def quick():
    return resolution.resolve(profiles.load("quick"), Request())


def touched(path, monkeypatch):
    """The cells of quick whose keys change with this file of the suite, as (kind, label, kind of task)."""
    assert (code_hash.ROOT / path).is_file()
    source, resolved = code_hash._source, quick()
    before = cells.expand(resolved)

    def changed(file):
        digest, names = source(file)
        return ("changed" if file == code_hash.ROOT / path else digest), names

    code_hash._hash_of.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(code_hash, "_source", changed)
        after = cells.expand(quick())
    code_hash._hash_of.cache_clear()
    kinds = {task: tasks.facts.kind for task, tasks in resolved.tasks.items()}
    pairs = [pair for pair in zip(before, after, strict=True) if pair[0].skip is None]
    return (
        {(a.kind, a.label, kinds[a.task]) for a, b in pairs if a.key != b.key},
        {(a.kind, a.label, kinds[a.task]) for a, b in pairs if a.key == b.key},
    )


@pytest.mark.fault("K1")
@pytest.mark.parametrize(
    ("path", "concerned"),
    [
        ("benchmarks/run/selection.py", lambda kind, label, task: kind == "evaluation"),
        ("benchmarks/run/fitting.py", lambda kind, label, task: True),
        ("benchmarks/sampling.py", lambda kind, label, task: True),
        ("baselines/matching_nets.py", lambda kind, label, task: label.startswith("matching-nets")),
        ("benchmarks/tasks/bandit.py", lambda kind, label, task: None),
        ("benchmarks/run/worker.py", lambda kind, label, task: False),
        ("benchmarks/records/store.py", lambda kind, label, task: False),
        ("benchmarks/clock.py", lambda kind, label, task: False),
        ("benchmarks/registry.py", lambda kind, label, task: False),
    ],
)
def test_a_changed_file_changes_the_keys_concerned_and_no_others(path, concerned, monkeypatch):
    changed, same = touched(path, monkeypatch)
    if path == "benchmarks/tasks/bandit.py":
        assert {task for _, _, task in changed} == {"control"}
        return
    assert all(concerned(*cell) for cell in changed)
    assert not any(concerned(*cell) for cell in same)


@pytest.mark.fault("K1")
def test_a_parents_fit_is_in_the_key_of_its_children(monkeypatch):
    child = registry.method_entry("context-vector", "control").cls
    (parent,) = (each for each in child.__mro__[1:] if each.__module__ == "maml.control.maml")
    assert "fit" in vars(parent)
    before = code_hash.code_hash([child], [])
    source = code_hash._source
    code_hash._hash_of.cache_clear()
    monkeypatch.setattr(code_hash, "_source", lambda p: ("changed", source(p)[1]) if p.name == "maml.py" else source(p))
    assert code_hash.code_hash([child], []) != before
    code_hash._hash_of.cache_clear()


PLUGIN = """
import near
from dataclasses import dataclass
from typing import ClassVar
from benchmarks.api import MetaLearner
from benchmarks.registry import register_method

@register_method("hashed")
@dataclass(frozen=True)
class Hashed(MetaLearner):
    '''For the test.'''
    kinds: ClassVar = frozenset({"regression"})

    def adapt(self, state, support, tasks):
        from parts.inner import twice  # wherever it stands
        yield twice(near.ONE)
"""

FILES = {
    "mine.py": PLUGIN,
    "near.py": "import numpy\nONE = 1\n",
    "parts/__init__.py": "",
    "parts/inner.py": "from .deep import two\nimport parts.absolute\n\ndef twice(x):\n    return two * x\n",
    "parts/deep.py": "from ..near import ONE\ntwo = 2\n",
    "parts/absolute.py": "HALF = 0.5\n",
    "stranger.py": "nobody imports it\n",
}


def forget_sources():
    """As in a new process."""
    for cached in (code_hash._hash_of, code_hash._source, code_hash._neighbours, code_hash._module_files):
        cached.cache_clear()


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A plug-in with neighbours, and the function that hashes it as a new process would."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    (entry,) = registry.load_file(tmp_path / "mine.py")

    def hashed():
        forget_sources()
        return code_hash.code_hash([entry.cls], [])

    yield hashed
    forget_sources()
    del registry._methods["hashed"]
    for name in ("near", "parts", "metabench_plugin_mine"):
        sys.modules.pop(name, None)


@pytest.mark.fault("K1")
@pytest.mark.parametrize("name", sorted(FILES.keys() - {"stranger.py"}))
def test_a_neighbour_of_a_plug_in_is_part_of_it(plugin, tmp_path, name):
    before = plugin()
    path = tmp_path / name
    path.write_text(path.read_text() + "# a comment\n")
    assert plugin() == before
    path.write_text(path.read_text() + "MORE = 1\n")
    assert plugin() != before
    (tmp_path / "stranger.py").write_text("def broken(:\n")
    after = plugin()
    (tmp_path / "stranger.py").unlink()
    assert plugin() == after


def test_a_neighbour_that_is_no_python_counts_by_its_bytes(plugin, tmp_path):
    (tmp_path / "near.py").write_text("print 'of another age'\n")
    before = plugin()
    (tmp_path / "near.py").write_text("print 'of yet another age'\n")
    assert plugin() != before


def test_the_source_of_libraries_is_not_hashed():
    import torch

    class Net(torch.nn.Module):
        """A parent in a library."""

    assert list(code_hash._with_parents(Net)) == [Net]


PLAIN = "def double(x):\n    return 2 * x\n\nclass A:\n    b = 1\n"


@pytest.mark.parametrize(
    ("text", "same"),
    [
        (
            '"""About."""\n\n\ndef double(x):\n    """Twice."""\n    return (2 * x)  # why\nclass A:\n  "doc"\n  b=1',
            True,
        ),
        (PLAIN.replace("2", "3"), False),
        (PLAIN.replace("2", "2.0"), False),
        (PLAIN.replace("return 2 * x", "'text'; 'more'; return 2 * x"), False),
        (PLAIN.replace("b = 1", "b = 'text'"), False),
    ],
)
def test_comments_docstrings_and_layout_are_not_code(text, same):
    plain, other = (repr(essence(ast.parse(source))) for source in (PLAIN, text))
    assert (plain == other) is same


def test_strings_with_values_have_one_essence_in_all_versions_of_python():
    """3.12.1 ends the inner specification with an empty constant; so does this tree, made by hand."""
    tree = ast.parse('f"a{x!r:>{w}}" "b"')
    inner = next(node for node in ast.walk(tree) if isinstance(node, ast.FormattedValue) and node.format_spec)
    before = essence(tree)
    inner.format_spec.values.append(ast.Constant(""))
    assert essence(tree) == before
    assert essence(ast.parse(textwrap.dedent('f"a{x!r:<{w}}" "b"'))) != before
