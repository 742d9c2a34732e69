"""The precision that torch computes products and convolutions in, while something runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def precision(name: str, device: str) -> Iterator[None]:
    """Set torch's precision of products and convolutions (`benchmarks.execution.plans.Precision`) for a while; the
    previous settings come back."""
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    try:
        if device == "cuda":
            products.allow_tf32 = convolutions.allow_tf32 = name == "tf32"
        # without the cache of casts, which would outlive the graph of an inner step
        with torch.autocast(device, torch.bfloat16, name == "bf16", cache_enabled=False):
            yield
    finally:
        if device == "cuda":
            products.allow_tf32, convolutions.allow_tf32 = before
