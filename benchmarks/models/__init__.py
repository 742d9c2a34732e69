"""Networks whose parameters carry a leading task axis: backbones, heads and the batch-norm regimes."""

from benchmarks.models.backbones import BACKBONES
from benchmarks.models.modules import register_backbone
from benchmarks.models.network import NORMALISATION, Network, NetworkPredictor, network_for
from benchmarks.models.normalisation import Statistics

__all__ = [
    "BACKBONES",
    "NORMALISATION",
    "Network",
    "NetworkPredictor",
    "Statistics",
    "network_for",
    "register_backbone",
]
