"""Every score of the smoke profile is bit for bit what it was when ``smoke_scores.json`` was written.

Where a change of the arithmetic is meant, copy the file that the failure names over ``smoke_scores.json``, and give the
reason in the commit.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from whole_runs import metabench

from benchmarks.machine import fingerprint, versions
from benchmarks.records.store import Store

FILE = Path(__file__).with_name("smoke_scores.json")


def hashes(store):
    """A name for each test and step -> 16 digits of the SHA-256 of its float32 scores."""
    found = {}
    for record in [record for record in store.records("evaluation") if record.ok]:
        scores = store.scores(record)
        name = f"{record.label} on {record.task.id} shots {record.evaluation.shots} seed {record.seed or 0}"
        for tested in record.tested:
            for row in tested.test.summary:
                values = np.ascontiguousarray(scores[tested.test.scores_name(row.step)].astype(np.float32))
                test = f"{name} {tested.test.model} {tested.test.regime} step {row.step}"
                found[test] = hashlib.sha256(values.tobytes()).hexdigest()[:16]
    return found


@pytest.mark.timeout(900)
def test_every_score_of_smoke_is_what_it_was(tmp_path):
    expected = json.loads(FILE.read_text())
    instructions = torch.backends.cpu.get_cpu_capability()
    here = {"cpu": fingerprint("cpu")["cpu"], "instructions": instructions, "torch": versions()["torch"]}
    if here != expected["computed on"]:
        pytest.skip(f"the scores were computed on {expected['computed on']}, this is {here}: last bits may differ")
    answer = metabench(tmp_path, "run", "--profile", "smoke", "--jobs", "2", "--threads", "1", "--store", "smoke")
    assert answer.code == 0, answer
    found = hashes(Store(tmp_path / "smoke", read_only=True))
    new = tmp_path / "smoke_scores.json"
    new.write_text(json.dumps({"computed on": here, "scores": found}, indent=0, sort_keys=True) + "\n")
    names = sorted({*found, *expected["scores"]})
    assert [name for name in names if found.get(name) != expected["scores"].get(name)] == [], f"new hashes are in {new}"
