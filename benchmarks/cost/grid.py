"""Which settings are measured: the grids of `grid.toml`, checked key by key, and the choice of the command line."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.checks import check_known, check_table, read_toml, unknown
from benchmarks.cost import learners, peers
from benchmarks.cost.workloads import WORKLOADS
from benchmarks.errors import MetabenchError

FILE = Path(__file__).with_name("grid.toml")
ORDERS = ("second", "first")
#: the work that is timed: training ("meta-step"), or adapting to episodes and predicting their queries without a graph
#: ("evaluation"), which has no second order; "learners": training of other learners next to MAML's
WORKS = ("meta-step", "evaluation", "learners")
TRAINING = ("meta-step", "learners")


@dataclass(frozen=True)
class Variant:
    """An order, an implementation and its plan ("" if it has only one), and the learner: variants of a setting are
    compared."""

    order: str
    implementation: str
    plan: str = ""
    learner: str = "maml"

    @property
    def label(self) -> str:
        """``ours/rule``, ``learn2learn``: the implementation with its plan."""
        return f"{self.implementation}/{self.plan}" if self.plan else self.implementation

    def __str__(self) -> str:
        named = f"{self.order} {self.label}"
        return named if self.learner == "maml" else f"{self.learner} {named}"


@dataclass(frozen=True)
class Setting:
    """A backbone, a meta-batch and a number of inner steps, with the variants that one process compares.

    rounds: the most timed blocks of each variant.
    seconds: of timing; the last round may begin before they are over.
    limit: seconds of the process.
    work: one of `WORKS`; the meta-batch of an evaluation is the number of episodes in a block."""

    backbone: str
    meta_batch: int
    inner_steps: int
    variants: tuple[Variant, ...]
    rounds: int
    seconds: float
    limit: float
    work: str = WORKS[0]

    def __str__(self) -> str:
        steps = f"{self.inner_steps} inner step{'s' if self.inner_steps > 1 else ''}"
        batch = f"{self.meta_batch} {'episodes evaluated' if self.work == 'evaluation' else 'tasks'}"
        return f"{self.backbone}, {batch}, {steps}"


@dataclass(frozen=True)
class Choice:
    """The choice of the command line; an empty field means all that the profile has.

    plan: of the suite's own engine. Inner steps and meta-batches are those of meta-steps unless ``work`` is given."""

    backbones: Sequence[str] = ()
    inner_steps: Sequence[int] = ()
    meta_batches: Sequence[int] = ()
    orders: Sequence[str] = ()
    implementations: Sequence[str] = ()
    plan: str | None = None
    work: str | None = None
    learners: Sequence[str] = ()


_KEYS: dict[str, Any] = {
    "backbones": [str],
    "inner_steps": [int],
    "meta_batches": [int],
    "orders": [str],
    "implementations": [str],
    "rounds": int,
    "seconds": float,
    "limit": float,
    "work": str,
    "learners": [str],
}
_OPTIONAL = ("work", "learners")


def profiles(path: Path = FILE) -> dict[str, str]:
    """The profiles with their descriptions."""
    return {name: str(body.get("about", "")) for name, body in _read(path).items()}


def throughput(profile: str, path: Path = FILE) -> bool:
    """Whether the profile also measures environment steps per second."""
    return bool(_read(path).get(profile, {}).get("throughput", False))


def settings(profile: str, choice: Choice | None = None, path: Path = FILE) -> list[Setting]:
    """The chosen settings of a profile, each once. Raises `MetabenchError` for an unknown name.

    A backbone, a number of steps or a meta-batch that the profile does not list is measured like the grid of that
    backbone, or else like the last grid."""
    known = _read(path)
    check_known("cost profile", profile, known)
    listed = known[profile].get("grids")
    if not isinstance(listed, list) or not listed:
        raise MetabenchError(f"cost profile {profile!r}: write each grid as a block, [[cost.{profile}.grids]]")
    grids = [_checked(profile, grid) for grid in listed]
    choice = choice or Choice()
    _check_choice(choice)
    found: dict[tuple[str, str, int, int], Setting] = {}
    for grid in _asked(grids, choice):
        for setting in _of_grid(grid, choice):
            found.setdefault((setting.work, setting.backbone, setting.meta_batch, setting.inner_steps), setting)
    if not found:
        raise MetabenchError(f"cost profile {profile!r} has no setting like that")
    return list(found.values())


