"""Work in threads: the same results in the same order, the same settings inside and afterwards, and its failures."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from benchmarks.execution.threads import in_order


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_results_come_in_the_order_of_the_items(threads: int) -> None:
    def wait(item: int) -> int:
        time.sleep(0.02 if item % 3 == 0 else 0)
        return item

    assert list(in_order(wait, range(10), threads)) == list(range(10))


def test_items_are_worked_on_at_the_same_time() -> None:
    together = threading.Barrier(2, timeout=10)
    assert len(list(in_order(lambda item: together.wait(), range(4), 2))) == 4


def test_a_slow_consumer_is_not_run_ahead_of() -> None:
    begun: list[int] = []
    results = in_order(lambda item: begun.append(item), range(100), 2)
    next(results)
    time.sleep(0.05)
    assert len(begun) <= 3
    results.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("grad", [True, False])
def test_a_thread_has_one_thread_and_the_callers_gradient_mode(grad: bool) -> None:
    with torch.set_grad_enabled(grad):
        seen = list(in_order(lambda item: (torch.get_num_threads(), torch.is_grad_enabled()), range(4), 2))
    assert seen == [(1, grad)] * 4


def test_one_thread_is_the_callers_own() -> None:
    assert set(in_order(lambda item: (threading.get_ident(), torch.get_num_threads()), range(3), 1)) == {
        (threading.get_ident(), 2)
    }


@pytest.mark.parametrize("threads", [1, 2])
def test_a_failure_is_raised_and_ends_the_work(threads: int) -> None:
    def fail(item: int) -> int:
        if item == 2:
            raise ValueError("item 2")
        return item

    results = in_order(fail, range(100), threads)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="item 2"):
        next(results)


def test_no_threads_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="at least 1, not 0"):
        next(in_order(abs, [1], 0))


def test_sums_of_gradients_are_the_same_bit_for_bit() -> None:
    weight = torch.linspace(-1, 1, 64 * 64).view(64, 64).requires_grad_()

    def gradient(item: int) -> torch.Tensor:
        x = torch.sin(torch.arange(64.0) * (item + 1))
        return torch.autograd.grad((weight @ x).tanh().square().sum(), weight)[0]

    sums = [sum(in_order(gradient, range(12), threads), torch.zeros(64, 64)) for threads in (1, 2, 2, 3)]
    assert all(torch.equal(each, sums[1]) for each in sums[2:])
    torch.testing.assert_close(sums[0], sums[1])
