"""Counter-based random numbers: a number is a pure function of (stream, index, lane).

Any episode can be drawn alone, in any order, on any machine, with the same result. The mixing function is the finaliser
of splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014), applied once per
word of the counter. A whole batch is computed at once; a generator per episode would cost as much as a training step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

Index = Sequence[int] | np.ndarray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def stream(*names: object) -> int:
    """Number of a named stream, 0 to 2**64 - 1: ``stream("sinusoid-v1", "test")``."""
    text = "/".join(str(name) for name in names)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def _mix(word: np.ndarray) -> np.ndarray:
    word = (word ^ (word >> np.uint64(30))) * _FIRST
    word = (word ^ (word >> np.uint64(27))) * _SECOND
    return word ^ (word >> np.uint64(31))


def bits(key: int, indices: Index, lanes: int, first: int = 0) -> np.ndarray:
    """Random words, uint64 ``[T, lanes]``, for T indices and the lanes ``first`` to ``first + lanes - 1``."""
    with np.errstate(over="ignore"):
        rows = np.asarray(indices, dtype=np.int64).astype(np.uint64)[:, None]
        rows = _mix(rows * _GOLDEN + np.uint64(key))
        columns = np.arange(first + 1, first + lanes + 1, dtype=np.uint64)
        return _mix(_mix(rows + columns * _GOLDEN) + _GOLDEN)


def between(bounds: tuple[float, float], unit: np.ndarray) -> np.ndarray:
    """Numbers from 0 to 1 on the scale of the bounds."""
    return bounds[0] + (bounds[1] - bounds[0]) * unit


def uniform(key: int, indices: Index, lanes: int, low: float = 0.0, high: float = 1.0, first: int = 0) -> np.ndarray:
    """Uniform numbers in [low, high), float64 ``[T, lanes]``, with 53 random bits each."""
    return between((low, high), (bits(key, indices, lanes, first) >> np.uint64(11)) * 2.0**-53)


def normal(key: int, indices: Index, lanes: int, first: int = 0) -> np.ndarray:
    """Standard normal numbers, float64 ``[T, lanes]`` (Box and Muller 1958); lane i uses the words 2i and 2i + 1."""
    words = uniform(key, indices, 2 * lanes, first=2 * first)
    radius = np.sqrt(-2.0 * np.log1p(-words[:, 0::2]))
    return radius * np.cos(2.0 * np.pi * words[:, 1::2])


def integers(key: int, indices: Index, lanes: int, high: int, first: int = 0) -> np.ndarray:
    """Integers from 0 to high - 1, int64 ``[T, lanes]``; high is below 2**32, so the bias is below 2**-31."""
    return ((bits(key, indices, lanes, first) >> np.uint64(32)) * np.uint64(high) >> np.uint64(32)).astype(np.int64)


def choices(key: int, indices: Index, population: int, count: int, sets: int = 1) -> np.ndarray:
    """Draws without replacement, int64 ``[T, sets, count]``: ``count`` different numbers below ``population`` in random
    order; sets: independent draws per index. The first numbers of a draw do not depend on ``count``."""
    words = bits(key, indices, sets * population).reshape(len(indices), sets, population)
    if count >= population // 2:
        return np.argsort(words, axis=-1)[..., :count]
    smallest = np.argpartition(words, count, axis=-1)[..., :count]
    order = np.argsort(np.take_along_axis(words, smallest, axis=-1), axis=-1)
    return np.take_along_axis(smallest, order, axis=-1)


def permutations(key: int, indices: Index, size: int) -> np.ndarray:
    """Random permutations of 0 to size - 1, one per index, int64 ``[T, size]``."""
    return choices(key, indices, size, size)[:, 0]
