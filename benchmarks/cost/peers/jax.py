"""MAML in JAX: the network as plain functions, `vmap` over tasks, one `jit` for the meta-gradient and Adam.

This is JAX's usual and fastest form. Parameters stay JAX arrays from step to step. Memory is XLA's figure for the
compiled program.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from benchmarks.api import Episodes, Parameters
from benchmarks.cost.peers.adapter import FIRST_SHARE, META_LR, Adapter, Settings
from benchmarks.cost.workloads import Workload
from benchmarks.errors import Unavailable
from benchmarks.models import BACKBONES
from benchmarks.models.backbones import MLP, Conv4
from benchmarks.models.normalisation import EPSILON
from benchmarks.models.resnet import LAYERS, SLOPE, ResNet12

#: XLA's options for a program that is compared and never timed: compiling takes half as long. The last is for GPUs.
UNOPTIMISED = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
UNTUNED = {"xla_gpu_autotune_level": 0}
#: bytes of a GPU's memory that JAX may take; its largest program here needs 1.3 GB, and tuning some more
MEMORY_BYTES = 10e9
#: JAX's event for a program found in its cache
CACHE_HIT = "/jax/compilation_cache/cache_hits"


class Implementation(Adapter):
    """`jit(grad(mean(vmap(query loss after the inner steps))))`."""

    library: ClassVar[str] = "jax"
    cuda_plans: ClassVar[tuple[str, ...]] = ("tf32",)
    compiles: ClassVar[bool] = True
    is_program: ClassVar[bool] = True
    counted: ClassVar[bool] = False

    def __init__(self, plan: str = "") -> None:
        super().__init__(plan)
        _share_device()
        self._jax: Any = importlib.import_module("jax")
        self._hits, self._from_cache = _cache_hits(self._jax), False
        self._bytes: int | None = None
        self._adaptation_bytes: int | None = None
        self._adapted: dict[Any, Callable[..., Any]] = {}

    @property
    def reduced(self) -> bool:  # type: ignore[override]
        """TF32 has ten bits of float32's twenty-three."""
        return self.plan == "tf32"

    def meta_gradient(self, parameters: Parameters, episodes: Episodes, settings: Settings) -> Parameters:
        with self._precision(episodes):
            theta, data = self._arrays(parameters, episodes)
            gradient = self._compiled(self._jax.grad(self._loss(settings)), theta, *data)(theta, *data)
            return {name: _tensor(gradient[name], parameters[name]) for name in parameters}

    def stepper(self, parameters: Parameters, episodes: Episodes, settings: Settings) -> Callable[[], Any]:
        jax = self._jax
        theta, data = self._arrays(parameters, episodes)
        moments = jax.tree.map(jax.numpy.zeros_like, (theta, theta))
        value_and_gradient = jax.value_and_grad(self._loss(settings))

        def step(theta: Any, moments: Any, count: Any, data: Any) -> Any:
            loss, gradient = value_and_gradient(theta, *data)
            return loss, *adam(jax, theta, moments, count, gradient, META_LR)

        state = [theta, moments, jax.numpy.ones(())]
        compiled: list[Any] = []

        def run() -> tuple[float, Any]:
            if not compiled:
                known = len(self._hits)
                compiled.append(self._compiled(step, *state, data))
                self._bytes, self._from_cache = _program_bytes(compiled[0]), len(self._hits) > known
            loss, *state[:] = compiled[0](*state, data)
            return float(loss), state[1][0]

        return run

    def first_gradient(self, result: Any, parameters: Parameters) -> Parameters:
        _, moment = result
        return {name: _tensor(moment[name], parameters[name]) / FIRST_SHARE for name in parameters}

    def adapt(self, parameters: Parameters, episodes: Episodes, settings: Settings) -> Tensor:
        with self._precision(episodes):
            theta, (x, y, queries, _) = self._arrays(parameters, episodes)
            place = settings, queries.shape, queries.dtype
            if place not in self._adapted:
                known = len(self._hits)
                program = self._compiled(self._predictions(settings), theta, x, y, queries)
                self._adapted[place] = program
                self._adaptation_bytes = _program_bytes(program)
                if self._bytes is None:  # it is what is timed
                    self._from_cache = len(self._hits) > known
            return _tensor(self._adapted[place](theta, x, y, queries), episodes.query.x)

    def arithmetic(self) -> AbstractContextManager[Any]:
        if not torch.cuda.is_available():
            return contextlib.nullcontext()
        # JAX's own default on such a GPU is TF32
        found: AbstractContextManager[Any] = self._jax.default_matmul_precision(
            "tensorfloat32" if self.plan else "highest"
        )
        return found

    def from_cache(self) -> bool:
        return self._from_cache

    def peak_bytes(self) -> int | None:
        return self._adaptation_bytes if self._bytes is None else self._bytes

    def _compiled(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """The function as a program. In double precision it is only compared, so it is compiled without
        optimisation: the same operations, in less time."""
        leaves = self._jax.tree.leaves(arguments)
        lowered = self._jax.jit(function).lower(*arguments)
        if all(leaf.dtype != np.float64 for leaf in leaves):
            with self.tuning():
                return lowered.compile()
        on_gpu = any(device.platform != "cpu" for device in leaves[0].devices())
        try:
            return lowered.compile(compiler_options=UNOPTIMISED | (UNTUNED if on_gpu else {}))
        except Exception:  # another version of XLA lacks an option
            return lowered.compile()

    def _precision(self, episodes: Episodes) -> Any:
        return precision_of(self._jax, episodes.query.x)

    def _arrays(self, parameters: Parameters, episodes: Episodes) -> tuple[Any, tuple[Any, ...]]:
        device = self._device(episodes.query.x.device.type)
        support, query = episodes.support, episodes.query

        def convert(value: Tensor) -> Any:
            return self._jax.device_put(value.detach().cpu().numpy(), device)

        theta = {name: convert(value) for name, value in parameters.items()}
        return theta, tuple(convert(value) for value in (support.x, support.y, query.x, query.y))

    def _device(self, kind: str) -> Any:
        """The device of torch's tensors: by default JAX takes a GPU, or silently does without."""
        try:
            return self._jax.devices("gpu" if kind == "cuda" else "cpu")[0]
        except RuntimeError as error:
            raise Unavailable("this JAX was built without support for the GPU") from error

    def _adaptation(self, settings: Settings) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
        """Functions of one task: the network, its loss, and the parameters after the inner steps."""
        jax = self._jax
        network = _network(jax, settings.workload)

        def loss(theta: Any, x: Any, y: Any) -> Any:
            output = network(theta, x)
            if settings.workload.kind == "regression":
                return jax.numpy.square(output - y).mean()
            return -jax.numpy.take_along_axis(jax.nn.log_softmax(output), y[:, None], 1).mean()

        def adapted(theta: Any, x: Any, y: Any) -> Any:
            for _ in range(settings.inner_steps):
                gradient = jax.grad(loss)(theta, x, y)
                if not settings.second_order:
                    gradient = jax.lax.stop_gradient(gradient)
                theta = jax.tree.map(lambda p, g: p - settings.workload.inner_lr * g, theta, gradient)
            return theta

        return network, loss, adapted

    def _loss(self, settings: Settings) -> Callable[..., Any]:
        _, loss, adapted = self._adaptation(settings)

        def of_task(theta: Any, x: Any, y: Any, queries: Any, targets: Any) -> Any:
            return loss(adapted(theta, x, y), queries, targets)

        over_tasks = self._jax.vmap(of_task, (None, 0, 0, 0, 0))
        return lambda theta, *data: over_tasks(theta, *data).mean()

    def _predictions(self, settings: Settings) -> Callable[..., Any]:
        network, _, adapted = self._adaptation(settings)
        return self._jax.vmap(lambda theta, x, y, queries: network(adapted(theta, x, y), queries), (None, 0, 0, 0))


def adam(jax: Any, theta: Any, moments: Any, count: Any, gradient: Any, rate: float) -> tuple[Any, Any, Any]:
    """Parameters, both moments and the number of the next step after one step of Adam; numbers begin at 1."""
    first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, moments[0], gradient)
    second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, moments[1], gradient)
    size, correction = rate / (1 - 0.9**count), jax.numpy.sqrt(1 - 0.999**count)
    theta = jax.tree.map(lambda p, m, v: p - size * m / (jax.numpy.sqrt(v) / correction + 1e-8), theta, first, second)
    return theta, (first, second), count + 1


