import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from timm.loss import SoftTargetCrossEntropy

from ofa.train.losses import DistillConfig, alpha_divergence, balanced_weights, distillation_loss, label_loss

ALPHAS = [-2.0, -1.0, -0.3, 0.5, 1.0, 2.0]
LOSSES = ["soft", "hard", "alpha"]


def logits(batch, classes, seed=0, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    made = spread * torch.randn(batch, classes, generator=generator, dtype=torch.float64)
    return made.requires_grad_()


def pair(batch=6, classes=5, spread=1.0):
    """A student's and a teacher's."""
    return logits(batch, classes, 1, spread), logits(batch, classes, 2, spread)


LABELS = torch.tensor([0, 4, 2, 2, 1, 3])


def gradient(loss, leaf):
    return torch.autograd.grad(loss, leaf)[0]


# Labels


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.6])
def test_labels_are_smoothed_over_all_classes(smoothing):
    student, _ = pair()
    spread = torch.full((6, 5), smoothing / 5, dtype=torch.float64)
    spread[torch.arange(6), LABELS] += 1 - smoothing
    expected = -(spread * student.softmax(-1).log()).sum() / 6
    assert torch.isclose(label_loss(smoothing)(student, LABELS), expected, rtol=1e-12)


def test_probabilities_are_taken_as_they_are():
    student, teacher = pair()
    certain = torch.nn.functional.one_hot(LABELS, 5).double()
    assert torch.isclose(label_loss(0.3)(student, certain), label_loss(0.0)(student, LABELS), rtol=1e-12)
    mixed = teacher.detach().softmax(-1)
    expected = torch.nn.functional.cross_entropy(student, mixed)
    assert torch.isclose(label_loss(0.3)(student, mixed), expected, rtol=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_equal_weights_of_classes_change_nothing(smoothing):
    student, teacher = pair()
    ones = torch.ones(5, dtype=torch.float64)
    for labels in (LABELS, teacher.detach().softmax(-1)):
        weighted = label_loss(smoothing, ones)(student, labels)
        assert torch.isclose(weighted, label_loss(smoothing)(student, labels), rtol=1e-12)


def test_weights_of_classes_multiply_the_loss_of_each_image():
    student, _ = pair()
    weights = torch.tensor([0.5, 2.0, 0.0, 1.0, 3.0], dtype=torch.float64)
    alone = [label_loss(0.1)(student[i : i + 1], LABELS[i : i + 1]) for i in range(6)]
    expected = sum(float(weights[label]) * loss for label, loss in zip(LABELS.tolist(), alone, strict=True)) / 6
    assert torch.isclose(label_loss(0.1, weights)(student, LABELS), expected, rtol=1e-12)
    half = 0.5 * torch.nn.functional.one_hot(LABELS, 5) + 0.5 * torch.nn.functional.one_hot(LABELS.flip(0), 5)
    mixed = label_loss(0.0, weights)(student, half.double())
    by_hand = ((half.double() @ weights) * -(half * student.log_softmax(-1)).sum(1)).mean()
    assert torch.isclose(mixed, by_hand, rtol=1e-12)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=50))
def test_balanced_weights_give_each_class_the_same_share(labels):
    labels = torch.tensor(labels)
    weights = balanced_weights(labels, 8)
    shares = [float(weights[labels[labels == label]].sum()) for label in labels.unique()]
    assert shares == pytest.approx([len(labels) / len(shares)] * len(shares))
    assert weights.isfinite().all()
    assert weights[7] == 0


# A teacher


def test_soft_is_cross_entropy_with_the_teachers_probabilities_to_the_last_bit():
    student, teacher = (made.detach().float() for made in pair())
    expected = SoftTargetCrossEntropy()(student, teacher.softmax(dim=1))
    assert torch.equal(distillation_loss(DistillConfig(labels_weight=0.0))(student, teacher, LABELS), expected)


def test_hard_takes_the_teachers_top_class_for_the_label():
    student, teacher = pair()
    config = DistillConfig(loss="hard", labels_weight=0.0)
    expected = label_loss()(student, teacher.argmax(1))
    assert torch.isclose(distillation_loss(config, label_loss(0.5))(student, teacher, LABELS), expected, rtol=1e-12)


