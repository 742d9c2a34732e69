"""Methods and task distributions by name.

A plug-in is a file in `maml/`, `baselines/` or `benchmarks/tasks/`, found by itself, or a path to somebody's own file.
Registering twice with other fields gives one class two names: ``fomaml`` is ``maml`` with first-order gradients.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import importlib.util
import pkgutil
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.api import Configured, MetabenchError, MetaLearner, TaskDistribution

Plugin = TypeVar("Plugin", bound=type)

#: packages whose modules are plug-ins
PACKAGES = ("maml", "baselines", "benchmarks.tasks")


@dataclass(frozen=True)
class Entry:
    """A registered name: its class, the field values that it stands for, and the file that defines it."""

    name: str
    cls: type[Any]
    fields: Mapping[str, Any]
    path: Path


_methods: dict[str, Entry] = {}
_tasks: dict[str, Entry] = {}
_discovered = False


def register_method(name: str, **fields: Any) -> Callable[[Plugin], Plugin]:
    """Class decorator: make a `MetaLearner` known as ``name``, with these field values."""
    return _register(_methods, MetaLearner, name, fields)


def register_task(name: str) -> Callable[[Plugin], Plugin]:
    """Class decorator: make a `TaskDistribution` known as ``name``."""
    return _register(_tasks, TaskDistribution, name, {})


def _register(table: dict[str, Entry], base: type, name: str, fields: dict[str, Any]) -> Callable[[Plugin], Plugin]:
    def add(cls: Plugin) -> Plugin:
        path = Path(sys.modules[cls.__module__].__file__ or "")
        if not (dataclasses.is_dataclass(cls) and issubclass(cls, base)):
            raise MetabenchError(f"{path}: {cls.__name__} is not a dataclass derived from {base.__name__}")
        if name in table and table[name].path != path:
            raise MetabenchError(f"{name!r} is registered twice: in {table[name].path} and in {path}")
        table[name] = Entry(name, cls, fields, path)
        if "name" not in vars(cls):
            cls.name = name  # type: ignore[attr-defined]
        return cls

    return add


def discover(paths: Iterable[str | Path] = ()) -> None:
    """Import every plug-in of the suite (once) and the given files."""
    global _discovered
    if not _discovered:
        for package_name in PACKAGES:
            package = importlib.import_module(package_name)
            for module in pkgutil.iter_modules(package.__path__):
                importlib.import_module(f"{package_name}.{module.name}")
        _discovered = True
    for path in paths:
        load_file(Path(path))


def load_file(path: Path) -> list[Entry]:
    """Import a plug-in from a path and return what it registered."""
    if not path.is_file():
        raise MetabenchError(f"no such plug-in file: {path}")
    path = path.resolve()
    module_name = "metabench_plugin_" + path.stem.replace("-", "_")
    known = sys.modules.get(module_name)
    if known is None or Path(known.__file__ or "") != path:
        spec = importlib.util.spec_from_file_location(module_name, path)
        if spec is None or spec.loader is None:
            raise MetabenchError(f"{path} is not a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        try:
            spec.loader.exec_module(module)
        except MetabenchError:
            raise
        except BaseException as error:
            del sys.modules[module_name]
            raise MetabenchError(f"{path} can't be imported: {type(error).__name__}: {error}") from error
    found = [entry for table in (_methods, _tasks) for entry in table.values() if entry.path == path]
    if not found:
        raise MetabenchError(f"{path} registers no method and no task (use @register_method or @register_task)")
    return found


def methods() -> dict[str, Entry]:
    """All registered methods by name."""
    discover()
    return dict(_methods)


def tasks() -> dict[str, Entry]:
    """All registered task distributions by name."""
    discover()
    return dict(_tasks)


def unknown(what: str, name: str, known: Iterable[str]) -> MetabenchError:
    """The one line for a name that is not known: it, the nearest and the known ones."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return MetabenchError(f"unknown {what} {name!r}{hint}; known: {', '.join(known)}")


def method_entry(name: str) -> Entry:
    """The registered method, or an error that names the known ones."""
    table = methods()
    if name not in table:
        raise unknown("method", name, table)
    return table[name]


def task_entry(name: str) -> Entry:
    """The registered task distribution, or an error that names the known ones."""
    table = tasks()
    if name not in table:
        raise unknown("task", name, table)
    return table[name]