def variants(
    names: Sequence[str], orders: Sequence[str], plan: str | None = None, asked: Sequence[str] = ("maml",)
) -> tuple[Variant, ...]:
    """The variants of these names: ``ours`` stands for all of its plans, or for ``plan`` if one is forced, ``ours/all``
    for that plan, and the name of another implementation for its usual plan.

    asked: learners; each comes in its own orders, where the implementation has it."""
    found: dict[Variant, None] = {}
    for name in names:
        implementation, _, own = name.partition("/")
        known = peers.plans(implementation)
        if own and own not in known:
            raise unknown(f"plan of {implementation!r}", own, [each or "(none)" for each in known])
        chosen = (own,) if own else ("",) if "" in known else known
        if plan is not None and implementation == "ours":
            chosen = (plan,)
        made = (
            Variant(order, implementation, each, learner)
            for learner in asked
            if learner in peers.learners(implementation)
            for each in chosen
            for order in orders
            if order in learners.orders(learner)
        )
        found.update(dict.fromkeys(made))
    return tuple(found)


def _asked(grids: Sequence[Mapping[str, Any]], choice: Choice) -> Iterator[Mapping[str, Any]]:
    work = choice.work or ("learners" if choice.learners else None)
    works = (work,) if work else TRAINING if choice.inner_steps or choice.meta_batches else WORKS
    of_work = [grid for grid in grids if grid.get("work", WORKS[0]) in works]
    if not choice.backbones:
        yield from of_work
    for name in choice.backbones:
        others = [grid for grid in of_work if work is not None or grid.get("work", WORKS[0]) in TRAINING]
        listed = [grid for grid in of_work if name in grid["backbones"]] or others[-1:]
        yield from ({**grid, "backbones": [name]} for grid in listed)


def _of_grid(grid: Mapping[str, Any], choice: Choice) -> Iterator[Setting]:
    work = grid.get("work", WORKS[0])
    orders = [order for order in choice.orders or grid["orders"] if work in TRAINING or order in grid["orders"]]
    asked = choice.learners or grid.get("learners", ("maml",))
    compared = variants(choice.implementations or grid["implementations"], orders, choice.plan, asked)
    if not compared:
        return
    axes = grid["backbones"], choice.meta_batches or grid["meta_batches"], choice.inner_steps or grid["inner_steps"]
    for backbone, meta_batch, steps in itertools.product(*axes):
        yield Setting(backbone, meta_batch, steps, compared, grid["rounds"], grid["seconds"], grid["limit"], work)


def _here(names: Sequence[str]) -> list[str]:
    """The names without those whose plan needs another machine."""
    parts = [(name, *name.partition("/")[::2]) for name in names]
    return [name for name, implementation, plan in parts if plan not in peers.elsewhere(implementation)]


def _check_choice(choice: Choice) -> None:
    for name in choice.backbones:
        check_known("backbone", name, WORKLOADS)
    for order in choice.orders:
        check_known("order", order, ORDERS)
    if choice.work is not None:
        check_known("work", choice.work, WORKS)
    for learner in choice.learners:
        check_known("learner", learner, learners.LEARNERS)
    if choice.plan is not None:
        check_known("plan of 'ours'", choice.plan, peers.plans("ours"))
    variants(choice.implementations, ORDERS)


def _checked(profile: str, grid: Any) -> Mapping[str, Any]:
    if not isinstance(grid, dict):
        raise MetabenchError(f"cost profile {profile!r}: write each grid as a block, [[cost.{profile}.grids]]")
    check_table("cost profile", profile, grid, _KEYS)
    if missing := [key for key in _KEYS if key not in grid and key not in _OPTIONAL]:
        raise MetabenchError(f"cost profile {profile!r}: a grid lacks {', '.join(missing)}")
    check_known(f"work of cost profile {profile!r}", work := grid.get("work", WORKS[0]), WORKS)
    if work == "evaluation" and grid["orders"] != ["first"]:
        raise MetabenchError(f'cost profile {profile!r}: an evaluation keeps no graph, so its orders are ["first"]')
    grid = {**grid, "implementations": _here(grid["implementations"])}
    if "learners" in grid and work != "learners":
        raise MetabenchError(f'cost profile {profile!r}: learners need work = "learners", not {work!r}')
    named = {name: grid[name] for name in ("backbones", "orders", "implementations")}
    _check_choice(Choice(**named, learners=grid.get("learners", ())))
    return grid


def _read(path: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = read_toml(path, "cost profiles").get("cost", {})
    return found


def plain(setting: Setting) -> dict[str, Any]:
    """The setting as JSON can hold it."""
    return dataclasses.asdict(setting)


def from_plain(values: Mapping[str, Any]) -> Setting:
    """The setting that `plain` wrote."""
    return Setting(**{**values, "variants": tuple(Variant(**each) for each in values["variants"])})
