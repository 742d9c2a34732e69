"""A safe reader for foreign pickles.

A pickle is a program: it may call any function of any module. This reader accepts numpy arrays, numbers and plain
containers, and refuses every other name.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from numpy._core import multiarray, numeric


def _text_as_bytes(text: str, encoding: str) -> bytes:
    """Protocol 2's call for bytes, `_codecs.encode`, restricted to the one encoding that it uses."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"encoding {encoding!r} is refused")
    return text.encode("latin1")


def _dtype(*arguments: Any) -> np.dtype[Any]:
    dtype = np.dtype(*arguments)
    if dtype.kind not in "biufSU":
        raise pickle.UnpicklingError(f"arrays of {dtype} are refused")
    return dtype


#: numpy 1 and 2 name the same functions differently
_NUMPY = {
    "_reconstruct": multiarray._reconstruct,  # type: ignore[attr-defined]
    "scalar": multiarray.scalar,  # type: ignore[attr-defined]
    "_frombuffer": numeric._frombuffer,  # type: ignore[attr-defined]
}
_NUMPY_MODULES = {"numpy.core.multiarray", "numpy._core.multiarray", "numpy.core.numeric", "numpy._core.numeric"}
_KNOWN = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _text_as_bytes,
    ("collections", "OrderedDict"): OrderedDict,
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module in _NUMPY_MODULES and name in _NUMPY:
            return _NUMPY[name]
        if (module, name) in _KNOWN:
            return _KNOWN[module, name]
        raise pickle.UnpicklingError(f"{module}.{name} is refused")


def load_arrays(path: Path) -> Any:
    """Content of a pickle of arrays and plain containers; raises `pickle.UnpicklingError` for anything else."""
    with path.open("rb") as file:
        return _ArrayUnpickler(file, encoding="latin1").load()
