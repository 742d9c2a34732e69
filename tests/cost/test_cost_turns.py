"""Settings of the cost benchmark that are prepared side by side are timed alone, in their order."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.cost import turns
from benchmarks.cost.turns import Turn, limit_threads


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "LOOK", 0.005)


def wave(folder: Path, of: int, places: int, work: Callable[[Turn, Callable[[str], None]], None]) -> list[str]:
    """What the settings of a wave do, started in reverse order, one thread for a process; who did what, in order."""
    done: list[str] = []
    every = [Turn(str(folder), number, of, places, tuple(range(number))) for number in range(of)]
    threads = [
        threading.Thread(target=work, args=(turn, lambda what, turn=turn: done.append(f"{what} {turn.number}")))
        for turn in reversed(every)
    ]
    for thread in threads:
        thread.start()
        time.sleep(0.02)
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    return done


def test_all_are_prepared_before_the_first_is_timed_and_turns_come_in_order(tmp_path: Path) -> None:
    busy: list[int] = []
    most: list[int] = []

    def work(turn: Turn, did: Any) -> None:
        with turn.preparing() as place:
            assert place not in busy
            busy.append(place)
            most.append(len(busy))
            did("prepares")
            time.sleep(0.05)
            busy.remove(place)
        assert turn.wait() >= 0
        did("begins")
        time.sleep(0.02)
        did("ends")
        turn.ended()  # the parent does, once the process is gone

    done = wave(tmp_path, 4, 2, work)
    assert done[:4] == [f"prepares {number}" for number in range(4)]
    assert done[4:] == [f"{what} {number}" for number in range(4) for what in ("begins", "ends")]
    assert max(most) == 2


def test_nobody_waits_for_one_that_was_killed(tmp_path: Path) -> None:
    def work(turn: Turn, did: Any) -> None:
        if turn.number == 0:  # killed before it did anything; only the parent knows
            turn.ended()
            return
        with turn.preparing():
            did("prepares")
        turn.wait()
        did("ends")
        turn.ended()

    assert wave(tmp_path, 3, 1, work) == ["prepares 1", "prepares 2", "ends 1", "ends 2"]


def test_a_compiler_that_tunes_has_the_device_alone(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    done: list[str] = []
    working: set[str] = set()
    pause = threading.Event()

    def beside(name: str) -> None:
        with Turn(str(tmp_path)).on_device():
            assert "tuner" not in working
            done.append(name)

    def tuner() -> None:
        with Turn(str(tmp_path)).on_device() as alone:
            done.append("tuner comes")
            with alone():
                working.add("tuner")
                assert done == ["first", "tuner comes"]
                time.sleep(0.05)
                working.discard("tuner")
            done.append("tuner goes")

    def first() -> None:
        with Turn(str(tmp_path)).on_device():
            done.append("first")
            pause.wait(20)

    threads = [threading.Thread(target=first), threading.Thread(target=tuner)]
    for thread in threads:
        thread.start()
        time.sleep(0.1)
    assert done == ["first", "tuner comes"]  # and it waits for the first
    late = threading.Thread(target=beside, args=("late",))
    late.start()
    time.sleep(0.1)
    assert done == ["first", "tuner comes"]  # whoever comes now doesn't keep it waiting
    pause.set()
    for thread in (*threads, late):
        thread.join(20)
        assert not thread.is_alive()
    assert sorted(done[2:]) == ["late", "tuner goes"]


def test_two_that_want_the_device_alone_do_not_wait_for_each_other(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    both, working, most = threading.Barrier(2), [], []

    def tuner() -> None:
        with Turn(str(tmp_path)).on_device() as alone:
            both.wait(20)
            with alone():
                working.append(0)
                most.append(len(working))
                time.sleep(0.05)
                working.pop()

    threads = [threading.Thread(target=tuner) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert most == [1, 1]


def test_counting_waits_until_all_are_timed_or_gone(tmp_path: Path) -> None:
    def work(turn: Turn, did: Any) -> None:
        with turn.preparing():
            pass
        turn.wait()
        if turn.number == 2:  # killed while it was timed
            turn.ended()
            return
        did("timed")
        turn.wait_for_all()
        did("counts")
        turn.ended()

    done = wave(tmp_path, 4, 4, work)
    assert done[:3] == ["timed 0", "timed 1", "timed 3"]
    assert sorted(done[3:]) == ["counts 0", "counts 1", "counts 3"]


def test_settings_that_are_prepared_side_by_side_have_different_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system binds no process to cores")
    bound: list[set[int]] = []
    monkeypatch.setattr(turns, "usable_cores", lambda: 4)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2, 5})
    monkeypatch.setattr(os, "sched_setaffinity", lambda process, cores: bound.append(set(cores)))
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    assert [limit_threads(1, place) for place in range(5)] == [1] * 5
    assert bound == [{5}, {2}, {1}, {0}, {5}]
    assert limit_threads(0, 1) == 4  # all of them: nothing to bind
    assert limit_threads(1, bind=False) == 1
    assert len(bound) == 5
