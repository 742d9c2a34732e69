"""Methods and task distributions by name.

A plug-in is a file in `maml/`, `baselines/` or `benchmarks/tasks/`, or a path to your own. A class may have several
names with other fields (``fomaml``), and a name several classes, each for its own kinds of task (``maml``).
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import importlib.util
import pkgutil
import sys
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.api import KINDS, Configured, MetabenchError, MetaLearner, TaskDistribution
from benchmarks.checks import check_device, check_known, check_name, check_size, check_type, unknown
from benchmarks.errors import raised_at
from benchmarks.origin import Origin, ours

Plugin = TypeVar("Plugin", bound=type)

#: packages whose modules are plug-ins
PACKAGES = ("maml", "baselines", "benchmarks.tasks")


@dataclass(frozen=True)
class Entry:
    """A registered name: its class, the field values that it stands for, and the file that defines it.

    further: the same name on other kinds of task."""

    name: str
    cls: type[Any]
    fields: Mapping[str, Any]
    path: Path
    further: tuple[Entry, ...] = ()

    @property
    def all(self) -> tuple[Entry, ...]:
        """This one and the further ones."""
        return self, *self.further

    @property
    def known_fields(self) -> set[str]:
        """The names of the fields."""
        return {f.name for f in dataclasses.fields(self.cls)}


_methods: dict[str, Entry] = {}
_tasks: dict[str, Entry] = {}
_discovered = False
#: files that register something else, such as a backbone
other_files: set[Path] = set()


def register_method(name: str, **fields: Any) -> Callable[[Plugin], Plugin]:
    """Class decorator: make a `MetaLearner` known as ``name``, with these field values."""
    return _register(_methods, MetaLearner, name, fields)


def register_task(name: str) -> Callable[[Plugin], Plugin]:
    """Class decorator: make a `TaskDistribution` known as ``name``."""
    return _register(_tasks, TaskDistribution, name, {})


def _register(table: dict[str, Entry], base: type, name: str, fields: dict[str, Any]) -> Callable[[Plugin], Plugin]:
    def add(cls: Plugin) -> Plugin:
        path = Path(getattr(sys.modules[cls.__module__], "__file__", None) or "")
        check_name(f"{path}: registered", name)
        if not (dataclasses.is_dataclass(cls) and issubclass(cls, base)):
            raise MetabenchError(f"{path}: {cls.__name__} is not a dataclass derived from {base.__name__}")
        known = table[name].all if name in table else ()
        rivals = [
            other for other in known if not _kinds(cls) or not _kinds(other.cls) or _kinds(cls) & _kinds(other.cls)
        ]
        for other in rivals:
            if other.path != path:
                raise MetabenchError(f"{name!r} is registered twice: in {other.path} and in {path}")
        kept = [dataclasses.replace(other, further=()) for other in known if other not in rivals]
        first, *further = sorted((Entry(name, cls, fields, path), *kept), key=_first_kind)
        table[name] = dataclasses.replace(first, further=tuple(further))
        if "name" not in vars(cls):
            cls.name = name  # type: ignore[attr-defined]
        return cls

    return add


def _kinds(cls: type) -> frozenset[str]:
    """The kinds of task that a method is for; none for what is no method."""
    return frozenset(getattr(cls, "kinds", None) or ())


def _first_kind(entry: Entry) -> int:
    return min((KINDS.index(kind) for kind in _kinds(entry.cls) & set(KINDS)), default=len(KINDS))


def discover(paths: Iterable[str | Path] = ()) -> None:
    """Import every plug-in of the suite (once) and the given files."""
    global _discovered
    if not _discovered:
        for package_name in PACKAGES:
            package = importlib.import_module(package_name)
            for module in pkgutil.walk_packages(package.__path__, f"{package_name}."):
                importlib.import_module(module.name)
        _discovered = True
    for path in paths:
        load_file(Path(path))


def load_file(path: Path) -> list[Entry]:
    """Import a plug-in from a path and return its entries; the modules in its folder can be imported, too.

    A file that fails registers nothing. Raises `MetabenchError`, with the line where an exception came from."""
    if not path.is_file():
        raise MetabenchError(f"no such plug-in file: {path}")
    path = path.resolve()
    module_name = _module_name(path)
    if module_name not in sys.modules:
        spec = importlib.util.spec_from_file_location(module_name, path)
        if spec is None or spec.loader is None:
            raise MetabenchError(f"{path} is not a Python file")
        if str(path.parent) not in sys.path:
            sys.path.append(str(path.parent))  # last, so that it hides no other module
        module = sys.modules[module_name] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException as error:
            forget_file(path)
            if isinstance(error, (MetabenchError, KeyboardInterrupt)):
                raise
            line = f"{type(error).__name__}: {error}"
            raise MetabenchError(f"{raised_at(error, path) or path} can't be imported: {line}") from error
    own = [each for table in (_methods, _tasks) for first in table.values() for each in first.all if each.path == path]
    if not own and path not in other_files:
        raise MetabenchError(f"{path} registers no method and no task (use @register_method or @register_task)")
    return own


def _module_name(path: Path) -> str:
    return f"metabench_plugin_{path.stem.replace('-', '_')}_{hashlib.sha256(bytes(path)).hexdigest()[:8]}"


def forget_file(path: Path) -> None:
    """Withdraw what a plug-in file has registered, so that `load_file` imports it again: it may have changed."""
    path = path.resolve()
    sys.modules.pop(_module_name(path), None)
    for table in (_methods, _tasks):
        for name, first in list(table.items()):
            kept = [dataclasses.replace(entry, further=()) for entry in first.all if entry.path != path]
            del table[name]
            if kept:
                table[name] = dataclasses.replace(kept[0], further=tuple(kept[1:]))
    other_files.discard(path)


def methods() -> dict[str, Entry]:
    """All registered methods by name; a name with several classes has the first of them, with the `Entry.further`."""
    discover()
    return dict(_methods)


def tasks() -> dict[str, Entry]:
    """All registered task distributions by name."""
    discover()
    return dict(_tasks)


def method_entry(name: str, kind: str | None = None) -> Entry:
    """The registered method, or an error that names the known ones.

    kind: of the tasks it is for, where a name has several classes; the first of them, if none is for that kind."""
    table = methods()
    check_known("method", name, table)
    return next((entry for entry in table[name].all if kind in _kinds(entry.cls)), table[name])


def task_entry(name: str) -> Entry:
    """The registered task distribution, or an error that names the known ones."""
    table = tasks()
    check_known("task", name, table)
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
    check_known(f"variant of task {entry.name!r}", variant, entry.cls.variants)
    chosen = {"variant": variant, **entry.cls.variants[variant], **fields, "device": check_device(device)}
    return _build(entry, chosen)


def build_method(name: str, tasks: TaskDistribution | None = None, **fields: Any) -> MetaLearner:
    """The method with its published settings for these tasks, then the name's own fields, then ``fields``."""
    entry = method_entry(name, tasks.kind if tasks is not None else None)
    return _build(entry, {**_settings(entry, tasks), **fields})


