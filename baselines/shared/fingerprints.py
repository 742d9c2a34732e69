"""A number for an episode, from its support set: the index of what is drawn for this episode alone."""

from __future__ import annotations

import hashlib

import numpy as np

from benchmarks.api import LabelledSet


def fingerprints(support: LabelledSet) -> np.ndarray:
    """A hash of each task's support examples, int64 ``[T]``, from 0 to 2**63 - 1."""
    identities = (support.x if support.items is None else support.items).detach().cpu().numpy()
    hashes = [hashlib.sha256(np.ascontiguousarray(identity).tobytes()).digest()[:8] for identity in identities]
    return np.array([int.from_bytes(digest, "little") >> 1 for digest in hashes], dtype=np.int64)
