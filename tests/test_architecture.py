"""Which module may import which, and what no module may do. New files are found by themselves."""

from __future__ import annotations

import ast
import functools
import graphlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import registry

ROOT = Path(__file__).parents[1]
PACKAGES = ("benchmarks", "maml", "baselines", "reports")
PLUGINS = ("maml", "baselines", "benchmarks.tasks")
#: room -> the rooms that it may import; those of `benchmarks` without its name. Any other arrow is a mistake.
ARROWS = {
    # the contract, and what a method or a task is made of
    **dict.fromkeys(("errors", "origin", "sampling", "clock", "machine", "masking", "cache", "program"), ""),
    **dict.fromkeys(("failed_adaptations",), ""),
    "api": "errors origin",
    "checks": "errors",
    "execution": "checks errors",
    "registry": "api checks errors origin",
    "training": "api",
    "models": "api checks errors registry",
    "environments": "api checks errors execution registry sampling",
    "images": "api cache checks errors sampling",
    # plug-ins
    "tasks": "api checks environments errors images program registry sampling",
    "maml": "api checks environments execution models origin registry sampling training",
    "baselines": "api checks environments maml models origin registry sampling training",
    # what runs, stores, compares and shows: it is handed plug-ins
    "conformance": "api errors models registry",
    "records": "checks errors masking registry",
    "run": "api checks clock errors execution failed_adaptations machine masking models program records registry",
    "stats": "checks errors failed_adaptations records sampling",
    "compare": "checks errors records registry stats",
    "cost": (
        "api checks clock environments errors execution machine models records registry run sampling stats training"
    ),
    "gate": "benchmarks api cost errors machine models records registry stats",
    "python_api": "api checks errors execution records registry run stats",
    "reports": "errors gate records stats reports.cost reports.page reports.scores",
    "reports.cost": "errors records stats reports reports.scores",
    "reports.page": "records reports reports.cost reports.scores",
    "reports.scores": "compare errors records stats reports reports.cost",
    "commands": (
        "cache checks compare cost errors gate images machine python_api records registry run stats reports "
        "reports.cost reports.page"
    ),
    "benchmarks": "api errors models python_api registry",
    "__main__": "commands",
}
#: what no module of a room reaches, by any path
NEVER_REACHED = {
    **dict.fromkeys(
        (*PLUGINS, "benchmarks.training", "benchmarks.models", "benchmarks.environments", "benchmarks.images"),
        (
            "run",
            "records",
            "stats",
            "compare",
            "cost",
            "gate",
            "conformance",
            "commands",
            "python_api",
            "clock",
            "machine",
        ),
    ),
    "benchmarks.run.worker": ("run.isolate", "run.schedule", "commands"),
    "benchmarks.run.fitting": ("run.worker", "run.schedule", "run.isolate", "records", "commands"),
    "benchmarks.run.isolate": ("run.schedule", "run.cells", "commands"),
    "benchmarks.run.schedule": ("commands",),
    "benchmarks.records.store": ("run", "commands", "registry"),
}
#: clocks, printing, files, processes and a global generator are not a method's business
NOT_FOR_METHODS = (
    *("datetime", "io", "logging", "multiprocessing", "os", "pathlib", "random", "shutil", "subprocess", "sys"),
    *("tempfile", "time", "rich", "typer", "tqdm"),
)
LONGEST_FILE = 350


def within(name: str, packages: tuple[str, ...]) -> bool:
    """Whether a dotted name is one of these or lies in one of them."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}
REPORTS = [name for name in MODULES if within(name, ("reports",))]


def room_of(module: str) -> str:
    """The key of `ARROWS`: the longest that the name begins with."""
    names = module.removeprefix("benchmarks.").split(".")
    return next((room for room in (".".join(names[:2]), names[0]) if room in ARROWS), module)


def imported(tree: ast.AST) -> Iterator[str]:
    """Every module that the source names in an import, wherever it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: import by the full name"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else str(node.module) for name in names)


@functools.cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


