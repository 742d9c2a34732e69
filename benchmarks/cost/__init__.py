"""What a meta-gradient costs: second against first order, by inner steps, backbone, meta-batch and implementation.

`grid` says which settings, `measurement` measures one of them in a process of its own, `sweep` runs them all and keeps
the records. docs/performance.md says how each number is measured.
"""

from benchmarks.run import isolate

#: what the fork server imports for the processes of settings; none of it starts a thread
PRELOAD = (*isolate.PRELOAD, "benchmarks.cost.measurement")