def build_task(task_id: str, device: str = "cpu", **fields: Any) -> TaskDistribution:
    """The task distribution for ``omniglot``, ``omniglot/5w1s`` or ``omniglot-v1/5w1s``, with other field values."""
    name, _, variant = task_id.partition("/")
    bare, _, version = name.rpartition("-v")
    if bare and version.isdigit():
        entry = task_entry(bare)
        if int(version) != entry.cls.version:
            raise MetabenchError(f"task {bare!r} has version {entry.cls.version} here, not {version}")
    else:
        entry = task_entry(name)
    variant = variant or next(iter(entry.cls.variants))
    if variant not in entry.cls.variants:
        raise unknown(f"variant of task {entry.name!r}", variant, entry.cls.variants)
    return _build(entry, {"variant": variant, **entry.cls.variants[variant], **fields, "device": device})


def build_method(name: str, tasks: TaskDistribution | None = None, **fields: Any) -> MetaLearner:
    """The method with its published settings for these tasks, then the name's own fields, then ``fields``."""
    entry = method_entry(name)
    settings = for_task(entry.cls.published, tasks) or {} if tasks is not None else {}
    return _build(entry, {**settings, **entry.fields, **fields})


def for_task(table: Mapping[str, Any], tasks: TaskDistribution) -> Any:
    """The row of a table keyed by "task/variant" or "task" that fits best, or None."""
    return table.get(f"{tasks.name}/{tasks.variant}", table.get(tasks.name))


def _build(entry: Entry, fields: Mapping[str, Any]) -> Any:
    hints = typing.get_type_hints(entry.cls)
    known = {f.name for f in dataclasses.fields(entry.cls)}
    for name, value in fields.items():
        if name not in known:
            raise unknown(f"field of {entry.name!r}", name, known)
        check_type(f"{entry.name}.{name}", value, hints[name])
    try:
        instance: Configured = entry.cls(**fields)
    except (TypeError, ValueError) as error:
        raise MetabenchError(f"{entry.name}: {error}") from error
    return instance


def check_type(what: str, value: Any, expected: Any) -> None:
    """Refuse a value of another type than the field's annotation says."""
    arguments = typing.get_args(expected)
    origin = typing.get_origin(expected)
    if origin is typing.Literal:
        if value not in arguments:
            raise MetabenchError(f"{what} = {value!r}; known: {', '.join(map(str, arguments))}")
        return
    allowed = arguments if origin in (typing.Union, types.UnionType) else (expected,)
    plain = tuple(typing.get_origin(kind) or kind for kind in allowed)
    numbers = (bool,) if bool in plain else ()
    fits = isinstance(value, numbers) if isinstance(value, bool) else isinstance(value, plain)
    if not fits and not (float in plain and isinstance(value, int) and not isinstance(value, bool)):
        names = " or ".join(getattr(kind, "__name__", str(kind)) for kind in plain)
        raise MetabenchError(f"{what} = {value!r} is {type(value).__name__}, not {names}")


def describe() -> dict[str, Any]:
    """Methods, tasks and which fits which, as plain data for programs."""
    return {
        "methods": {
            name: {
                "summary": _summary(entry.cls),
                "file": str(entry.path),
                "kinds": sorted(entry.cls.kinds),
                "needs": sorted(entry.cls.needs),
                "fits": entry.cls.fits,
                "regimes": list(entry.cls.regimes),
                "fields": _fields(entry),
            }
            for name, entry in methods().items()
        },
        "tasks": {
            name: {
                "summary": _summary(entry.cls),
                "file": str(entry.path),
                "kind": entry.cls.kind,
                "version": entry.cls.version,
                "metric": entry.cls.metric,
                "offers": sorted(entry.cls.offers),
                "variants": {variant: dict(fields) for variant, fields in entry.cls.variants.items()},
                "fields": _fields(entry),
            }
            for name, entry in tasks().items()
        },
        "compatibility": {method: {task: incompatible(method, task) for task in tasks()} for method in methods()},
    }


def _summary(cls: type) -> str:
    return (cls.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")


def _fields(entry: Entry) -> dict[str, Any]:
    return {
        f.name: entry.fields.get(f.name, None if f.default is dataclasses.MISSING else f.default)
        for f in dataclasses.fields(entry.cls)
        if f.metadata.get("configuration", True)
    }


def incompatible(method_name: str, task_id: str) -> str | None:
    """Why this method can't be run on this task (any of its variants, if none is named); None if it can."""
    tasks = build_task(task_id)
    method = build_method(method_name, tasks)
    if tasks.kind not in method.kinds:
        return f"{method_name} is for {' and '.join(sorted(method.kinds))}, {tasks.name} is {tasks.kind}"
    for need in sorted(method.needs - tasks.offers):
        return f"{method_name} needs {need}, which {tasks.name} does not offer"
    return method.refuses(tasks)
