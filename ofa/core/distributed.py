"""Training by several processes that torchrun started; in a single process, everything here works and does nothing."""

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
    """Join the process group that torchrun describes in the environment; NCCL between GPUs, Gloo otherwise."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(device())
    store, number, n = next(rendezvous("env://"))
    own = PrefixStore(_agree_on_prefix(store, number, n), store)
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", store=own, rank=number, world_size=n)
    try:
        yield
    finally:
        dist.destroy_process_group()


def _agree_on_prefix(store: Store, number: int, n: int) -> str:
    """Agree on a new key prefix among the processes that are alive now.

    torchrun keeps its store when it restarts killed processes, and with it the addresses of the dead; its restart
    count is per machine. So each process asks with a word of its own, and rank 0 answers until all have heard it.
    """
    own, deadline = uuid4().hex, time.monotonic() + _JOIN_SECONDS
    if number > 0:
        store.set(f"asks/{number}", own)
    answered: dict[int, str] = {}
    while time.monotonic() < deadline:
        if number > 0 and store.check([f"answer/{own}"]):
            prefix: str = store.get(f"answer/{own}").decode()
            store.add(f"heard/{prefix}", 1)
            return prefix
        if number == 0 and store.add(f"heard/{own}", 0) == n - 1:
            return own
        for other in range(1, n) if number == 0 else ():
            if store.check([f"asks/{other}"]) and answered.get(other) != (asks := store.get(f"asks/{other}").decode()):
                store.set(f"answer/{asks}", own)
                answered[other] = asks
        time.sleep(0.02)
    raise TrainError(f"{n} processes must join, some did not within {_JOIN_SECONDS} s; start all of them again")


def rank() -> int:
    """Return this process's number, counted from 0; only rank 0 writes files."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def device() -> torch.device:
    """Return the device that this process computes on: a GPU of its own if there is one, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


def mean(tensor: Tensor) -> Tensor:
    """Return the mean of a tensor over all processes, the same in each."""
    if world_size() == 1:
        return tensor
    summed = tensor.clone()
    dist.all_reduce(summed)
    return summed / world_size()


def barrier() -> None:
    """Wait until every process has arrived here."""
    if dist.is_initialized():
        dist.barrier()


def share_out(
    work: Callable[[list[T]], Mapping[T, tuple[float, ...]]], items: Iterable[T], n: int
) -> dict[T, tuple[float, ...]]:
    """Compute `n` numbers for each distinct item, each by one of the processes, and give all results to all.

    `work` maps a process's share of the items to their numbers; `items` are the same in all processes.
    """
    distinct = list(dict.fromkeys(items))
    mine = work(distinct[rank() :: world_size()])
    numbers = torch.tensor([mine.get(item, (0.0,) * n) for item in distinct], dtype=torch.float64, device=device())
    if dist.is_initialized():
        dist.all_reduce(numbers)
    return dict(zip(distinct, map(tuple, numbers.tolist()), strict=True))
