"""Minimization of a smooth function of a few tensors."""

import math
from collections.abc import Callable
from contextlib import suppress

import torch
from torch import Tensor


def minimize(loss: Callable[[], Tensor], parameters: dict[str, Tensor], steps: int) -> None:
    """Minimize a loss by L-BFGS; the parameters, which it reads, end with the lowest loss that was seen."""
    best, best_loss = {name: value.clone() for name, value in parameters.items()}, math.inf
    for value in parameters.values():
        value.requires_grad_()
    optimizer = torch.optim.LBFGS(
        parameters.values(), lr=1.0, max_iter=steps, tolerance_change=1e-4, line_search_fn="strong_wolfe"
    )

    def closure() -> float:
        nonlocal best, best_loss
        optimizer.zero_grad()
        now = loss()
        now.backward()  # type: ignore[no-untyped-call]  # torch's is not typed
        if now.item() < best_loss:
            best, best_loss = {name: value.detach().clone() for name, value in parameters.items()}, now.item()
        return now.item()

    # A step may go where a covariance is singular; what was best before it is kept.
    with suppress(torch.linalg.LinAlgError):  # type: ignore[attr-defined]  # it is there
        optimizer.step(closure)  # type: ignore[no-untyped-call]  # torch's is not typed
    for name, value in best.items():
        parameters[name].requires_grad_(False).copy_(value)
