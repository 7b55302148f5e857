"""Everything that changes while a supernet trains, as a checkpoint holds it."""

from typing import Any

from timm.optim import create_optimizer_v2
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from ofa.core.errors import CheckpointError, one_line
from ofa.supernet.supernet import Supernet
from ofa.train.channel_importance import channel_order, permute
from ofa.train.checkpoints import pack_optimizer, unpack_optimizer
from ofa.train.config import TrainConfig
from ofa.train.plan import Plan
from ofa.train.step import TrainingStep


class TrainingState:
    """Weights, their average, the optimizer, a frozen teacher, and the position in the training.

    Attributes:
        deployed: the network with the weights that the training ends with: averaged, if there is an average.
        step: optimizer steps done.
        loss_sums: for each kind of arch, sum and number of its losses in this epoch.
        history: one record per finished epoch; see `ofa.train.trainer.train`.
        best_top1_percent: highest mean accuracy of an epoch so far.
    """

    def __init__(self, supernet: Supernet, config: TrainConfig, training_step: TrainingStep) -> None:
        self.supernet, self.training_step = supernet, training_step
        self.keeps_teacher = config.teacher == "full"
        self._settings = {key: getattr(config, key) for key in ("optimizer", "momentum", "weight_decay")}
        self.optimizer = create_optimizer_v2(
            supernet.network, config.optimizer, lr=config.lr, weight_decay=config.weight_decay, momentum=config.momentum
        )
        self.ema = ModelEmaV3(supernet.network, config.ema_decay, use_warmup=True) if config.ema_decay else None
        self.deployed: nn.Module = supernet.network if self.ema is None else self.ema.module
        if config.teacher == "average":
            training_step.average = self.deployed
        self.step = 0
        self.loss_sums: dict[str, list[float]] = {}
        self.history: list[dict[str, Any]] = []
        self.best_top1_percent = 0.0

    @property
    def lr(self) -> float:
        """The optimizer's learning rate."""
        return float(self.optimizer.param_groups[0]["lr"])

    def start_phase(self, plan: Plan, epoch: int) -> None:
        """Prepare for a new phase: sort channels, make the largest network the teacher."""
        if plan.epochs[epoch].phase.sort_channels:
            self._sort_channels(plan, epoch)
        if self.keeps_teacher and plan.starts_shrinking(epoch):
            self.training_step.freeze_teacher(self.deployed.state_dict())

    def add_losses(self, losses: list[tuple[str, float]]) -> None:
        """Add a step's losses, each with its kind of arch, to those of the epoch."""
        for kind, value in losses:
            total, number = self.loss_sums.get(kind, (0.0, 0))
            self.loss_sums[kind] = [total + value, number + 1]

    def pack(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return all of the state as named tensors and JSON."""
        tensors, optimizer = pack_optimizer(self.optimizer)
        tensors = {f"optimizer.{name}": tensor for name, tensor in tensors.items()}
        networks = {
            "network": self.supernet.network,
            "ema": None if self.ema is None else self.deployed,
            "teacher": self.training_step.teacher if self.keeps_teacher else None,
        }
        for prefix, network in networks.items():
            if network is not None:
                tensors |= network.state_dict(prefix=f"{prefix}.")
        return tensors, {
            "step": self.step,
            "optimizer": optimizer,
            "settings": self._settings,
            "history": self.history,
            "loss_sums": self.loss_sums,
            "best_top1_percent": self.best_top1_percent,
        }

    def unpack(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Restore what `pack` returned.

        Raises:
            CheckpointError: it is of another network, or the optimizer has other settings.
        """
        advice = "restore the setting, or remove the folder to start the training over"
        for key, value in state.get("settings", {}).items():
            if value != self._settings[key]:
                raise CheckpointError(
                    f"train.{key} = {self._settings[key]!r}, the checkpoints are of a training with {value!r}; {advice}"
                )
        self.step, self.history, self.loss_sums = state["step"], state["history"], state["loss_sums"]
        self.best_top1_percent = state["best_top1_percent"]
        try:
            self.supernet.network.load_state_dict(_under("network.", tensors))
        except RuntimeError as error:
            raise CheckpointError(f"the checkpoints are of another network ({one_line(error)}); {advice}") from error
        unpack_optimizer(self.optimizer, _under("optimizer.", tensors), state["optimizer"])
        if self.ema is not None:
            self.ema.module.load_state_dict(_under("ema.", tensors))
        if teacher := _under("teacher.", tensors):
            self.training_step.freeze_teacher(teacher)

    def _sort_channels(self, plan: Plan, epoch: int) -> None:
        """Sort the weights, their average and the optimizer's moments alike."""
        network = self.supernet.network
        order = channel_order(self.supernet, plan.trained_space(epoch))
        permute(network.state_dict(), order)
        if self.ema is not None:
            permute(self.ema.module.state_dict(), order)
        for name, parameter in network.named_parameters():
            for moment in self.optimizer.state.get(parameter, {}).values():
                if isinstance(moment, Tensor) and moment.shape == parameter.shape:
                    permute({name: moment}, order)


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
