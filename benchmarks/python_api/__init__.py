"""The functions behind ``import benchmarks as mb``: `results`, `load` and `run`. The command line shares their code."""
