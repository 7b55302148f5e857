"""How a supernet is trained: section `train` of a recipe."""

import json
from typing import Annotated, Literal

import torch
from pydantic import AfterValidator, Field, model_validator
from timm.optim import create_optimizer_v2, list_optimizers

from ofa.core.config import Config
from ofa.core.errors import nearest, one_line
from ofa.train.checkpoints import pack_optimizer
from ofa.train.losses import DistillConfig
from ofa.train.strategies import AnyPhase
from ofa.train.teacher import TeacherConfig


def _made_by_timm(name: str) -> str:
    """Try an optimizer out: it is made, takes a step, and its state fits into a checkpoint."""
    try:
        with torch.random.fork_rng(devices=[]):
            parameter = torch.nn.Parameter(torch.zeros(4, 4))
            parameter.grad = torch.ones(4, 4)
            optimizer = create_optimizer_v2([parameter], name, lr=0.1)
            optimizer.step()
            json.dumps(pack_optimizer(optimizer)[1])
    except Exception as error:  # of a package that is missing, too
        names = [str(one) for one in list_optimizers()]
        advice = "choose another" if name in names else nearest(name, names)
        raise ValueError(f"timm makes no optimizer of this name to train with ({one_line(error)}); {advice}") from error
    return name


OptimizerName = Annotated[str, AfterValidator(_made_by_timm)]


class TrainConfig(Config):
    """How a supernet is trained: phases, optimizer, losses, teacher."""

    initial_weights: str | None = None
    """Weights to start from: a file of `ofa import`, another run's `supernet.safetensors`, or a state dict that
    `torch.save` wrote. A classifier of another number of classes starts anew."""
    phases: list[AnyPhase]
    """What is trained, in order; may be empty if there are initial weights."""
    batch_size: int = Field(128, ge=2)
    """Images per step, over all processes; the last, smaller batch of an epoch is left out."""
    optimizer: OptimizerName = "sgd"
    """Any name that timm's `create_optimizer_v2` knows, but for the few whose state fits into no checkpoint; `sgd` has
    Nesterov momentum."""
    lr: float = Field(0.1, gt=0)
    """Peak learning rate, reached after the warm-up. The losses of a step's archs are summed."""
    min_lr: float = Field(0.0, ge=0)
    """Learning rate at the end of each schedule."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Momentum of SGD and the like; Adam-like optimizers keep their own."""
    weight_decay: float = Field(3e-5, ge=0)
    """Not applied to biases and the scales of normalization layers."""
    warmup_epochs: float = Field(1.0, ge=0)
    """Epochs over which the learning rate rises linearly."""
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    """Share of a label that is spread over all classes."""
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced`: the labels' loss of an image is divided by its class's share of the training images, so that all
    classes weigh the same. Another way to the same end is `data.sampler: balanced`."""
    teacher: Literal["largest", "average", "full", "none"] | TeacherConfig = "largest"
    """The teacher of the distillation loss. `largest`: the largest network in the same step (in-place distillation),
    where the strategy trains it. `average`: the largest network with the moving average of the weights, which teaches
    all archs and costs a forward pass. `full`: the largest network as the last phase of strategy `full` left it. Or a
    section: a network from elsewhere, which also teaches the largest network."""
    distill: DistillConfig = DistillConfig()
    """The distillation loss."""
    drop_path: float = Field(0.0, ge=0, lt=1)
    """Probability that a sample skips the last residual branch of an arch, rising from 0 at the first branch; for
    families with stochastic depth. Like dropout, only for archs that learn from the labels alone (BigNAS, arXiv
    2003.11142, 3.1)."""
    clip_grad_norm: float | None = Field(None, gt=0)
    """Largest norm of a step's gradient; null for no bound."""
    max_loss: float = Field(100.0, gt=0)
    """A loss above this stops the training, as one that is not finite does."""
    ema_decay: float | None = Field(0.999, gt=0, lt=1)
    """Decay of the moving average of the weights, which the run ends with; null for the last weights themselves."""
    channels_last: bool = True
    """Memory layout; depthwise networks train about 2.5 times faster with it on CPUs."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """`bfloat16`: automatic mixed precision, for GPUs and CPUs that compute faster in it; many CPUs do not."""
    compile: bool = False
    """Compiles the largest and the smallest network by `torch.compile`; requires a C++ compiler on CPUs."""
    different_archs: bool = False
    """With several processes, each draws its own archs for its part of the batch, instead of all the same."""
    checkpoint_seconds: float = Field(60.0, ge=0)
    """Seconds between checkpoints within an epoch; one follows each epoch. They do not change the result."""
    checkpoints: int = Field(2, ge=1)
    """Number of checkpoints to keep. The best weights are beside them in `best.safetensors`."""
    validated_archs: int = Field(2, ge=0, le=1000)
    """Random archs that are validated after each epoch, always the same, beside the largest and the smallest."""
    tensorboard: bool = False
    """Also writes events for TensorBoard, which must be installed, to `tensorboard/` in the run directory."""
    calibration_images: int = Field(512, ge=2)
    """Training images for the BatchNorm statistics of validated archs."""

    @model_validator(mode="after")
    def _phases_fit_the_rest(self) -> "TrainConfig":
        if not self.phases and self.initial_weights is None:
            raise ValueError("phases is empty, which requires initial_weights; give at least one phase or weights")
        if self.teacher == "full" and self.initial_weights is None and self.phases[0].strategy != "full":
            raise ValueError("teacher full requires a first phase of strategy full, or initial_weights; add one")
        if self.teacher == "average" and self.ema_decay is None:
            raise ValueError("teacher average requires ema_decay; set it, or choose another teacher")
        if self.teacher == "average" and self.distill.labels_weight == 0:
            raise ValueError(
                "teacher average with labels_weight 0 learns from itself alone; give labels_weight above 0"
            )
        if self.teacher == "largest" and any(phase.strategy == "spread" for phase in self.phases):
            raise ValueError(
                "strategy spread does not train the largest in each step; use teacher average, full or none"
            )
        if self.phases and self.phases[0].sort_channels and self.initial_weights is None:
            raise ValueError("the first phase cannot sort channels that were never trained; leave sort_channels out")
        return self
