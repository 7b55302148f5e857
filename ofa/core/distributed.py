"""One training by several processes, as torchrun starts them: who am I, and what is the mean over all.

Everything here also works, and does nothing, in a single process.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar
from uuid import uuid4

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]  # public, but not declared so
from torch.distributed.rendezvous import rendezvous

from ofa.core.errors import TrainError

T = TypeVar("T", bound=Hashable)


_JOIN_SECONDS = 600


@contextmanager
def joined() -> Iterator[None]:
    """Joins the processes that torchrun started with this one, by NCCL between GPUs and by Gloo else."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(device())
    store, number, n = next(rendezvous("env://"))
    own = PrefixStore(_agreed_word(store, number, n), store)
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", store=own, rank=number, world_size=n)
    try:
        yield
    finally:
        dist.destroy_process_group()


def _agreed_word(store: Store, number: int, n: int) -> str:
    """A new word on which the processes that are alive now agree.

    torchrun keeps its store when it starts killed processes anew, and with it the addresses of the dead; the count of
    restarts that it tells is of one machine. So each process asks with a word of its own, and number 0 answers
    whoever asked last, until all have heard it.

    Raises:
        TrainError: some process did not come in time.
    """
    own, until = uuid4().hex, time.monotonic() + _JOIN_SECONDS
    if number > 0:
        store.set(f"asks/{number}", own)
    answered: dict[int, str] = {}
    while time.monotonic() < until:
        if number > 0 and store.check([f"answer/{own}"]):
            agreed: str = store.get(f"answer/{own}").decode()
            store.add(f"heard/{agreed}", 1)
            return agreed
        if number == 0 and store.add(f"heard/{own}", 0) == n - 1:
            return own
        for other in range(1, n) if number == 0 else ():
            if store.check([f"asks/{other}"]) and answered.get(other) != (asks := store.get(f"asks/{other}").decode()):
                store.set(f"answer/{asks}", own)
                answered[other] = asks
        time.sleep(0.02)
    raise TrainError(f"{n} processes were to join, some did not within {_JOIN_SECONDS} s; start all of them again")


def rank() -> int:
    """This process's number, from 0; only number 0 writes files."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def device() -> torch.device:
    """Where this process computes: a GPU of its own where there are any."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


def wait_for_all() -> None:
    """Returns once every process has come here."""
    if dist.is_initialized():
        dist.barrier()


def average_(tensors: Iterable[Tensor]) -> None:
    """Replaces float tensors on one device by their means over all processes, in place, in one all-reduce."""
    if not dist.is_initialized():
        return  # before the tensors are even looked for
    tensors = list(tensors)
    flat = torch.cat([tensor.detach().reshape(-1).float() for tensor in tensors])
    dist.all_reduce(flat)
    flat /= world_size()
    with torch.no_grad():
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view(tensor.shape))


def share_out(
    work: Callable[[list[T]], Mapping[T, tuple[float, ...]]], items: Iterable[T], n: int
) -> dict[T, tuple[float, ...]]:
    """Numbers for each different item, worked out by one of the processes and known to all.

    Args:
        work: gives the numbers of this process's items.
        items: the same in all processes.
        n: how many numbers each item gets.
    """
    every = list(dict.fromkeys(items))
    mine = work(every[rank() :: world_size()])
    nothing = (0.0,) * n
    numbers = torch.tensor([mine.get(item, nothing) for item in every], dtype=torch.float64, device=device())
    if dist.is_initialized():
        dist.all_reduce(numbers)
    return dict(zip(every, map(tuple, numbers.tolist()), strict=True))
