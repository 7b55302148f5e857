"""What a training leaves to look at: `train.jsonl`, a line per epoch, and events for TensorBoard on request."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any

from ofa.core.errors import TrainError
from ofa.core.files import write_text

_STEPS_PER_EVENT = 10
_SUFFIX = "_top1_percent"


class TrainLog:
    """The log of a training; a context manager that writes everything at its end.

    Args:
        folder: gets `train.jsonl` and `tensorboard/`.
        step: step at which the training continues; later events of an earlier process are dropped.
        tensorboard: whether to write events.

    Raises:
        TrainError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path, step: int, tensorboard: bool) -> None:
        self.folder = folder
        self._writer: Any = None
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise TrainError(
                    f"train.tensorboard requires TensorBoard ({error}); `pip install tensorboard`, or set it to false"
                ) from error
            self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step)

    def write_step(self, step: int, losses: list[tuple[str, float]], lr: float) -> None:
        """Record the losses of a step's archs, each with its kind, and the learning rate."""
        if self._writer is not None and step % _STEPS_PER_EVENT == 0:
            for kind, loss in losses:
                self._writer.add_scalar(f"loss/{kind}", loss, step)
            self._writer.add_scalar("lr", lr, step)

    def write_epochs(self, history: list[dict[str, Any]]) -> None:
        """Write all epochs so far; the accuracies of the last one become events."""
        write_text(self.folder / "train.jsonl", "".join(json.dumps(record) + "\n" for record in history))
        if self._writer is not None:
            for key, value in history[-1].items():
                if key.endswith(_SUFFIX):
                    self._writer.add_scalar(f"top1_percent/{key.removesuffix(_SUFFIX)}", value, history[-1]["step"])

    def __enter__(self) -> TrainLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()
