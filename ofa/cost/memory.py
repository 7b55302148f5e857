"""Costs in memory: the weights of the exported model, and the peak of its activations; from the blocks alone.

Neither is all that a process holds: the runtime itself, its copies of weights in layouts of its own and what its
allocator leaves unused come on top.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ofa.cost.block_table import BlockCost, BlockTable
from ofa.space.arch import Rows
from ofa.supernet.block import Block, skeleton
from ofa.supernet.family import Family

_MIB = 2**20


class SlotMax:
    """The largest of a block cost over the slots of many archs."""

    def __init__(self, family: Family, block_cost: BlockCost) -> None:
        self._slots = BlockTable(family, block_cost)

    def __call__(self, rows: Rows) -> NDArray[np.float64]:
        """The cost `[n]` of rows `[n, n_choices]`."""
        largest: NDArray[np.float64] = np.nan_to_num(self._slots.parts(rows)).max(axis=1)
        return largest


def size_mib(family: Family) -> BlockTable:
    """MiB of the exported model's weights, as `count_memory` counts them.

    The ONNX file is larger by its graph (10 to 350 kB in the families here), and by the integer tables of positions
    that attention in windows has.
    """
    return BlockTable(family, lambda block, size: _count(block, size).weights / _MIB)


def peak_activation_mib(family: Family) -> SlotMax:
    """MiB of activations when they are most, in a forward pass of one image, as `count_memory` counts them.

    Blocks run one after another, so this is the largest over the slots, not the sum. ONNX Runtime holds from 0.7 to
    1.7 times as much, as it fuses more, or keeps buffers for later (`tests/export/test_memory_check.py`).
    """
    return SlotMax(family, lambda block, size: _count(block, size).peak_activation / _MIB)


class Memory(NamedTuple):
    """What a module takes in a forward pass of one sample, in bytes."""

    weights: int
    peak_activation: int


def count_memory(module: nn.Module, input_shape: tuple[int, ...]) -> Memory:
    """Counts the memory of a module (in eval mode) for one sample, wherever its parameters are.

    Weights are the parameters and buffers that the pass reads. A BatchNorm that follows a convolution counts as the
    convolution's bias, into which export folds it.

    The peak of activations is the largest sum, over the operators in the order in which they run, of the tensors that
    are alive then: what the operator reads and writes, and what was written before and is read later. Of these,

    - only those count that depend on the sample, and the sample itself, until it is read last;
    - views count as what they are views of;
    - an elementwise operator (activations, sums, BatchNorm) writes into an input of the same size that nothing reads
      later, so it adds nothing;
    - attention counts with its matrix; scratch memory inside of other operators does not count.
    """
    device = next((p.device for p in module.parameters()), torch.device("meta"))
    sample = torch.empty(1, *input_shape, device=device)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), _Recorder(sample) as recorder:
        output = module(sample)
    held = {_memory(tensor): tensor.nbytes for tensor in (*module.parameters(), *module.buffers())}
    weights = sum(nbytes for memory, nbytes in held.items() if memory in recorder.read)
    return Memory(weights, recorder.peak(output))


def _count(block: Block, size: int) -> Memory:
    return count_memory(skeleton(block.build).eval(), block.input_shape(size))


class _Operator(NamedTuple):
    """The memory of activations that an operator reads and writes, and whether it may write where it reads."""

    reads: set[int]
    writes: set[int]
    elementwise: bool


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's is not typed
    """Records what operators read, and of those that work on a sample or on what was made of it also what they write.

    Attributes:
        read: all memory that is read, without what export folds away.
    """

    def __init__(self, sample: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's is not typed
        self.read: set[int] = set()
        self._kept = [sample]  # so that its memory is not given to another tensor
        self._nbytes = {_memory(sample): sample.untyped_storage().nbytes()}
        self._operators: list[_Operator] = []
        self._convolved: dict[int, bool] = {}  # what convolutions write; whether they have a bias

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        read, written = _tensors((args, kwargs)), _tensors(result)
        self._kept += [*read, *written]
        is_norm = "batch_norm" in func.name()
        unfolded = read
        if is_norm and _memory(args[0]) in self._convolved:
            unfolded = read[:1] if self._convolved[_memory(args[0])] else read[:2]  # with a vector in place of the bias
        self.read |= _memories(unfolded)
        if func is torch.ops.aten.convolution.default:
            self._convolved[_memory(result)] = args[2] is not None
        active = _memories(read) & self._nbytes.keys()
        if active:
            self._nbytes |= {_memory(tensor): tensor.untyped_storage().nbytes() for tensor in written}
            elementwise = torch.Tag.pointwise in func.tags and func is not torch.ops.aten.clone.default
            self._operators.append(_Operator(active, _memories(written), elementwise or is_norm))
        return result

    def peak(self, output: Any) -> int:
        """Peak bytes of activations, given what the module returned."""
        (sample,) = _memories(self._kept[:1])
        first, last = {sample: 0}, {sample: 0}
        for i, operator in enumerate(self._operators):
            first = dict.fromkeys(operator.writes, i) | first
            last |= dict.fromkeys(operator.reads, i)
        last |= dict.fromkeys(_memories(_tensors(output)), len(self._operators))
        alive = np.zeros(len(self._operators) + 1, dtype=np.int64)
        for memory in first.keys() & last.keys():
            alive[first[memory] : last[memory] + 1] += self._nbytes[memory]
        for i, operator in enumerate(self._operators):
            if operator.elementwise:
                freed = {self._nbytes[memory] for memory in operator.reads if last[memory] == i}
                made = [self._nbytes[memory] for memory in operator.writes & last.keys() if first[memory] == i]
                alive[i] -= sum(nbytes for nbytes in made if nbytes in freed)
        return int(alive.max())


def _memory(tensor: Tensor) -> int:
    """What tells one piece of memory from another, also on the meta device, where all addresses are 0."""
    return int(tensor.untyped_storage()._cdata)


def _memories(tensors: list[Tensor]) -> set[int]:
    return {_memory(tensor) for tensor in tensors}


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