@pytest.mark.parametrize("loss", ["soft", "alpha"])
def test_a_high_temperature_keeps_the_size_of_gradients(loss):
    """Its limit matches logits: their difference, centered, over the number of classes (arXiv 1503.02531, section 2.1).

    For alpha it is the same, as all alpha-divergences of near distributions are one.
    """
    student, teacher = pair()
    config = DistillConfig(loss=loss, temperature=1e4, labels_weight=0.0)
    found = gradient(distillation_loss(config)(student, teacher, LABELS), student)
    difference = (student - teacher).detach()
    expected = (difference - difference.mean(1, keepdim=True)) / 5 / 6
    assert torch.allclose(found, expected, rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_teacher_and_labels_are_weighed_and_summed(loss):
    student, teacher = pair()
    both = DistillConfig(loss=loss, teacher_weight=0.3, labels_weight=0.7)
    alone = distillation_loss(DistillConfig(loss=loss, labels_weight=0.0))(student, teacher, LABELS)
    expected = 0.3 * alone + 0.7 * label_loss(0.1)(student, LABELS)
    assert torch.isclose(distillation_loss(both, label_loss(0.1))(student, teacher, LABELS), expected, rtol=1e-12)


@pytest.mark.parametrize("labels", [LABELS, logits(6, 5, 3).detach().softmax(1)])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_student_learns_and_its_teacher_does_not(loss, labels):
    student, teacher = pair()
    value = distillation_loss(DistillConfig(loss=loss))(student, teacher, labels)
    assert value.shape == ()
    value.backward()
    assert student.grad.abs().min() > 0
    assert teacher.grad is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"loss": "hard", "temperature": 2.0}, "temperature = 2.0 changes no top class"),
        ({"loss": "kl"}, "'soft', 'hard' or 'alpha'"),
        ({"temperature": 0.0}, "greater than 0"),
        ({"teacher_weight": 0.0}, "greater than 0"),
        ({"labels_weight": -1.0}, "greater than or equal to 0"),
        ({"kd_ratio": 1.0}, "kd_ratio"),
    ],
)
def test_what_means_nothing_is_refused(options, said):
    with pytest.raises(ValidationError, match=said):
        DistillConfig(**options)


# Alpha-divergences


