"""Records with planted numbers in a store: what the tests of the reports read."""

from __future__ import annotations

import dataclasses
import hashlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.records.record import (
    Budget,
    CurvePoint,
    Evaluation,
    Git,
    Machine,
    Method,
    Record,
    StepSummary,
    Task,
    Test,
    Training,
)
from benchmarks.records.store import Store

SINUSOID = Task("sinusoid-v1/k10", "sinusoid", 1, "k10", "regression", "squared error", False, 1.1, {})
GLYPHS = Task(
    "glyphs-v1/5w1s", "glyphs", 1, "5w1s", "classification", "accuracy", True, 0.002, {}, data="0123456789abcdef"
)
MACHINE = Machine("a1b2c3d4", "Imaginary 9000", "x86_64", 2, 2, 2, 8, "Linux", "Linux")


def key_of(*parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


class Maker:
    """Writes made-up records into a store."""

    def __init__(self, folder: Path, episodes: int = 60) -> None:
        self.store = Store(folder)
        self.episodes = episodes
        query = np.tile(np.arange(10), (episodes, 1))
        self.digest = self.store.write_episodes({"classes": query % 5, "items": 7 * query})

    def header(self, cell: Any, label: str, task: Task, seed: int | None, **changes: Any) -> Record:
        """A record without results. changes: fields of `Record`."""
        header = Record(
            key_of(cell, label, task, seed, sorted(changes.items(), key=str)),
            cell,
            label,
            method=Method(
                label.split(" [")[0], {"inner_steps": 1}, {"backbone": "mlp-40-40", "mean_loss_inner_lr": 2.0}
            ),
            task=task,
            seed=seed,
            profile="quick",
            budget=Budget(2000, 300, 50, 20),
            peak_bytes=3 * 10**8,
            machine=MACHINE,
            versions={"python": "3.11.2", "torch": "2.13.0"},
            git=Git("f" * 40, False),
            started="2031-05-01T10:00:00Z",
            finished="2031-05-01T10:01:00Z",
        )
        return dataclasses.replace(header, **changes)

    def training(self, label: str, task: Task, seed: int, under_trained: bool = False) -> Training:
        steps = np.arange(0, 2001, 200)
        start, end = (4.0, 0.3) if task.metric == "squared error" else (0.2, 0.9)
        levels = end + (start - end) * np.exp(-steps / 500 * (1 + 0.2 * seed))
        curve = tuple(
            CurvePoint(step, step / 50, step * 250, 0, 1.0, level, 0.02)
            for step, level in zip(steps.tolist(), levels.tolist(), strict=True)
        )
        return Training(
            fit=key_of("fit", label, task.id, seed),
            method=label,
            meta_steps=2000,
            published_meta_steps=7000,
            share=(500 if under_trained else 2000) / 7000,
            still_improving=under_trained,
            seconds=40.0,
            examples=500000,
            environment_steps=0,
            stopped_by="budget",
            best_step=2000,
            best_validation=curve[-1].score,
            curve=curve,
            parameters=1761,
            regime="query",
        )

    def fit(self, label: str, task: Task, seed: int = 0, under_trained: bool = False) -> None:
        training = self.training(label, task, seed, under_trained)
        self.store.write(self.header("fit", label, task, seed, key=training.fit, training=training))

    def evaluation(
        self, label: str, task: Task, seed: int = 0, *, regime: str = "none", level: float = 0.5, slope: float = 0.0,
        steps: int = 1, fits: bool = True, under_trained: bool = False, exhibit: bool = False, role: str | None = None,
        queries: int = 10, curve_episodes: int = 20, model: str = "best", trained_on: str | None = None,
        shots: int | None = None, environment_steps: float | None = None, facts: dict[str, Any] | None = None,
        arrays: dict[str, np.ndarray] | None = None, **changes: Any,
    ) -> str:  # fmt: skip
        """One evaluation; scores at every step on the first episodes, at the last step on all.

        environment_steps: per inner step. facts: of the method. changes: fields of `Record`."""
        scores = self.scores(task, label, seed, regime, level, slope, steps, queries, curve_episodes)
        summary = tuple(
            StepSummary(step, None, None, None, len(v), None, environment_steps and step * environment_steps)
            for step, v in enumerate(scores)
        )
        images = task.kind == "classification"
        if fits and "training" not in changes:
            changes["training"] = self.training(label, task, seed, under_trained)
        record = self.header("evaluation", label, task, seed if fits else None, **changes)
        test = Test(model, regime, (steps - 1,), summary, 0.01)
        method = record.method or Method(label, {})
        record = dataclasses.replace(
            record,
            key=key_of(record.key, regime, model, shots, trained_on),
            method=dataclasses.replace(
                method, facts={**method.facts, **({"role": role} if role else {}), **(facts or {})}
            ),
            evaluation=Evaluation(
                split="test",
                task_id=task.id,
                trained_on=trained_on or task.id,
                way=5 if images else None,
                shots=shots or (1 if images else 10),
                queries=queries,
                episodes=self.episodes,
                selection="published",
                validation_episodes=50,
                curve_episodes=curve_episodes,
                episodes_digest=self.digest if images else None,
            ),
            tests=(test,),
        )
        arrays = exhibited(task, steps) if exhibit else arrays
        named = {test.scores_name(step): values for step, values in enumerate(scores)}
        return self.store.write(record, scores=named, arrays=arrays).key

    def scores(
        self, task: Task, label: str, seed: int, regime: str, level: float, slope: float, steps: int, queries: int,
        curve_episodes: int,
    ) -> list[np.ndarray]:  # fmt: skip
        """``[episodes, queries]`` per step."""
        hardness = np.random.default_rng(1).normal(size=self.episodes)
        own = np.random.default_rng(int(key_of(label, seed, regime), 16) % 2**32)
        found = []
        for step in range(steps):
            shown = self.episodes if step == steps - 1 else min(curve_episodes, self.episodes)
            mean = level + slope * step / max(1, steps - 1) + 0.03 * hardness[:shown, None]
            if task.kind == "classification":
                found.append(own.random((shown, queries)) < mean)
            else:
                found.append((np.abs(mean) * own.gamma(2, 0.5, (shown, queries))).astype(np.float32))
        return found

    def unfinished(
        self, label: str, task: Task, status: Any, reason: str, stderr: str = "", seed: int | None = 0
    ) -> None:
        self.store.write(self.header("fit", label, task, seed, status=status, reason=reason, stderr=stderr))


def exhibited(task: Task, steps: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(3)
    if task.kind == "classification":
        return {
            "support_images": generator.integers(0, 255, (2, 5, 28, 28), dtype=np.uint8),
            "support_labels": np.tile(np.arange(5, dtype=np.int16), (2, 1)),
            "query_images": generator.integers(0, 255, (2, 10, 28, 28), dtype=np.uint8),
            "query_labels": np.tile(np.arange(10, dtype=np.int16) % 5, (2, 1)),
            "predicted": generator.integers(0, 5, (steps, 2, 10)).astype(np.int16),
            "steps": np.arange(steps, dtype=np.int16),
        }
    x = np.linspace(-5, 5, 101, dtype=np.float32)
    truth = np.stack([3 * np.sin(x - 1), 0.5 * np.sin(x)])
    return {
        "x": x, "truth": truth, "steps": np.arange(steps, dtype=np.int16),
        "predicted": np.stack([truth * (1 - 0.7 ** (step + 0.2)) for step in range(steps)]),
        "support_x": x[None, ::10].repeat(2, 0), "support_y": truth[:, ::10],
    }  # fmt: skip


def full_store(folder: Path) -> Maker:
    """Two tasks, several methods, two seeds, regimes, a tuned row, an oracle, failures and skips."""
    make = Maker(folder)
    for seed in (0, 1):
        common = {"seed": seed, "exhibit": seed == 0}
        for label, level, steps in (("maml", 0.4, 11), ("fomaml", 0.5, 11), ("finetune", 1.5, 11)):
            make.fit(label, SINUSOID, seed, under_trained=label == "finetune")
            make.evaluation(
                label, SINUSOID, level=3.0, slope=level - 3.0, steps=steps, under_trained=label == "finetune", **common
            )
        make.evaluation("oracle", SINUSOID, level=0.01, role="ceiling", **common)
        for label, level in (("maml", 0.93), ("maml [tuned]", 0.94), ("matching-nets", 0.80), ("finetune", 0.7)):
            make.fit(label, GLYPHS, seed)
            for regime in ("query", "support") if "maml" in label else ("support", "running"):
                steps = 1 if label == "matching-nets" else 6
                make.evaluation(
                    label, GLYPHS, regime=regime, level=level - 0.05 * (regime == "support"), steps=steps, **common
                )
        make.unfinished(
            "matching-nets", SINUSOID, "error", "RuntimeError: <b>planted</b>", "Traceback:\n  planted", seed
        )
        make.unfinished(
            "maml", dataclasses.replace(GLYPHS, id="miniimagenet-v1/5w1s"), "skipped", "no images at hand", seed=seed
        )
    make.evaluation("nearest-neighbour", SINUSOID, level=1.7, fits=False, exhibit=True)
    make.evaluation("nearest-neighbour", GLYPHS, level=0.43, fits=False, exhibit=True)
    make.evaluation("chance", GLYPHS, level=0.2, fits=False, role="floor", exhibit=True)
    return make


def student(count: int) -> float:
    """The quantile of a 95 % interval over so many episodes."""
    return float(stats.t.ppf(0.975, count - 1))


class Parsed(HTMLParser):
    """Attributes of all elements, the text of all table rows, and unbalanced tags."""

    VOID = frozenset({"meta", "img", "path", "br", "input", "link", "use", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.attributes: list[tuple[str, str, str]] = []
        self.ids: list[str] = []
        self.rows: list[list[str]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attributes]
        self.ids += [value or "" for name, value in attributes if name == "id"]
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th") and self.rows:
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, text: str) -> None:
        if self.open and {"td", "th"} & set(self.open[-4:]) and self.rows and self.rows[-1]:
            self.rows[-1][-1] += text
