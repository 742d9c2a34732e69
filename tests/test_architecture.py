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
#: what a method is made of
CONTRACT = tuple(
    f"benchmarks.{name}"
    for name in ("api", "errors", "registry", "sampling", "training", "execution", "models", "environments")
)
#: what runs, times, stores and shows: it is handed plug-ins, and a plug-in never asks for it
MACHINERY = (
    *("reports", "benchmarks.__main__", "benchmarks.commands", "benchmarks.run", "benchmarks.records"),
    *("benchmarks.clock", "benchmarks.machine", "benchmarks.conformance", "benchmarks.stats", "benchmarks.compare"),
    *("benchmarks.cost", "benchmarks.gate"),
)
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
METHODS = [name for name in MODULES if within(name, ("maml", "baselines"))]
REPORTS = [name for name in MODULES if within(name, ("reports",))]


def imported(tree: ast.AST, module: str, is_package: bool = False) -> Iterator[str]:
    """Every module that the source names in an import, wherever it stands, as far as it is a module of the suite."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                parts = parts[: len(parts) - node.level + is_package]
                base = ".".join([*parts, *([base] if base else [])])
            submodules = [f"{base}.{alias.name}" for alias in node.names if f"{base}.{alias.name}" in MODULES]
            yield from submodules
            if len(submodules) < len(node.names):
                yield base


@functools.cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


@functools.cache
def imports(module: str) -> frozenset[str]:
    return frozenset(imported(tree_of(module), module, MODULES[module].name == "__init__.py")) - {module}


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


def outside(module: str, allowed: tuple[str, ...]) -> set[str]:
    return {name for name in suite_imports(module) if not within(name, allowed)}


def test_every_import_of_the_suite_exists() -> None:
    missing = {(module, name) for module in MODULES for name in suite_imports(module) if name not in MODULES}
    assert not missing


def test_no_module_imports_itself_by_a_detour() -> None:
    order = graphlib.TopologicalSorter({module: suite_imports(module) for module in MODULES})
    order.prepare()


def test_the_contract_imports_nothing_of_the_suite() -> None:
    assert outside("benchmarks.api", ("benchmarks.errors",)) == set()
    assert suite_imports("benchmarks.errors") == set()


@pytest.mark.parametrize("module", METHODS)
def test_a_method_imports_the_contract_only(module: str) -> None:
    own = module.partition(".")[0]
    peers = ("maml",) if own == "baselines" else ()
    assert outside(module, (*CONTRACT, own, *peers)) == set()


@pytest.mark.parametrize("module", METHODS)
def test_a_method_has_no_clock_no_log_and_no_files(module: str) -> None:
    assert {name for name in imports(module) if within(name, NOT_FOR_METHODS)} == set()
    assert [call for call in names_called(tree_of(module)) if call in ("print", "open", "input")] == []


@pytest.mark.parametrize("module", [name for name in MODULES if within(name, (*PLUGINS, *CONTRACT))])
def test_a_plug_in_never_reaches_what_runs_it(module: str) -> None:
    assert {name for name in reached(module) if within(name, MACHINERY)} == set()


@pytest.mark.parametrize("module", [name for name in MODULES if not within(name, PLUGINS)])
def test_the_suite_imports_no_plug_in(module: str) -> None:
    assert {name for name in suite_imports(module) if within(name, PLUGINS)} == set()


def test_plug_ins_are_imported_by_package_name_inside_the_discovery_function() -> None:
    tree = tree_of("benchmarks.registry")
    (discover,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "discover")
    everywhere, inside = (
        [call for call in names_called(part) if call.endswith("import_module") or call == "__import__"]
        for part in (tree, discover)
    )
    assert everywhere == inside != []
    assert registry.PACKAGES == PLUGINS


@pytest.mark.parametrize("module", REPORTS)
def test_reports_read_records(module: str) -> None:
    stats = ("benchmarks.records", "benchmarks.stats", "benchmarks.errors")
    assert outside(module, ("reports", *stats)) == set()
    assert not any(within(name, ("torch",)) for name in imports(module))


def test_only_the_command_line_imports_reports() -> None:
    commands = ("benchmarks.__main__", "benchmarks.commands.app")
    others = {name for name in MODULES if not within(name, ("reports", *commands))}
    assert {name for name in others if any(within(found, ("reports",)) for found in suite_imports(name))} == set()


@pytest.mark.parametrize(
    ("module", "never"),
    [
        ("benchmarks.run.worker", ("run.isolate", "run.schedule", "commands", "__main__")),
        ("benchmarks.run.fitting", ("run.worker", "run.schedule", "run.isolate", "records", "commands", "__main__")),
        ("benchmarks.run.isolate", ("run.schedule", "run.cells", "commands", "__main__")),
        ("benchmarks.run.schedule", ("commands", "__main__")),
        ("benchmarks.records.store", ("run", "commands", "registry", "__main__")),
        ("benchmarks.machine", ("run", "records", "commands", "registry", "__main__")),
        ("benchmarks.stats", ("run", "commands", "registry", "__main__")),
        ("benchmarks.execution", ("run", "records", "commands", "registry", "__main__")),
    ],
)
def test_imports_go_one_way(module: str, never: tuple[str, ...]) -> None:
    if module not in MODULES:
        pytest.skip(f"there is no {module} yet")
    assert {name for name in reached(module) if within(name, tuple(f"benchmarks.{each}" for each in never))} == set()


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
    "rand",
    "randn",
    "randint",
    "randperm",
    "normal",
    "multinomial",
    "bernoulli",
    "poisson",
    "rand_like",
    "randn_like",
)
DRAWS_IN_PLACE = (
    "normal_",
    "uniform_",
    "bernoulli_",
    "random_",
    "exponential_",
    "geometric_",
    "cauchy_",
    "log_normal_",
)


def global_draws(tree: ast.AST) -> Iterator[str]:
    """What draws from, or seeds, a global random generator."""
    yield from (name for name in imported(tree, "") if within(name, ("random", "numpy.random", "torch.nn.init")))
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        owner, _, name = dotted(node.func).rpartition(".")
        given = any(keyword.arg == "generator" for keyword in node.keywords)
        seeded = bool(node.args or node.keywords)
        allowed = name in ("Generator", "SeedSequence", "Philox", "PCG64", "get_state") or (
            name == "default_rng" and seeded
        )
        if owner in ("np.random", "numpy.random"):
            draws = not allowed
        elif owner in ("torch", "torch.random", "torch.cuda"):
            seeds = name in ("manual_seed", "manual_seed_all", "seed", "set_rng_state")
            draws = seeds or (name in DRAWS and not given)
        elif owner.endswith("nn.init") or name in ("dropout", "Dropout", "gumbel_softmax", "rrelu"):
            draws = True
        else:
            draws = name in DRAWS_IN_PLACE and not given
        if draws:
            yield f"line {node.lineno}: {owner}.{name}"


@pytest.mark.parametrize("module", MODULES)
def test_no_module_draws_from_a_global_generator(module: str) -> None:
    assert list(global_draws(tree_of(module))) == []


@pytest.mark.parametrize(
    "source",
    [
        *("torch.manual_seed(0)", "torch.randn(3)", "torch.cuda.manual_seed_all(1)", "w.normal_()", "F.dropout(x)"),
        *("np.random.seed(0)", "np.random.normal(size=3)", "np.random.default_rng()", "import random"),
        *("from random import shuffle", "from numpy.random import rand", "nn.init.zeros_(w)", "f(x).uniform_(0, 1)"),
    ],
)
def test_global_draws_are_seen(source: str) -> None:
    assert list(global_draws(ast.parse(source)))


@pytest.mark.parametrize(
    "source",
    [
        *("torch.Generator().manual_seed(0)", "torch.rand(3, generator=g)", "w.normal_(generator=g)"),
        *("np.random.default_rng(3)", "from benchmarks import sampling", "sampling.normal(key, indices, 3)"),
    ],
)
def test_seeded_draws_are_allowed(source: str) -> None:
    assert list(global_draws(ast.parse(source))) == []


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


def places_of_this_machine() -> Iterator[str]:
    """Patterns of paths that exist for somebody only: homes, this checkout, its data, its interpreter."""
    yield r"(?<![\w.:/-])/(home|root|Users|mnt|scratch)/"
    yield r"\b[A-Z]:\\Users\\"
    folders = [Path.home(), ROOT.parent, Path(sys.prefix), Path(os.environ.get("METABENCH_DATA") or ROOT)]
    temporary = Path(tempfile.gettempdir())
    for folder in folders:
        if len(folder.parts) > 1 and folder != temporary:
            yield rf"(?<![\w.-]){re.escape(str(folder))}\b"


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    machine = re.compile("|".join(places_of_this_machine()))
    neighbour = "../" + "shared"
    named = []
    for path in files():
        text = path.read_bytes().decode("utf-8", errors="ignore")
        name = path.relative_to(ROOT).as_posix()
        if path != Path(__file__) and (found := machine.search(text)):
            named.append(f"{name}: {found[0]}")
        if neighbour in text and name != ".ci/run":
            named.append(f"{name}: {neighbour}")
    assert named == []
