"""The status and the reason that a record has for an exception."""

import pytest

from benchmarks.errors import Diverged, MetabenchError, status_of


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (MetabenchError("unknown rate"), "error", "unknown rate"),
        (MetabenchError("no graph: CUDA out of memory"), "out-of-memory", "no graph: CUDA out of memory"),
        (Diverged("loss is nan"), "diverged", "loss is nan"),
        (MemoryError(), "out-of-memory", "MemoryError"),
        (RuntimeError("CUDA error: out of memory\nmore"), "out-of-memory", "RuntimeError: CUDA error: out of memory"),
        (RuntimeError("shape mismatch"), "error", "RuntimeError: shape mismatch"),
        (KeyboardInterrupt(), "error", "KeyboardInterrupt"),
    ],
)
def test_an_exception_has_a_status_and_a_reason(error, status, reason):
    assert status_of(error) == (status, reason)
