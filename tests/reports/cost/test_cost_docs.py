"""The tables of costs in the documents are those of the committed records."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks.errors import MetabenchError
from reports.cost import docs

TEXT = "\n".join(document.read_text(encoding="utf-8") for document in docs.DOCUMENTS)
STORES = [found[1] for found in docs.BLOCK.findall(TEXT)]


def test_the_document_is_what_the_committed_records_make_of_it() -> None:
    assert STORES == ["quick", "gpu", "gpu-h100"]
    assert docs.written(TEXT) == TEXT, "make readme"


@pytest.mark.parametrize("store", STORES)
def test_every_ratio_is_that_of_the_medians_of_the_samples(store: str) -> None:
    text = next(found.group(0) for found in docs.BLOCK.finditer(TEXT) if found.group(2) == store)
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    seen = 0
    for path in sorted((docs.REFERENCE / store / "records").glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["cell"] != "cost" or record["cost"]["setting"]["work"] == "environment":
            continue
        times = {
            (row["label"], row["order"]): float(np.median(row["samples_milliseconds"]))
            for row in record["cost"]["rows"]
            if row["status"] == "ok"
        }
        (ratio,) = [line for line in lines if line[0] == record["label"]] or [None]
        if ratio is not None:
            seen += _same(ratio[1], times["ours/rule", "second"] / times["ours/rule", "first"])
        header = next(line for line in lines if line[0] == "setting, order")
        for order in {order for label, order in times if label == "ours/rule"}:
            if not {label for label, where in times if where == order and not label.startswith("ours")}:
                continue  # nobody to be compared with
            (line,) = [line for line in lines if line[0] == f"{record['label']}, {order}"]
            for title, cell in zip(header[1:-1], line[1:-1], strict=True):
                found = times.get((title.removesuffix(" / ours"), order))
                assert (found is None) == (cell == "–")
                if found is not None:
                    seen += _same(cell, found / times["ours/rule", order])
    assert seen > 8


def _same(cell: str, expected: float) -> bool:
    value, low, high = map(float, re.findall(r"[0-9.]+", cell))
    assert low <= value <= high
    assert abs(value - expected) <= (0.0051 if expected < 20 else 0.51)
    return True


def test_a_store_without_costs_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty" / "records").mkdir(parents=True)
    with pytest.raises(MetabenchError, match="no costs in"):
        docs.written("<!-- costs empty -->\n<!-- /costs -->", tmp_path)
    assert docs.written("no block here") == "no block here"
