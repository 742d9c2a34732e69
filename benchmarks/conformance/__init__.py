"""Does a plug-in keep the contract? ``metabench check`` and the tests of the suite run the same checks."""

from benchmarks.conformance.files import check_file
from benchmarks.conformance.findings import Finding, complaints
from benchmarks.conformance.methods import check_method, check_pair
from benchmarks.conformance.tasks import check_task

__all__ = ["Finding", "check_file", "check_method", "check_pair", "check_task", "complaints"]
