"""What is kept of a store: everything but trained states, and pictures that may not be passed on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.records import export
from benchmarks.records.store import Store

ROOT = Path(__file__).parents[2]


def exhibit() -> dict[str, np.ndarray]:
    return {"query_images": np.zeros((1, 2, 4, 4, 3), np.uint8), "query_labels": np.zeros((1, 2), np.int16)}


def test_pictures_that_may_not_be_passed_on_stay_behind(tmp_path: Path) -> None:
    source, target = Store(tmp_path / "all"), Store(tmp_path / "kept")
    base = {"cell": "evaluation", "status": "ok", "files": {}, "sizes": {}}
    for key, task in (("0" * 16, "miniimagenet"), ("1" * 16, "omniglot"), ("2" * 16, "somebody-elses")):
        source.write({**base, "key": key, "task": {"name": task}}, arrays=exhibit())
    assert export.keep(source, target) == (3, 1)
    kept = [set(target.arrays(key * 16) or {}) for key in "012"]
    assert kept == [{"query_labels"}, set(exhibit()), set(exhibit())]
    assert set(source.arrays("0" * 16) or {}) == set(exhibit()), "the source stays as it is"


def test_what_is_kept_is_complete_but_for_states(tmp_path: Path) -> None:
    source, target = Store(tmp_path / "all"), Store(tmp_path / "kept")
    digest = source.write_episodes(pd.DataFrame({"episode": [0], "query": [0], "class": [4], "item": [41]}))
    scores = pd.DataFrame({"step": [0], "episode": [0], "query": [0], "score": [True]})
    record = {"key": "0" * 16, "cell": "evaluation", "status": "ok", "files": {}, "sizes": {}}
    source.write({**record, "evaluation": {"episodes_digest": digest}}, scores, None, {"w": torch.zeros(3)})
    assert export.keep(source, target) == (1, 0)
    assert [kept["key"] for kept in target.records()] == ["0" * 16]
    assert target.state("0" * 16) is None
    pd.testing.assert_frame_equal(target.scores("0" * 16), source.scores("0" * 16))
    assert target.episodes(digest)["item"].tolist() == [41]
    assert target.problems == []


def test_no_committed_record_holds_a_picture_of_imagenet() -> None:
    for folder in (ROOT / "reports" / "reference").glob("*/records"):
        store = Store(folder.parent, read_only=True)
        for record in filter(export._withheld, store.records()):
            assert not [name for name in store.arrays(record["key"]) or {} if name.endswith(export.PICTURES)]
