"""Losses against labels and against the logits of a teacher.

Logits are `[batch, classes]`; labels are classes `[batch]`, or probabilities `[batch, classes]` where images are mixed.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
from pydantic import Field, model_validator
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from ofa.core.config import Config


class DistillConfig(Config):
    """How an arch learns from a teacher: the largest network, or one from elsewhere."""

    loss: Literal["soft", "hard", "alpha"] = "soft"
    """`soft`: cross-entropy with the teacher's probabilities. `hard`: with its top class. `alpha`: AlphaNet's adaptive
    alpha-divergence, which penalizes students that over- or underestimate the teacher's uncertainty."""
    temperature: float = Field(1.0, gt=0)
    """`soft` and `alpha`: divides the logits of both networks; the loss is multiplied by its square, so that gradients
    keep their size."""
    teacher_weight: float = Field(1.0, gt=0)
    """Weight of the teacher's loss in the sum."""
    labels_weight: float = Field(1.0, ge=0)
    """Weight of the labels' loss in the sum: 1 for once-for-all, 0 for AlphaNet and BigNAS."""

    @model_validator(mode="after")
    def _temperature_is_used(self) -> "DistillConfig":
        if self.loss == "hard" and self.temperature != 1:
            raise ValueError(f"temperature = {self.temperature} changes no top class; leave it out, or use loss: soft")
        return self


def label_loss(smoothing: float = 0.0, class_weights: Tensor | None = None) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a function `(logits, labels) -> scalar`: cross-entropy with smoothed labels, averaged over the batch.

    Labels that are probabilities are used unchanged, since timm's mixup smooths its own. Weights `[classes]`, if given,
    multiply the loss of each image before the average, those of all classes in proportion if an image is mixed.
    """
    class_loss, probability_loss = LabelSmoothingCrossEntropy(smoothing), SoftTargetCrossEntropy()

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        if class_weights is None:
            value: Tensor = (class_loss if labels.dim() == 1 else probability_loss)(logits, labels)
            return value
        if labels.dim() == 1:
            losses = F.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
            return (class_weights[labels] * losses).mean()
        return (labels @ class_weights * F.cross_entropy(logits, labels, reduction="none")).mean()

    return loss


def balanced_weights(labels: Tensor, num_classes: int) -> Tensor:
    """Return weights of classes `[classes]` that give each the same share of the sum over labels `[n]`; mean 1."""
    counts = torch.bincount(labels, minlength=num_classes).float()
    return (len(labels) / (counts * (counts > 0).sum())).where(counts > 0, 0.0)


def distillation_loss(
    config: DistillConfig, labels_loss: Callable[[Tensor, Tensor], Tensor] | None = None
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Return a function `(student_logits, teacher_logits, labels) -> scalar`; no gradient reaches the teacher.

    It adds the teacher's loss and the labels', by default `label_loss()`.
    """
    labels_loss = labels_loss or label_loss()
    teacher_loss, temperature = _LOSSES[config.loss], config.temperature

    def loss(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        value = teacher_loss(student_logits / temperature, teacher_logits.detach() / temperature)
        value = config.teacher_weight * temperature**2 * value
        if config.labels_weight > 0:
            value = value + config.labels_weight * labels_loss(student_logits, labels)
        return value

    return loss


def alpha_divergence(student_logits: Tensor, teacher_logits: Tensor, alpha: float, clip: float = math.inf) -> Tensor:
    """Return the alpha-divergence of a student's distribution q from a teacher's p for each sample: `[batch]`.

        D(p || q) = sum_i q_i (w_i^alpha - 1) / (alpha (alpha - 1)),  w = p / q;  for alpha = 1 its limit KL(p || q)

    Its gradient is that of the surrogate - sum_i c_i log(q_i) / alpha, where c = q w^alpha is held fixed. Both are from
    AlphaNet (arXiv 2102.07954, section 3).

    Args:
        student_logits: get a gradient.
        teacher_logits: get none.
        alpha: not 0. The more negative, the more it costs to be uncertain where the teacher is certain; the more
            positive, the more it costs to miss a class that the teacher considers possible.
        clip: upper bound of w^alpha, in the value and in the gradient; without effect for alpha = 1, where c is p. If
            it is 2 or more, the divergence for alpha = -1 is still 0 for equal distributions and never negative.
    """
    log_q, log_p = student_logits.log_softmax(-1), teacher_logits.detach().log_softmax(-1)
    if alpha == 1:
        return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)
    fixed = log_q.detach()
    c = (fixed + (alpha * (log_p - fixed)).clamp(max=math.log(clip))).exp()
    value = (c - fixed.exp()).sum(-1) / (alpha * (alpha - 1))
    surrogate = -(c * log_q).sum(-1) / alpha
    return value + (surrogate - surrogate.detach())


def _alpha(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """AlphaNet's adaptive loss: for each sample the larger divergence of alpha = -1 and 1, weights clipped at 5."""
    underestimation = alpha_divergence(student_logits, teacher_logits, alpha=-1, clip=5)
    overestimation = alpha_divergence(student_logits, teacher_logits, alpha=1)
    return torch.maximum(underestimation, overestimation).mean()


def _soft(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    value: Tensor = SoftTargetCrossEntropy()(student_logits, teacher_logits.softmax(-1))
    return value


def _hard(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    return F.cross_entropy(student_logits, teacher_logits.argmax(-1))


_LOSSES = {"soft": _soft, "hard": _hard, "alpha": _alpha}
