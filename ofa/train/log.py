"""What a training leaves to look at: `train.jsonl`, a line per epoch, and events for TensorBoard if wanted."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any

from ofa.core.errors import TrainError
from ofa.core.files import write_text

_EVERY = 10
"""Steps between two events."""


class Log:
    """The log of a training; a context, at the end of which everything is written.

    Args:
        folder: gets `train.jsonl` and `tensorboard/`.
        step: from which the training goes on; later events of an earlier process are dropped.
        tensorboard: whether to write events.

    Raises:
        TrainError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path, step: int, tensorboard: bool) -> None:
        self.folder = folder
        self.writer: Any = None
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise TrainError(
                    f"train.tensorboard wants TensorBoard ({error}); `pip install tensorboard`, or set it to false"
                ) from error
            self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step)

    def step(self, step: int, losses: list[tuple[str, float]], lr: float) -> None:
        """Notes the losses of a step's archs, each with its kind, and the learning rate."""
        if self.writer is not None and step % _EVERY == 0:
            for kind, loss in losses:
                self.writer.add_scalar(f"loss/{kind}", loss, step)
            self.writer.add_scalar("lr", lr, step)

    def epoch(self, history: list[dict[str, Any]]) -> None:
        """Writes all epochs so far; the accuracies of the last one become events."""
        write_text(self.folder / "train.jsonl", "".join(json.dumps(entry) + "\n" for entry in history))
        if self.writer is not None:
            for key, value in history[-1].items():
                name, found, _ = key.partition("_top1_percent")
                if found:
                    self.writer.add_scalar(f"top1_percent/{name}", value, history[-1]["step"])

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.writer is not None:
            self.writer.close()
