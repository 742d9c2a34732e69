"""Records in the very format of a store, with planted numbers: what the tests of the report read."""

from __future__ import annotations

import hashlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from benchmarks.records.store import Store

SINUSOID = {
    "id": "sinusoid-v1/k10", "name": "sinusoid", "version": 1, "variant": "k10", "kind": "regression", "fields": {},
    "metric": "squared error", "higher_is_better": False, "equivalence_margin": 1.1, "data": None,
}  # fmt: skip
GLYPHS = {
    "id": "glyphs-v1/5w1s", "name": "glyphs", "version": 1, "variant": "5w1s", "kind": "classification", "fields": {},
    "metric": "accuracy", "higher_is_better": True, "equivalence_margin": 0.002, "data": "0123456789abcdef",
}  # fmt: skip


def key_of(*parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


class Maker:
    """Writes made-up records into a store."""

    def __init__(self, folder: Path, episodes: int = 60) -> None:
        self.store = Store(folder)
        self.episodes = episodes
        rows = [(episode, query, query % 5, 7 * query) for episode in range(episodes) for query in range(10)]
        self.digest = self.store.write_episodes(pd.DataFrame(rows, columns=["episode", "query", "class", "item"]))

    def header(self, cell: str, label: str, task: dict[str, Any], seed: int, **changes: Any) -> dict[str, Any]:
        name, parts = label.split(" [")[0], sorted(map(str, changes.items()))
        header = {
            "key": key_of(cell, label, task["id"], seed, parts), "cell": cell,
            "status": "ok", "reason": None, "stderr": "",
            "label": label, "task": task, "seed": seed, "profile": "quick",
            "method": {
                "name": name, "fields": {"inner_steps": 1},
                "facts": {"backbone": "mlp-40-40", "mean_loss_inner_lr": 2.0},
            },
            "budget": {"meta_steps": 2000, "seconds": 300, "validate_every": 100, "validation_episodes": 50},
            "training": None, "memory": {"peak_bytes": 3 * 10**8}, "threads": 1, "device": "cpu", "plan": {},
            "machine": {
                "id": "a1b2c3d4", "cpu": "Imaginary 9000", "usable_cores": 2, "memory_gib": 8,
                "os": "Linux", "gpu": None,
            },
            "versions": {"python": "3.11.2", "torch": "2.13.0"}, "git": {"commit": "f" * 40, "dirty": False},
            "started": "2031-05-01T10:00:00Z", "finished": "2031-05-01T10:01:00Z",
        }  # fmt: skip
        return {**header, **changes}

    def training(self, label: str, task: dict[str, Any], seed: int, under_trained: bool = False) -> dict[str, Any]:
        steps = np.arange(0, 2001, 200)
        start, end = (4.0, 0.3) if task is SINUSOID else (0.2, 0.9)
        levels = end + (start - end) * np.exp(-steps / 500 * (1 + 0.2 * seed))
        curve = [
            {
                "step": int(s),
                "seconds": s / 50,
                "examples": int(s) * 250,
                "loss": 1.0,
                "score": float(v),
                "standard_error": 0.02,
            }
            for s, v in zip(steps, levels, strict=True)
        ]
        return {
            "fit": key_of("fit", label, task["id"], seed, []), "meta_steps": 2000, "published_meta_steps": 7000,
            "share": 2000 / 7000, "still_improving": under_trained, "under_trained": under_trained, "seconds": 40.0,
            "examples": 500000, "environment_steps": 0, "stopped_by": "budget", "best_step": 2000,
            "best_validation": float(levels[-1]), "curve": curve, "parameters": 1761, "regime": "query",
        }  # fmt: skip

    def fit(self, label: str, task: dict[str, Any], seed: int = 0, under_trained: bool = False) -> None:
        training = self.training(label, task, seed, under_trained)
        self.store.write({**self.header("fit", label, task, seed), "key": training["fit"], "training": training})

    def evaluation(
        self, label: str, task: dict[str, Any], seed: int = 0, *, regime: str = "none", level: float = 0.5,
        slope: float = 0.0, steps: int = 1, fits: bool = True, under_trained: bool = False, exhibit: bool = False,
        role: str | None = None, queries: int = 10, curve_episodes: int = 20, model: str = "best", **changes: Any,
    ) -> str:  # fmt: skip
        """One evaluation; scores at every step on the first episodes, at the last step on all."""
        frame = self.scores(task, label, seed, regime, level, slope, steps, queries, curve_episodes)
        header = self.header("evaluation", label, task, seed, **{"regime": regime, **changes})
        del header["regime"]
        if model != "best":
            header["key"] = key_of(header["key"], model)
        if role:
            header["method"]["facts"]["role"] = role
        header["training"] = self.training(label, task, seed, under_trained) if fits else None
        images = task["kind"] == "classification"
        header["evaluation"] = {
            "split": "test", "regime": regime, "model": model, "way": 5 * images, "shots": 1 if images else 10,
            "queries": queries, "episodes": self.episodes, "reported_steps": [steps - 1], "headline_step": steps - 1,
            "curve_episodes": curve_episodes, "selection": "published", "trials": 0, "chosen": {},
            "seconds_per_task": 0.01,
            "episodes_digest": self.digest if images else None, "task_id": task["id"],
        }  # fmt: skip
        self.store.write(header, scores=frame, arrays=exhibited(task, steps) if exhibit else None)
        return header["key"]

    def scores(self, task, label, seed, regime, level, slope, steps, queries, curve_episodes) -> pd.DataFrame:
        hardness = np.random.default_rng(1).normal(size=self.episodes)
        own = np.random.default_rng(int(key_of(label, seed, regime), 16) % 2**32)
        blocks = []
        for step in range(steps):
            shown = np.arange(self.episodes if step == steps - 1 else min(curve_episodes, self.episodes))
            mean = level + slope * step / max(1, steps - 1) + 0.03 * hardness[shown][:, None]
            if task["kind"] == "classification":
                score = own.random((len(shown), queries)) < mean
            else:
                score = (np.abs(mean) * own.gamma(2, 0.5, (len(shown), queries))).astype(np.float32)
            episode, query = np.meshgrid(shown, np.arange(queries), indexing="ij")
            columns = {"step": step, "episode": episode.ravel(), "query": query.ravel(), "score": score.ravel()}
            blocks.append(pd.DataFrame(columns))
        return pd.concat(blocks, ignore_index=True)

    def unfinished(
        self, label: str, task: dict[str, Any], status: str, reason: str, stderr: str = "", seed: int = 0
    ) -> None:
        header = self.header("fit", label, task, seed, status=status, reason=reason, stderr=stderr)
        self.store.write(header)


def exhibited(task: dict[str, Any], steps: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(3)
    if task["kind"] == "classification":
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
        make.evaluation("nearest-neighbour", SINUSOID, level=1.7, fits=False, **common)
        make.evaluation("oracle", SINUSOID, level=0.01, role="ceiling", **common)
        for label, level in (("maml", 0.93), ("maml [tuned]", 0.94), ("matching-nets", 0.80), ("finetune", 0.7)):
            make.fit(label, GLYPHS, seed)
            for regime in ("query", "support") if "maml" in label else ("support", "running"):
                steps = 1 if label == "matching-nets" else 6
                make.evaluation(
                    label, GLYPHS, regime=regime, level=level - 0.05 * (regime == "support"), steps=steps, **common
                )
        make.evaluation("nearest-neighbour", GLYPHS, level=0.43, fits=False, **common)
        make.evaluation("chance", GLYPHS, level=0.2, fits=False, role="floor", **common)
        make.unfinished(
            "matching-nets", SINUSOID, "error", "RuntimeError: <b>planted</b>", "Traceback:\n  planted", seed
        )
        make.unfinished("maml", {**GLYPHS, "id": "miniimagenet-v1/5w1s"}, "skipped", "no images at hand", seed=seed)
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
