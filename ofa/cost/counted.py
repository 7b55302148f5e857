"""Costs that are counted from the blocks alone: multiply-accumulates, parameters, and memory.

A process takes more memory than that: the runtime, its own copies of weights, and what its allocator leaves unused.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from ofa.cost.block_table import BlockTable
from ofa.space.arch import Rows
from ofa.supernet.block import Block, skeleton
from ofa.supernet.family import Family

_MIB = 2**20


def macs_m(family: Family) -> BlockTable:
    """Return the cost of a forward pass of one image, in millions of multiply-accumulates (see `count_macs`)."""
    return BlockTable(family, _block_macs_m, name="macs_m", unit="million multiply-accumulates")


@lru_cache(maxsize=10_000)
def _block_macs_m(block: Block, size: int) -> float:
    return count_macs(skeleton(block.build).eval(), block.input_shape(size)) / 1e6


def params_m(family: Family) -> BlockTable:
    """Return the cost in millions of parameters."""

    def count_params_m(block: Block, _: int) -> float:
        return sum(p.numel() for p in skeleton(block.build).parameters()) / 1e6

    return BlockTable(family, count_params_m, name="params_m", unit="million parameters")


def blocks(family: Family) -> BlockTable:
    """Return the number of blocks of a network, which is how deep it is."""
    return BlockTable(family, lambda *_: 1.0, name="blocks", unit="blocks")


def resolution(family: Family) -> Callable[[Rows], NDArray[np.float64]]:
    """Return the function from rows `[n, n_choices]` to the height and width of images in pixels `[n]`."""
    pixels, column = np.array(family.resolutions, dtype=np.float64), family.space.column("resolution")
    return lambda rows: pixels[family.space.check_rows(rows)[:, column]]


def size_mib(family: Family) -> BlockTable:
    """Return the cost in MiB of the weights that a runtime holds, as `count_memory` counts them.

    The ONNX file is larger by its graph (10 to 450 kB in the families here), by BatchNorm's vectors, which runtimes
    fold into convolutions, and by the integer position tables of window attention.
    """
    return BlockTable(family, lambda block, size: _memory(block, size).weights / _MIB, name="size_mib", unit="MiB")


def peak_activation_mib(family: Family) -> BlockTable:
    """Return the cost in MiB of the activations of one image at their peak, as `count_memory` counts them.

    Blocks run one after another, so this is the maximum over the slots. ONNX Runtime takes 0.7 to 1.7 times as much,
    because it fuses more operators, or holds on to buffers for later (`tests/export/devices/test_memory_check.py`).
    """

    def count_peak_mib(block: Block, size: int) -> float:
        return _memory(block, size).peak_activation / _MIB

    return BlockTable(family, count_peak_mib, name="peak_activation_mib", unit="MiB", reduce=np.max)


def count_macs(module: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Count the multiply-accumulates of a module in eval mode for one sample.

    These are half the operations that torch's flop counter counts: convolutions, linear layers and attention. The
    parameters may be on any device, the meta device included.
    """
    device = next((p.device for p in module.parameters()), torch.device("meta"))
    detached = {name: p.detach() for name, p in module.named_parameters()}  # expanded ones with gradients fail
    math_attention = sdpa_kernel(SDPBackend.MATH)  # fused attention on CPUs is not counted by every version of torch
    with FlopCounterMode(display=False) as counter, torch.no_grad(), math_attention:
        torch.func.functional_call(module, detached, (torch.empty(1, *input_shape, device=device),))
    return int(counter.get_total_flops()) // 2


class Memory(NamedTuple):
    """Memory in bytes that a module takes in a forward pass of one sample."""

    weights: int
    peak_activation: int


