"""Did this change make anything slower? Two layers: what can be counted must be as committed (`exact`), and what can
only be timed is compared with the commit before, on the same machine, in alternated processes (`relative`).

docs/performance.md says how the gate decides and how often it is wrong.
"""
