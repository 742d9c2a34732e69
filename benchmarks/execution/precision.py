"""Precision of torch's matrix products and convolutions."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def precision(name: str, device: str) -> Iterator[None]:
    """Set torch's precision of products and convolutions (`benchmarks.execution.plans.Precision`), then restore it."""
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    try:
        if device == "cuda":
            products.allow_tf32 = convolutions.allow_tf32 = name == "tf32"
        # the cache of casts would outlive the graph of an inner step
        with torch.autocast(device, torch.bfloat16, name == "bf16", cache_enabled=False):
            yield
    finally:
        if device == "cuda":
            products.allow_tf32, convolutions.allow_tf32 = before
