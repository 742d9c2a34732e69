"""Scores drawn for tests of statistics."""

from __future__ import annotations

import numpy as np


def noise(seed: int, *shape: int) -> np.ndarray:
    """Standard normal numbers."""
    return np.random.default_rng(seed).normal(size=shape)


def drawn_classes(count: int, episodes: int, way: int = 5) -> np.ndarray:
    """The classes of each episode, ``[episodes, way]``."""
    generator = np.random.default_rng(4)
    return generator.permuted(np.tile(np.arange(count), (episodes, 1)), axis=1)[:, :way]
