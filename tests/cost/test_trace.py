"""The trace of one meta-step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.cost import trace
from benchmarks.errors import MetabenchError


def test_a_trace_holds_the_operators_of_one_step_and_nothing_of_the_others(tmp_path: Path) -> None:
    calls: list[int] = []

    def step() -> None:
        calls.append(1)
        torch.eye(3) @ torch.eye(3)

    table = trace.summary(step, tmp_path / "folder" / "trace.json", "cpu")
    assert len(calls) == trace.WARM_UP + trace.TRACED
    assert "aten::mm" in table
    events = json.loads((tmp_path / "folder" / "trace.json").read_text())["traceEvents"]
    assert sum(event.get("name") == "aten::mm" for event in events) == 1


def test_a_meta_step_of_an_implementation_is_traced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "trace.json"
    trace.main(path, "mlp-40-40", "loop", "second", 1, 2, "cpu")
    said = capsys.readouterr().out
    assert said.startswith("mlp-40-40, 2 tasks, 1 inner step: second loop on cpu")
    assert f"wrote {path}" in said
    assert path.stat().st_size > 1000


def test_a_summary_adds_up() -> None:
    rows = [(f"aten::{number}", number, float(number)) for number in range(1, trace.OPERATORS + 3)]
    lines = [line.strip("| ").split(" | ") for line in trace.table(rows, 100.0).splitlines()[2:]]
    assert lines[0] == [rows[-1][0], str(rows[-1][1]), f"{rows[-1][2]:.2f}"]
    *parts, whole = lines
    assert parts[-2][0] == "2 others"
    assert sum(float(part[-1]) for part in parts) == float(whole[-1]) == 100.0
    assert sum(int(part[1]) for part in parts[:-1]) == int(whole[1])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_an_absent_device_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(MetabenchError, match="device 'cuda' is missing"):
        trace.main(tmp_path / "trace.json", "mlp-40-40", "loop", "second", 1, 2, "cuda")
