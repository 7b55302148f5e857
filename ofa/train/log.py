"""What a training leaves to look at: `train.jsonl`, a line per epoch, and events for TensorBoard on request."""

import json
from pathlib import Path
from typing import Any

from ofa.core.errors import TrainError
from ofa.core.files import write_text

_STEPS_PER_EVENT = 10
_SUFFIX = "_top1_percent"


class TrainLog:
    """Writes `train.jsonl` into a folder and, on request, events into `tensorboard/` in it; close it at the end.

    Later events than of `step`, at which the training continues, are those of an earlier process and are dropped.

    Raises:
        TrainError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path, step: int = 0, tensorboard: bool = False) -> None:
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

    def close(self) -> None:
        """Write the events that are still in memory."""
        if self._writer is not None:
            self._writer.close()
