"""The tables of costs in the documents are those of the committed records."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.errors import MetabenchError
from reports.cost import docs

TEXT = "\n".join(document.read_text(encoding="utf-8") for document in docs.DOCUMENTS)
STORES = [found[1] for found in docs.BLOCK.findall(TEXT)]


def test_the_document_is_what_the_committed_records_make_of_it() -> None:
    assert STORES == ["quick", "gpu", "gpu-h100"]
    assert docs.written(TEXT) == TEXT, "make readme"


def test_a_store_without_costs_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty" / "records").mkdir(parents=True)
    with pytest.raises(MetabenchError, match="no costs in"):
        docs.written("<!-- costs empty -->\n<!-- /costs -->", tmp_path)
    assert docs.written("no block here") == "no block here"