def precision_of(jax: Any, value: Tensor) -> Any:
    """A context in which JAX computes in double precision if the tensor has it."""
    if not hasattr(jax, "enable_x64"):
        jax = importlib.import_module("jax.experimental")
    return jax.enable_x64(value.dtype == torch.float64)


def _share_device() -> None:
    """Limit JAX's share of the GPU: by default it takes three quarters, and it never returns memory."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if torch.cuda.is_available():
        share = MEMORY_BYTES / torch.cuda.mem_get_info()[1]
        os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", f"{min(0.75, share):.3f}")


@functools.cache
def _cache_hits(jax: Any) -> list[str]:
    """A list that grows by one for every program that JAX finds in its cache on disk. XLA's tuning results are not
    cached: they would shorten the compilation of another setting."""
    hits: list[str] = []
    with contextlib.suppress(AttributeError):  # another version of JAX
        jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
    jax.monitoring.register_event_listener(lambda event, **_: hits.append(event) if event == CACHE_HIT else None)
    return hits


def _network(jax: Any, workload: Workload) -> Callable[..., Any]:
    """Parameters and inputs ``[n, ...]`` of one task to outputs ``[n, outputs]``."""
    backbone = BACKBONES[workload.backbone]

    def head(theta: Any, features: Any) -> Any:
        return features @ theta["head.weight"].T + theta["head.bias"]

    if isinstance(backbone, MLP) and not backbone.normalised:

        def fully_connected(theta: Any, x: Any) -> Any:
            x = x.reshape(len(x), -1)
            for layer in range(len(backbone.widths)):
                x = jax.nn.relu(x @ theta[f"layer{layer}.weight"].T + theta[f"layer{layer}.bias"])
            return head(theta, x)

        return fully_connected
    if isinstance(backbone, ResNet12):

        def residual(theta: Any, x: Any) -> Any:
            for block in range(len(backbone.widths)):
                x = _block(jax, theta, f"block{block}", x)
            return head(theta, x.mean((2, 3)))

        return residual
    if not isinstance(backbone, Conv4):
        raise Unavailable(f"backbone {workload.backbone!r} has no form in JAX yet")

    def convolutional(theta: Any, x: Any) -> Any:
        strides = (2, 2) if backbone.strided else (1, 1)
        for layer in range(4):
            weight, bias, scale, shift = (
                theta[f"layer{layer}.{part}"] for part in ("weight", "bias", "scale", "shift")
            )
            x = jax.lax.conv_general_dilated(x, weight, strides, ((1, 1), (1, 1))) + bias[:, None, None]
            x = jax.nn.relu(_batch_norm(jax, x, scale, shift))
            if not backbone.strided:
                x = _max_pool(jax, x)
        return head(theta, x.mean((2, 3)) if backbone.strided else x.reshape(len(x), -1))

    return convolutional


def _block(jax: Any, theta: Any, name: str, x: Any) -> Any:
    """A block of ResNet-12 (`benchmarks.models.resnet`)."""

    def convolution(part: str, x: Any) -> Any:
        weight, scale, shift = (theta[f"{name}.{part}.{kind}"] for kind in ("weight", "scale", "shift"))
        return _batch_norm(jax, jax.lax.conv_general_dilated(x, weight, (1, 1), "SAME"), scale, shift)

    straight = x
    for layer in range(LAYERS):
        straight = convolution(f"layer{layer}", straight)
        straight = straight if layer == LAYERS - 1 else jax.nn.leaky_relu(straight, SLOPE)
    return _max_pool(jax, jax.nn.leaky_relu(straight + convolution("shortcut", x), SLOPE))


def _batch_norm(jax: Any, x: Any, scale: Any, shift: Any) -> Any:
    mean, variance = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
    return (x - mean) * jax.lax.rsqrt(variance + EPSILON) * scale[:, None, None] + shift[:, None, None]


def _max_pool(jax: Any, x: Any) -> Any:
    """2x2, as the greatest of four images. On a GPU the second derivative of `reduce_window` loses digits in double
    precision (it packs value and place into 64 bits), and its gradient scatters where this compares."""
    greater, height, width = jax.numpy.maximum, x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
    rows = greater(x[:, :, 0:height:2], x[:, :, 1:height:2])
    return greater(rows[..., 0:width:2], rows[..., 1:width:2])


def _tensor(array: Any, like: Tensor) -> Tensor:
    return torch.from_numpy(np.array(array)).to(like.device, like.dtype)


def _program_bytes(compiled: Any) -> int | None:
    """Bytes of a compiled program's temporary buffers and results; None if the backend doesn't tell."""
    analysis = compiled.memory_analysis()
    if analysis is None:
        return None
    return int(analysis.temp_size_in_bytes) + int(analysis.output_size_in_bytes)