@functools.cache
def imports(module: str) -> frozenset[str]:
    return frozenset(imported(tree_of(module))) - {module}


def suite_imports(module: str) -> set[str]:
    return {name for name in imports(module) if within(name, PACKAGES)}


def reached(module: str) -> set[str]:
    """What is imported by a module, by what it imports, and so on."""
    seen: set[str] = set()
    ahead = [module]
    while ahead:
        found = suite_imports(ahead.pop()) & MODULES.keys()
        ahead += found - seen
        seen |= found
    return seen


def test_every_import_of_the_suite_exists_and_none_goes_in_a_circle() -> None:
    missing = {(module, name) for module in MODULES for name in suite_imports(module) if name not in MODULES}
    assert not missing
    graphlib.TopologicalSorter({module: suite_imports(module) for module in MODULES}).prepare()


def test_rooms_import_what_the_table_says() -> None:
    found = {(room_of(module), room_of(name)) for module in MODULES for name in suite_imports(module)}
    allowed = {(room, other) for room, others in ARROWS.items() for other in (room, *others.split())}
    assert found - allowed == set()
    assert {arrow for arrow in allowed - found if arrow[0] != arrow[1]} == set(), "arrows that nothing needs any more"


@pytest.mark.parametrize("room", NEVER_REACHED)
def test_some_rooms_are_out_of_reach(room: str) -> None:
    modules = [module for module in MODULES if within(module, (room,))]
    never = tuple(f"benchmarks.{name}" for name in NEVER_REACHED[room])
    assert modules
    assert {name for module in modules for name in reached(module) if within(name, never)} == set()


def test_a_method_has_no_clock_no_log_and_no_files() -> None:
    for module in (name for name in MODULES if within(name, ("maml", "baselines"))):
        assert {name for name in imports(module) if within(name, NOT_FOR_METHODS)} == set(), module
        assert [call for call in names_called(tree_of(module)) if call in ("print", "open", "input")] == [], module


def test_plug_ins_are_imported_by_package_name_inside_the_discovery_function() -> None:
    tree = tree_of("benchmarks.registry")
    (discover,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "discover")
    everywhere, inside = (
        [call for call in names_called(part) if call.endswith("import_module") or call == "__import__"]
        for part in (tree, discover)
    )
    assert everywhere == inside != []
    assert registry.PACKAGES == PLUGINS


def loaded_after(code: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after running the code in the checkout."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules, sep='\\n')"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=True)
    return set(done.stdout.split())


def test_reports_never_load_torch() -> None:
    loaded = loaded_after("\n".join(f"import {module}" for module in REPORTS))
    assert set(REPORTS) <= loaded
    assert "torch" not in loaded


def test_the_command_line_answers_before_anything_heavy_is_loaded() -> None:
    loaded = loaded_after("import benchmarks.commands.app")
    assert "benchmarks.commands.app" in loaded
    assert loaded.isdisjoint({"torch", "numpy", "pandas", "pyarrow", "matplotlib", "scipy"})


def dotted(node: ast.AST) -> str:
    """``np.random.seed`` for that chain of attributes; ".name" for an attribute of anything else."""
    if isinstance(node, ast.Name):
        return node.id
    return f"{dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else ""