def _settings(entry: Entry, tasks: TaskDistribution | None) -> dict[str, Any]:
    published = for_task(entry.cls.published, tasks) or {} if tasks is not None else {}
    return {**published, **entry.fields}


def method_from(plain: Mapping[str, Any], kind: str) -> MetaLearner:
    """The method that a cell or a record describes: its ``name`` and all its ``fields``."""
    entry = method_entry(plain["name"], kind)
    learner: MetaLearner = entry.cls(**_values(plain["fields"]))
    return learner


def task_from(plain: Mapping[str, Any], device: str = "cpu") -> TaskDistribution:
    """The task distribution that a cell or a record describes: its ``name`` and all its ``fields``."""
    tasks: TaskDistribution = task_entry(plain["name"]).cls(**_values(plain["fields"]), device=device)
    return tasks


def _values(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


def check_method_setting(name: str, field: str, value: Any) -> None:
    """Refuse a field that no class of a method has, or a value that one of them cannot take."""
    entries = method_entry(name).all
    having = [entry for entry in entries if field in entry.known_fields]
    if not having:
        raise unknown(f"field of {name!r}", field, set().union(*(entry.known_fields for entry in entries)))
    for entry in having:
        _build(entry, {**entry.fields, field: value})


def for_task(table: Mapping[str, Any], tasks: TaskDistribution) -> Any:
    """The row of a table keyed by "task/variant", "task" or a kind of tasks that fits best, or None."""
    keys = (f"{tasks.name}/{tasks.variant}", tasks.name, tasks.kind)
    return next((table[key] for key in keys if key in table), None)


def origin(method: MetaLearner, name: str, tasks: TaskDistribution, meta_steps: int = 0) -> Origin:
    """Where the settings of a method, registered as ``name``, come from on these tasks.

    meta_steps: those that `MetaLearner.for_budget` was told; 0: none."""
    defaults = {field.name: field.default for field in dataclasses.fields(method)}
    usual, config = {**defaults, **_settings(method_entry(name, tasks.kind), tasks)}, method.config()
    if meta_steps and any(value != usual[field] for field, value in config.items()):
        usual = build_method(name, tasks).for_budget(meta_steps).config()
    changed = [f"{field}={value}" for field, value in config.items() if value != usual[field]]
    if changed:
        return ours(f"set for this run: {', '.join(changed)}")
    if not config:
        return Origin("none", "it has no settings")
    return for_task(method.origins, tasks) or method.origins.get("", ours("the method does not say"))


def _build(entry: Entry, fields: Mapping[str, Any]) -> Any:
    hints = typing.get_type_hints(entry.cls)
    for name, value in fields.items():
        check_known(f"field of {entry.name!r}", name, entry.known_fields)
        check_type(f"{entry.name}.{name}", value, hints[name])
        check_size(f"{entry.name}.{name}", value)
    try:
        instance: Configured = entry.cls(**fields)
    except (TypeError, ValueError) as error:
        raise MetabenchError(f"{entry.name}: {error}") from error
    return instance


def incompatible(method_name: str, task_id: str) -> str | None:
    """Why this method can't be run on this task (any of its variants, if none is named); None if it can."""
    tasks = build_task(task_id)
    return mismatch(build_method(method_name, tasks), method_name, tasks)


def mismatch(method: MetaLearner, name: str, tasks: TaskDistribution) -> str | None:
    """Why this method, registered as ``name``, can't be run on these tasks; None if it can."""
    if tasks.kind not in method.kinds:
        kinds = set().union(*(_kinds(entry.cls) for entry in method_entry(name).all))
        return f"{name} is for {' and '.join(sorted(kinds))}, {tasks.name} is {tasks.kind}"
    if tasks.kind == "control":
        try:
            _ = tasks.discount
        except MetabenchError as reason:
            return str(reason)
    for need in sorted(method.needs - tasks.offers):
        return f"{name} needs {need}, which {tasks.name} does not offer"
    return method.refuses(tasks)
