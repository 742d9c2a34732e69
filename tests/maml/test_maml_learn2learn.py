"""Meta-gradients of MAML and FOMAML against those of another library, on the same weights and the same episodes."""

from __future__ import annotations

import importlib
import sys
import warnings
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.api import Episodes, LabelledSet, Parameters


@pytest.fixture(scope="module")
def learn2learn() -> ModuleType:
    """The library, imported although its dependencies warn, and although torchvision may lack its C++ operators."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module("learn2learn")
        except ImportError as error:
            pytest.skip(f"learn2learn can't be imported: {error}")
        except RuntimeError as error:
            if "torchvision::nms" not in str(error):
                raise
        for name in [name for name in sys.modules if name.partition(".")[0] in ("torchvision", "learn2learn")]:
            del sys.modules[name]
        declare_torchvision_operators()
        return importlib.import_module("learn2learn")


_LIBRARIES = []


def declare_torchvision_operators() -> None:
    """torchvision for CUDA can't load its operators beside a torch without it; to import it, names are enough."""
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _LIBRARIES.append(library)


def ordinary_module(parameters: Parameters, convolutional: bool) -> nn.Module:
    """The same network with the same parameters, built from the modules of torch."""
    dtype = parameters["head.weight"].dtype
    modules: list[nn.Module] = []

    def add(module: nn.Module, **values: Tensor) -> None:
        modules.append(module.to(dtype))
        module.load_state_dict(values, strict=False)

    for layer in dict.fromkeys(name.partition(".")[0] for name in parameters):
        own = {"weight": parameters[f"{layer}.weight"], "bias": parameters[f"{layer}.bias"]}
        outputs, inputs = own["weight"].shape[:2]
        if layer == "head":
            modules += [nn.AdaptiveAvgPool2d(1), nn.Flatten()] if convolutional else []
            add(nn.Linear(inputs, outputs), **own)
        elif convolutional:
            add(nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), **own)
            add(nn.BatchNorm2d(outputs), weight=parameters[f"{layer}.scale"], bias=parameters[f"{layer}.shift"])
            modules.append(nn.ReLU())
        else:
            add(nn.Linear(inputs, outputs), **own)
            modules.append(nn.ReLU())
    return nn.Sequential(*modules)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("second_order", [True, False], ids=["maml", "fomaml"])
@pytest.mark.parametrize("kind", ["waves", "images"])
def test_meta_gradient_is_that_of_learn2learn(
    given: Any, learn2learn: Any, kind: str, second_order: bool, steps: int, dtype: torch.dtype
) -> None:
    tasks = getattr(given, kind)()
    support, query = (
        LabelledSet(part.x.to(dtype), part.y.to(dtype) if part.y.is_floating_point() else part.y)
        for part in (tasks.data.support, tasks.data.query)
    )
    tasks = tasks.replace(data=Episodes(support, query))
    parameters = {name: value.to(dtype) for name, value in given.state(tasks).parameters.items()}
    learner = given.maml(tasks, inner_steps=steps, second_order=second_order, adapt_normalisation=True)

    module = ordinary_module(parameters, convolutional=kind == "images")
    theirs = learn2learn.algorithms.MAML(module, lr=learner.inner_lr, first_order=not second_order)
    loss = F.mse_loss if kind == "waves" else F.cross_entropy
    for task in range(3):
        clone = theirs.clone()
        for _ in range(steps):
            clone.adapt(loss(clone(support.x[task]), support.y[task]))
        (loss(clone(query.x[task]), query.y[task]) / 3).backward()
    expected = torch.cat([value.grad.flatten() for value in module.parameters()])

    found = given.meta_gradient(learner, tasks, parameters)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-8
    assert (found - expected).norm() <= tolerance * expected.norm()