def plain(student, teacher, alpha):
    """The definition, word for word."""
    q, p = student.softmax(1), teacher.softmax(1)
    if alpha == 1:
        return (p * (p / q).log()).sum(1)
    return ((q * (p / q) ** alpha).sum(1) - 1) / (alpha * (alpha - 1))


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("clip", [math.inf, 1e6])
def test_value_and_gradient_are_those_of_the_definition_where_nothing_is_clipped(alpha, clip):
    student, teacher = pair()
    found, expected = alpha_divergence(student, teacher, alpha, clip), plain(student, teacher, alpha)
    assert found.shape == (6,)
    assert torch.allclose(found, expected, rtol=1e-10)
    assert torch.allclose(gradient(found.sum(), student), gradient(expected.sum(), student), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("alpha", [-1.0, 2.0])
def test_clipped_value_and_gradient_class_by_class(alpha):
    student, teacher = pair(spread=3.0)
    found = alpha_divergence(student, teacher, alpha, clip=5.0)
    slopes = gradient(found.sum(), student)
    clipped = 0
    for n in range(6):
        q, p = student[n].detach().softmax(0).tolist(), teacher[n].detach().softmax(0).tolist()
        powers = [min((p_i / q_i) ** alpha, 5.0) for p_i, q_i in zip(p, q, strict=True)]
        clipped += powers.count(5.0)
        held = [q_i * power for q_i, power in zip(q, powers, strict=True)]
        assert found[n].item() == pytest.approx((sum(held) - 1) / (alpha * (alpha - 1)))
        # the gradient of log q_i by logit j is (i == j) - q_j
        expected = [(q_j * sum(held) - held_j) / alpha for q_j, held_j in zip(q, held, strict=True)]
        assert slopes[n].tolist() == pytest.approx(expected)
    assert clipped > 2


@pytest.mark.parametrize("side", [-1, 1])
def test_near_alpha_1_it_is_kl_divergence(side):
    student, teacher = (made.detach() for made in pair())
    errors = []
    for distance in (1e-2, 1e-3, 1e-4):
        near = alpha_divergence(student, teacher, 1 + side * distance)
        errors.append(float((near - alpha_divergence(student, teacher, 1.0)).abs().max()))
    assert errors[0] > 5 * errors[1] > 25 * errors[2]
    assert errors[2] < 1e-3


def test_alpha_1_is_soft_cross_entropy_less_the_teachers_entropy():
    student, teacher = pair()
    entropy = torch.distributions.Categorical(logits=teacher).entropy().mean()
    soft = distillation_loss(DistillConfig(labels_weight=0.0))(student, teacher, LABELS)
    kl = alpha_divergence(student, teacher, 1.0).mean()
    assert torch.isclose(kl, soft - entropy)
    assert torch.allclose(gradient(kl, student), gradient(soft, student))


def test_the_adaptive_loss_is_the_larger_divergence_of_each_sample_and_so_is_its_gradient():
    student, teacher = pair(batch=40, spread=2.0)
    found = distillation_loss(DistillConfig(loss="alpha", labels_weight=0.0))(student, teacher, LABELS)
    slopes = gradient(found, student)
    divergences = [alpha_divergence(student, teacher, -1.0, clip=5.0), alpha_divergence(student, teacher, 1.0)]
    each = [gradient(divergence.sum(), student) / 40 for divergence in divergences]
    larger = [int(divergences[1][n] > divergences[0][n]) for n in range(40)]
    assert 5 < sum(larger) < 35  # each side has its part
    expected = sum(divergences[side][n] for n, side in enumerate(larger)) / 40
    assert torch.isclose(found, expected, rtol=1e-12)
    assert torch.allclose(slopes, torch.stack([each[side][n] for n, side in enumerate(larger)]), rtol=1e-12)


def test_each_side_has_its_own_student_in_mind():
    """One that is surer than the teacher costs more by alpha = 1, one that is less sure by alpha = -1."""
    sure, unsure = (torch.tensor([[scale, 0.0, 0.0, 0.0, 0.0]]) for scale in (6.0, 1.5))
    assert alpha_divergence(sure, unsure, 1.0) > alpha_divergence(sure, unsure, -1.0, clip=5.0)
    assert alpha_divergence(unsure, sure, 1.0) < alpha_divergence(unsure, sure, -1.0, clip=5.0)


shapes = st.tuples(st.integers(1, 6), st.integers(2, 30))
seeds = st.integers(0, 2**31)
spreads = st.sampled_from([0.0, 0.01, 1.0, 10.0, 100.0])


@given(shapes, seeds, spreads, st.sampled_from([-1.0, -0.5, 0.5, 1.0]))
def test_never_negative_and_zero_for_equal_distributions(shape, seed, spread, alpha):
    student, teacher = logits(*shape, seed, spread), logits(*shape, seed + 1, spread)
    clip = 5.0 if alpha < 0 else math.inf
    divergence = alpha_divergence(student, teacher, alpha, clip)
    assert divergence.shape == shape[:1]
    assert (divergence >= -1e-12).all()
    assert (alpha_divergence(student, student, alpha, clip) == 0).all()
    shifted = alpha_divergence(student, student + 3.0, alpha, clip)
    assert shifted.abs().max() < 1e-9


@given(shapes, seeds, spreads, st.sampled_from(LOSSES))
def test_a_gradient_moves_no_logits_together_and_is_bounded(shape, seed, spread, loss):
    """Logits matter by their differences alone; weights clipped at 5 bound a sample's gradient by 5 in each class."""
    student, teacher = logits(*shape, seed, spread), logits(*shape, seed + 1, spread)
    config = DistillConfig(loss=loss, labels_weight=0.0)
    value = distillation_loss(config)(student, teacher, torch.zeros(shape[0], dtype=torch.int64))
    slopes = gradient(value, student) * shape[0]
    assert slopes.sum(1).abs().max() < 1e-9
    assert slopes.abs().max() <= 5


@given(shapes, seeds, st.sampled_from(LOSSES), st.sampled_from([0.5, 1.0, 4.0]))
def test_extreme_logits_give_finite_losses_and_gradients(shape, seed, loss, temperature):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (1e4 * (2 * torch.randint(2, shape, generator=generator) - 1).float() for _ in range(2))
    student.requires_grad_()
    config = DistillConfig(loss=loss, temperature=1.0 if loss == "hard" else temperature)
    value = distillation_loss(config, label_loss(0.1))(student, teacher, torch.zeros(shape[0], dtype=torch.int64))
    assert value.isfinite()
    assert gradient(value, student).isfinite().all()


@pytest.mark.parametrize("loss", LOSSES)
def test_a_student_comes_to_agree_with_its_teacher(loss):
    student, teacher = pair(spread=2.0)
    optimizer = torch.optim.SGD([student], lr=5.0)
    for _ in range(400):
        optimizer.zero_grad()
        distillation_loss(DistillConfig(loss=loss, labels_weight=0.0))(student, teacher, LABELS).backward()
        optimizer.step()
    assert (student.argmax(1) == teacher.argmax(1)).all()
    if loss != "hard":
        assert (student.softmax(1) - teacher.softmax(1)).abs().max() < 0.02
