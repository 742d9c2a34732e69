"""ANIL and BOIL: MAML whose inner steps move the head alone, or all but the head.

Raghu, Raghu, Bengio and Vinyals, "Rapid Learning or Feature Reuse? Towards Understanding the Effectiveness of MAML",
ICLR 2020: almost no inner loop (ANIL) adapts the last layer alone, since MAML's features hardly change in its inner
steps. The support set is embedded once for all of them (`maml.gradient.QueryLoss`).

Oh, Yoo, Kim and Yun, "BOIL: Towards Representation Change for Few-shot Learning", ICLR 2021: the body alone takes inner
steps, so that it has to change.

Deviations:
- support set and queries never share batch statistics unless a regime says so; LibFewShot and torchmeta embed both in
  one batch for ANIL;
- BOIL's code tests with running statistics, here they are MAML's regimes. It trains its last layer by meta-steps, and
  so it is here; LibFewShot tests without one;
- validation episodes choose the state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from benchmarks.origin import Origin, ours
from benchmarks.registry import register_method
from maml.maml import MAML


@register_method("anil")
@dataclass(frozen=True)
class ANIL(MAML):
    """Learn an embedding and a last layer, of which the last layer alone takes gradient steps in a new task.

    All fields: see `maml.maml.MAML`.
    """

    origins: ClassVar[Mapping[str, Origin]] = {"": ours("MAML's for the task; untried")}

    adapted_layers: int = 1


@register_method("boil")
@dataclass(frozen=True)
class BOIL(MAML):
    """Learn a body that takes gradient steps in a new task, under a last layer that takes none.

    All fields: see `maml.maml.MAML`.
    """

    #: HJ-Yoo/BOIL, main.py and run_4conv.sh, which trains on other images than these
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        **{task: fields for task, fields in MAML.published.items() if not task.startswith("miniimagenet")},
        "miniimagenet": {
            "inner_lr": 0.5,
            "loss_scale": "mean",
            "meta_batch": 4,
            "test_steps": (1,),
            "training_queries": 15,
            "backbone": "conv4-64",
        },
    }
    origins: ClassVar[Mapping[str, Origin]] = {
        "miniimagenet": ours("rate, batches and network of HJ-Yoo/BOIL for CIFAR-FS; 15 training queries; untried"),
        "": ours("MAML's for the task; untried"),
    }

    adapted_layers: int = -1