def count_memory(module: nn.Module, input_shape: tuple[int, ...]) -> Memory:
    """Count the memory of a module in eval mode for one sample, wherever its parameters are.

    Weights are the parameters and buffers that the forward pass reads. A BatchNorm after a convolution counts as the
    convolution's bias, into which runtimes fold it when they load the model.

    The peak of activations is the largest sum, over the operators in the order in which they run, of the tensors that
    are alive: the operator's inputs and outputs, and earlier outputs that are read later. The rules:

    - only the sample and tensors that depend on it count, the sample until its last use;
    - a view counts as its base;
    - an elementwise operator (activation, sum, BatchNorm) overwrites an input of the same size that has no later use,
      so it adds nothing;
    - the attention matrix is materialized and counted; scratch memory inside other operators is not counted.
    """
    device = next((p.device for p in module.parameters()), torch.device("meta"))
    sample = torch.empty(1, *input_shape, device=device)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), _Recorder(sample) as recorder:
        output = module(sample)
    nbytes = {_storage(tensor): tensor.nbytes for tensor in (*module.parameters(), *module.buffers())}
    return Memory(sum(nbytes[storage] for storage in nbytes.keys() & recorder.read), recorder.peak(output))


@lru_cache(maxsize=10_000)
def _memory(block: Block, size: int) -> Memory:
    return count_memory(skeleton(block.build).eval(), block.input_shape(size))


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's is not typed
    """Recorder of the storages that operators read (without weights that runtimes fold away) and write."""

    def __init__(self, sample: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's is not typed
        self.read: set[int] = set()
        self._tensors = [sample]  # held alive, so that no storage is reused
        self._nbytes = {_storage(sample): sample.untyped_storage().nbytes()}
        self._operators: list[tuple[set[int], set[int], bool]] = []  # storages read and written, is it elementwise
        self._has_bias: dict[int, bool] = {}  # by the storage of a convolution's output

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        inputs, outputs = _tensors((args, kwargs)), _tensors(result)
        self._tensors += [*inputs.values(), *outputs.values()]
        is_norm, read = "batch_norm" in func.name(), list(inputs)
        if is_norm and read[0] in self._has_bias:  # folded; one vector stands for a bias that is missing
            read = read[:1] if self._has_bias[read[0]] else read[:2]
        self.read.update(read)
        if func is torch.ops.aten.convolution.default:
            self._has_bias[_storage(result)] = args[2] is not None
        activations = inputs.keys() & self._nbytes.keys()
        if activations:
            self._nbytes |= {storage: tensor.untyped_storage().nbytes() for storage, tensor in outputs.items()}
            elementwise = torch.Tag.pointwise in func.tags and func is not torch.ops.aten.clone.default
            self._operators.append((activations, set(outputs), elementwise or is_norm))
        return result

    def peak(self, output: Any) -> int:
        """Return the peak of activations in bytes, given the module's output."""
        sample = _storage(self._tensors[0])
        first, last = {sample: 0}, {sample: 0}  # the operators between which a storage is alive
        for i, (reads, writes, _) in enumerate(self._operators):
            first = dict.fromkeys(writes, i) | first
            last |= dict.fromkeys(reads, i)
        last |= dict.fromkeys(_tensors(output), len(self._operators))
        alive = np.zeros(len(self._operators) + 1, dtype=np.int64)
        for storage in first.keys() & last.keys():
            alive[first[storage] : last[storage] + 1] += self._nbytes[storage]
        for i, (reads, writes, elementwise) in enumerate(self._operators):
            if elementwise:
                freed = {self._nbytes[storage] for storage in reads if last[storage] == i}
                written = [self._nbytes[storage] for storage in writes & last.keys() if first[storage] == i]
                alive[i] -= sum(nbytes for nbytes in written if nbytes in freed)
        return int(alive.max())


def _storage(tensor: Tensor) -> int:
    """Return an identifier of a tensor's storage; addresses are no use, as they are all 0 on the meta device."""
    return int(tensor.untyped_storage()._cdata)


def _tensors(tree: Any) -> dict[int, Tensor]:
    """Return the tensors in nested arguments by their storage, in order."""
    return {_storage(leaf): leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)}
