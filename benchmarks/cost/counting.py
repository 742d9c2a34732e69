"""What of a step is counted and not timed: floating-point operations, dispatched operations, launches and memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.api import Episodes, Parameters
from benchmarks.cost import counters, peers
from benchmarks.cost.peers.adapter import Adapter, Settings
from benchmarks.cost.work import Work


class Counting:
    """Of all implementations of a setting; floating-point operations are counted once for an order, on the plain loop
    with one task, times the tasks: the work itself, whatever the way it is done in."""

    def __init__(self, work: Work, parameters: Parameters, episodes: Episodes, device: str) -> None:
        self.work, self.parameters, self.episodes, self.device = work, parameters, episodes, device
        self._flops: dict[Settings, int] = {}

    def of(self, adapter: Adapter, settings: Settings, step: Callable[[], Any], begun: bool) -> dict[str, Any]:
        """The columns of a row, for a step of this implementation; what torch's counters don't see is left out.

        begun: a step was taken, so that what the first one allocates for good is there."""
        if settings not in self._flops:
            self._flops[settings] = self._of_loop(settings) * len(self.episodes.support)
        counts: dict[str, Any] = {"flops": self._flops[settings]}
        theirs = adapter.peak_bytes()
        if not adapter.counted:
            return {**counts, "peak_bytes": theirs}
        alone, threads = adapter.in_one_thread()
        if threads > 1:
            step = self.work.stepper(alone, self.parameters, self.episodes, settings)
        if threads > 1 or not begun:
            step()
        if theirs:
            peak, counts["operations"] = theirs, counters.operations(step)
        else:
            peak, counts["operations"] = counters.peak_and_operations(step, self.device)
        # every thread may hold as much as one does, so this is the most that it can be
        counts["peak_bytes"] = threads * peak
        counts["launches"] = counters.launches(step, self.device)
        return counts

    def _of_loop(self, settings: Settings) -> int:
        one = Episodes(self.episodes.support[:1], self.episodes.query[:1])
        return counters.flops(self.work.stepper(peers.load("loop"), self.parameters, one, settings))
