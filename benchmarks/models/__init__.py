"""Networks whose parameters carry a leading task axis: backbones, heads and the batch-norm regimes."""

from benchmarks.models.backbones import BACKBONES
from benchmarks.models.modules import register_backbone
from benchmarks.models.network import Network, NetworkPredictor, network_for
from benchmarks.models.normalisation import Statistics
from benchmarks.models.parts import join, split

__all__ = [
    "BACKBONES",
    "Network",
    "NetworkPredictor",
    "Statistics",
    "join",
    "network_for",
    "register_backbone",
    "split",
]
