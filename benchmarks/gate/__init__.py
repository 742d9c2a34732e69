"""The regression check: did this change make anything slower or worse?

Three layers decide. `exact` compares counts with committed ones. `quality` compares scores, and `relative` compares
times, with those of the commit before, on the same machine. `history` adds up the times of many runs.

docs/performance.md says how the gate decides and how often it is wrong.
"""
