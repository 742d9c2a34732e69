"""Functions of tensors as compiled programs or captured CUDA graphs.

A function is traced to operations together with its gradients of gradients (`make_fx`). The program is that of the
eager form, and the compiler only has to generate code for plain operations. Some rewrites come first, because the
compiler passes matrix products to a library as they are, with the transposes that gradients of gradients bring:

- A transpose of a transpose is dropped.
- The transpose of a sum of products becomes a sum of transposed products.
- A product is computed in reverse, (A B)' = B' A', if both operands are transposed or only its transpose is used.

Batched products in the transposed layout took 7 times as long in the library (docs/performance.md).
"""

from __future__ import annotations

import contextlib
import gc
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx

Function = Callable[..., Sequence[Tensor]]

_ATEN: Any = torch.ops.aten
#: switch off size checks at every call: shapes are part of the key of a cached program
_OPTIONS = dict.fromkeys(("size_asserts", "alignment_asserts", "scalar_asserts", "nan_asserts"), False)


def compile_function(function: Function, examples: Sequence[Tensor]) -> Function:
    """Compile a function for arguments of exactly these shapes, strides and types.

    Arguments and results have no graph. Raises any exception of torch's compiler."""
    import torch._inductor.config  # takes a second, so import it only to compile

    # a pool of compiler processes would outlive a killed cell
    with _no_collection(), warnings.catch_warnings(), torch._inductor.config.patch(compile_threads=1):
        warnings.simplefilter("ignore")
        graph = trace(function, examples)
        # One C++ program instead of Python that calls a library for each kernel: less time between kernels, and one run
        # of the C++ compiler instead of dozens.
        compiled: Function = torch._inductor.compile(
            graph, list(examples), options={**_OPTIONS, "cpp_wrapper": examples[0].device.type == "cpu"}
        )
        with torch.no_grad():
            compiled(*examples)
    return compiled


def trace(function: Function, examples: Sequence[Tensor]) -> fx.GraphModule:
    """The operations of a function of arguments of these shapes, rewritten; the compiler generates code for them."""
    from torch.fx.experimental.proxy_tensor import make_fx

    graph = make_fx(function, decomposition_table={_ATEN.baddbmm.default: _baddbmm})(*examples)
    turn_products(graph)
    return graph


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Switch off garbage collection, which takes a sixth of the compiler's time and finds every graph in use."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _baddbmm(bias: Tensor, left: Tensor, right: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """Two operations, so that adding the bias fuses with what follows."""
    return beta * bias + alpha * torch.bmm(left, right) if (beta, alpha) != (1, 1) else bias + torch.bmm(left, right)


def turn_products(module: fx.GraphModule) -> None:
    """Compute batched products in reverse where that removes transposes; changes the module."""
    graph = module.graph
    for node in graph.find_nodes(op="placeholder"):
        node.meta.clear()  # each holds an example of a separate trace, which the compiler would reject together
    for node in graph.find_nodes(op="call_function", target=_ATEN.view.default):
        node.target = _ATEN.reshape.default  # the compiler may change convolutions' layout; a view fails then
    _fold_transposes(graph)
    _turn_sums(graph)
    for node in list(graph.nodes):
        if node.op != "call_function" or node.target is not _ATEN.bmm.default:
            continue
        users = list(node.users)
        only_transposed = bool(users) and all(map(_is_transpose, users))
        if not (only_transposed or all(map(_is_transpose, node.args))):
            continue
        with graph.inserting_before(node):
            left, right = (_transpose(graph, operand) for operand in node.args)
            turned = graph.call_function(_ATEN.bmm.default, (right, left))
            if only_transposed:
                for user in users:
                    user.replace_all_uses_with(turned)
                    graph.erase_node(user)
            else:
                node.replace_all_uses_with(_transpose(graph, turned))
        graph.erase_node(node)
    graph.eliminate_dead_code()
    graph.lint()
    module.recompile()


def _fold_transposes(graph: fx.Graph) -> None:
    """Replace a transpose of a transpose by the original."""
    for node in graph.nodes:
        if _is_transpose(node) and _is_transpose(node.args[0]):
            node.replace_all_uses_with(node.args[0].args[0])
    graph.eliminate_dead_code()


def _turn_sums(graph: fx.Graph) -> None:
    """Replace a sum of products by the sum of their transposes where only its transpose is used."""
    for node in reversed(list(graph.nodes)):
        users = list(node.users)
        if node.target is not _ATEN.add.Tensor or not _is_sum(node) or not users or not all(map(_is_transpose, users)):
            continue
        with graph.inserting_before(node):
            turned = graph.call_function(_ATEN.add.Tensor, tuple(_transpose(graph, term) for term in node.args))
        for user in users:
            user.replace_all_uses_with(turned)
            graph.erase_node(user)
        graph.erase_node(node)


def _is_sum(node: Any) -> bool:
    """Whether the node is a product or a sum of products, with no term broadcast over the last two dimensions."""
    if not isinstance(node, fx.Node) or node.kwargs:
        return False
    return node.target is _ATEN.bmm.default or (node.target is _ATEN.add.Tensor and all(map(_is_sum, node.args)))


def _is_transpose(node: Any) -> bool:
    return node.op == "call_function" and node.target is _ATEN.transpose.int and {*node.args[1:]} in ({1, 2}, {-1, -2})


def _transpose(graph: fx.Graph, node: Any) -> Any:
    return node.args[0] if _is_transpose(node) else graph.call_function(_ATEN.transpose.int, (node, 1, 2))


def capture_function(function: Function, examples: Sequence[Tensor]) -> Function:
    """Capture a function's launches in a CUDA graph, for arguments of exactly these shapes.

    Arguments are copied in and results out, so a later call leaves earlier results intact. ``held_bytes`` of the result
    is the graph's peak memory. The graph keeps it, and later calls allocate none of it."""
    held = [example.detach().clone() for example in examples]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # the first calls of libraries allocate memory, which must not be captured
        for _ in range(3):
            function(*held)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    with torch.cuda.graph(graph):
        results = function(*held)
    peak = torch.cuda.max_memory_allocated() - before

    def replay(*arguments: Tensor) -> Sequence[Tensor]:
        with torch.no_grad():
            torch._foreach_copy_(held, list(arguments))
            graph.replay()
            return [result.clone() for result in results]

    replay.held_bytes = peak  # type: ignore[attr-defined]
    return replay
