"""The cost of a meta-gradient: second against first order, by inner steps, backbone, meta-batch and implementation.

`grid` says which settings are measured, `sweep` measures them all and keeps the records, `measurement` measures one;
`batches` does so on a GPU. docs/performance.md says how each number is measured. The words of this folder:

    implementation  a file of `peers`: the suite's own MAML, or that of another library
    plan            one of the ways in which an implementation can run
    variant         an order (first or second), an implementation and a plan
    setting         a backbone, a meta-batch and a number of inner steps, with the variants that are compared
    adapter         an implementation under a plan, with its library imported
    entry           a variant while its setting is measured
    row             the results of an entry, as the record of the setting holds them
"""

from benchmarks.run import isolate

#: modules that the fork server imports for the processes of settings; none of them starts a thread
PRELOAD = (*isolate.PRELOAD, "benchmarks.cost.measurement")