def names_called(tree: ast.AST) -> list[str]:
    return [dotted(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]


#: functions of torch and methods of tensors that draw from the global generator unless they are given one
DRAWS = (
    *("rand", "randn", "randint", "randperm", "normal", "multinomial", "bernoulli", "poisson"),
    *("rand_like", "randn_like"),
)
DRAWS_IN_PLACE = (
    *("normal_", "uniform_", "bernoulli_", "random_", "exponential_", "geometric_", "cauchy_", "log_normal_"),
)


def global_draws(tree: ast.AST) -> Iterator[str]:
    """What draws from, or seeds, a global random generator."""
    yield from (name for name in imported(tree) if within(name, ("random", "numpy.random", "torch.nn.init")))
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        owner, _, name = dotted(node.func).rpartition(".")
        given = any(keyword.arg == "generator" for keyword in node.keywords)
        seeded = bool(node.args or node.keywords)
        if owner in ("np.random", "numpy.random"):
            states = ("Generator", "SeedSequence", "Philox", "PCG64", "get_state")
            draws = name not in states and not (name == "default_rng" and seeded)
        elif owner in ("torch", "torch.random", "torch.cuda"):
            seeds = name in ("manual_seed", "manual_seed_all", "seed", "set_rng_state")
            draws = seeds or (name in DRAWS and not given)
        elif owner.endswith("nn.init") or name in ("dropout", "Dropout", "gumbel_softmax", "rrelu"):
            draws = True
        else:
            draws = name in DRAWS_IN_PLACE and not given
        if draws:
            yield f"line {node.lineno}: {owner}.{name}"


def test_no_module_draws_from_a_global_generator() -> None:
    assert {module: found for module in MODULES if (found := list(global_draws(tree_of(module))))} == {}


def test_global_draws_are_told_from_seeded_ones() -> None:
    for source in (
        *("torch.manual_seed(0)", "torch.randn(3)", "torch.cuda.manual_seed_all(1)", "w.normal_()", "F.dropout(x)"),
        *("np.random.seed(0)", "np.random.normal(size=3)", "np.random.default_rng()", "import random"),
        *("from random import shuffle", "from numpy.random import rand", "nn.init.zeros_(w)", "f(x).uniform_(0, 1)"),
    ):
        assert list(global_draws(ast.parse(source))), source
    for source in (
        *("torch.Generator().manual_seed(0)", "torch.rand(3, generator=g)", "w.normal_(generator=g)"),
        *("np.random.default_rng(3)", "from benchmarks import sampling", "sampling.normal(key, indices, 3)"),
    ):
        assert list(global_draws(ast.parse(source))) == [], source


def test_one_place_asks_for_a_graph_of_the_gradient() -> None:
    exempt = ("reports", "benchmarks.cost.peers")
    places = [
        f"{module}:{node.value.lineno}"
        for module in MODULES
        if not within(module, exempt)
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.keyword) and node.arg == "create_graph"
    ]
    assert len(places) == 1, places
    assert places[0].startswith("maml.inner_loop:")


@functools.cache
def files() -> tuple[Path, ...]:
    """The files of the project: what git knows or would add; all but hidden ones where this is no git checkout."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
        found = [ROOT / name for name in listed if name]
    except (OSError, subprocess.CalledProcessError):
        found = [path for path in ROOT.rglob("*") if not any(p.startswith(".") for p in path.relative_to(ROOT).parts)]
    return tuple(path for path in found if path.is_file())


def test_no_file_is_too_long() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in files()
        if path.suffix == ".py"
    }
    assert len(lengths) > len(MODULES)
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST_FILE} == {}


def places_of_this_machine() -> Iterator[tuple[str, str]]:
    """Paths that exist for somebody only (homes, this checkout, its data, its interpreter): a text and a pattern."""
    for home in ("home", "root", "Users", "mnt", "scratch"):
        yield f"/{home}/", rf"(?<![\w.:/-])/{home}/"
    yield ":\\Users\\", r"\b[A-Z]:\\Users\\"
    folders = [Path.home(), ROOT.parent, Path(sys.prefix), Path(os.environ.get("METABENCH_DATA") or ROOT)]
    for folder in folders:
        if len(folder.parts) > 1 and folder != Path(tempfile.gettempdir()):
            yield str(folder), rf"(?<![\w.-]){re.escape(str(folder))}\b"


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    places = [(text.encode(), re.compile(pattern.encode())) for text, pattern in places_of_this_machine()]
    neighbour = b"../" + b"shared"
    named = []
    for path in files():
        content, name = path.read_bytes(), path.relative_to(ROOT).as_posix()
        if path != Path(__file__):
            named += [f"{name}: {text!r}" for text, place in places if text in content and place.search(content)]
        if neighbour in content and name != ".ci/run":
            named.append(f"{name}: {neighbour!r}")
    assert named == []
