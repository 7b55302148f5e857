from copy import deepcopy

import numpy as np
import pytest
import torch
from timm.layers import DropPath
from torch.nn import functional as F  # noqa: N812

import ofa
from ofa.core.tensors import write_tensors
from ofa.train.config import TrainConfig
from ofa.train.step import TrainingStep, dropout_mode
from supernets import autoformer

PHASES = [{"strategy": "full", "epochs": 1}]


def config(**options):
    return TrainConfig(**{"phases": PHASES, "channels_last": False, "label_smoothing": 0.0} | options)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(8, 1, 16, 16, generator=generator), torch.arange(8)


@pytest.fixture
def supernet(tiny):
    return ofa.Supernet(tiny, seed=0)


def gradients(supernet):
    return {name: p.grad.clone() for name, p in supernet.network.named_parameters()}


def test_smaller_archs_learn_from_the_largest_and_the_labels_and_are_not_dropped_out(supernet, batch):
    images, labels = batch
    space = supernet.family.space
    step = TrainingStep(supernet, config(), 10)
    torch.manual_seed(3)
    supernet.zero_grad()
    losses = step.accumulate_gradients([space.largest, space.smallest], images, labels)
    torch.manual_seed(3)
    with torch.no_grad():
        logits = supernet.subnet(space.largest)(images)  # with dropout
        subnet = supernet.subnet(space.smallest)
        subnet.get_submodule("head.dropout").eval()
        answers = subnet(images)
        expected = -(logits.softmax(1) * answers.log_softmax(1)).sum(1).mean() + F.cross_entropy(answers, labels)
    assert losses[0] == pytest.approx(float(F.cross_entropy(logits, labels)), rel=1e-5)
    assert losses[1] == pytest.approx(float(expected), rel=1e-5)


def test_without_a_teacher_labels_teach_all(supernet, batch):
    images, labels = batch
    space = supernet.family.space
    step = TrainingStep(supernet, config(teacher="none"), 10)
    torch.manual_seed(3)
    losses = step.accumulate_gradients([space.largest, space.smallest], images, labels)
    torch.manual_seed(3)
    with torch.no_grad():
        expected = [F.cross_entropy(supernet.subnet(arch)(images), labels) for arch in (space.largest, space.smallest)]
    assert torch.stack(losses).tolist() == pytest.approx(torch.stack(expected).tolist(), rel=1e-5)


def test_an_arch_alone_learns_from_the_labels(supernet, batch):
    step = TrainingStep(supernet, config(), 10)
    torch.manual_seed(3)
    (loss,) = step.accumulate_gradients([supernet.family.space.smallest], *batch)
    torch.manual_seed(3)
    with torch.no_grad():
        expected = F.cross_entropy(supernet.subnet(supernet.family.space.smallest)(batch[0]), batch[1])
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)


def test_the_frozen_largest_network_teaches_as_it_was(supernet, batch):
    images, labels = batch
    space = supernet.family.space
    teacher_only = config(teacher="full", distill={"labels_weight": 0.0})
    step = TrainingStep(supernet, teacher_only, 10)
    step.freeze_teacher(step.supernet.network.state_dict())
    frozen = supernet.extract(space.largest).eval()
    with torch.no_grad():
        for parameter in supernet.parameters():
            parameter.mul_(1.1)
        subnet = supernet.subnet(space.smallest)
        subnet.get_submodule("head.dropout").eval()
        expected = -(frozen(images).softmax(1) * subnet(images).log_softmax(1)).sum(1).mean()
    (loss,) = step.accumulate_gradients([space.smallest], images, labels)
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    other = TrainingStep(supernet, teacher_only, 10)
    other.freeze_teacher(frozen.state_dict())
    assert float(other.accumulate_gradients([space.smallest], images, labels)[0]) == pytest.approx(
        float(expected), rel=1e-5
    )


def test_a_teacher_from_outside_teaches_the_largest_too(tiny, supernet, batch, tmp_path):
    images, labels = batch
    other = ofa.Supernet(tiny, seed=5)
    write_tensors(tmp_path / "teacher.safetensors", other.network.state_dict())
    options = {key: value for key, value in tiny.options.items() if key not in ("num_classes", "in_channels")}
    path = str(tmp_path / "teacher.safetensors")
    teacher = {"name": "family:small_mobilenet_v3", "options": options, "weights": path}
    step = TrainingStep(supernet, config(teacher=teacher, distill={"labels_weight": 0.5}), 10)
    (loss,) = step.accumulate_gradients([supernet.family.space.largest], images, labels)
    with torch.no_grad():
        answers = other.network.eval()(images).softmax(1)
        subnet = supernet.subnet(supernet.family.space.largest)
        subnet.get_submodule("head.dropout").eval()
        logits = subnet(images)
        expected = -(answers * logits.log_softmax(1)).sum(1).mean() + 0.5 * F.cross_entropy(logits, labels)
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)


def test_the_average_of_the_weights_teaches_with_the_statistics_of_the_batch(supernet, batch):
    images, labels = batch
    space = supernet.family.space
    step = TrainingStep(supernet, config(teacher="average", distill={"labels_weight": 0.5}), 10)
    step.average = deepcopy(supernet.network).eval()
    before = deepcopy(step.average.state_dict())
    (loss,) = step.accumulate_gradients([space.smallest], images, labels)
    with torch.no_grad():
        teacher, subnet = deepcopy(supernet.network).train(), supernet.subnet(space.smallest)
        for network in (teacher, subnet):
            network.get_submodule("head.dropout").eval()
        logits = subnet(images)
        expected = -(teacher(images).softmax(1) * logits.log_softmax(1)).sum(1).mean()
        expected = expected + 0.5 * F.cross_entropy(logits, labels)
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in step.average.state_dict().items())
    assert not any(module.training for module in step.average.modules() if isinstance(module, torch.nn.BatchNorm2d))


def test_archs_on_parts_of_the_batch_add_up_to_one_on_all(tiny, batch):
    images, labels = batch
    halves = [slice(0, None, 2), slice(1, None, 2)]
    supernet, by_hand = ofa.Supernet(tiny, seed=0), ofa.Supernet(tiny, seed=0)
    archs = [tiny.space.smallest, tiny.space.decode(tiny.space.sample(1, np.random.default_rng(0))[0])]
    for one in (supernet, by_hand):
        one.zero_grad()
    torch.manual_seed(1)  # dropout
    losses = TrainingStep(supernet, config(teacher="none"), 10).accumulate_gradients(
        archs, images, labels, part=lambda i: halves[i]
    )
    torch.manual_seed(1)
    for arch, half, loss in zip(archs, halves, losses, strict=True):
        step = TrainingStep(by_hand, config(teacher="none"), 10)
        (alone,) = step.accumulate_gradients([arch], images[half], labels[half], 0.5)
        assert float(loss) == pytest.approx(float(alone), rel=1e-5)
    for name, gradient in gradients(by_hand).items():
        torch.testing.assert_close(gradients(supernet)[name], gradient, rtol=1e-4, atol=1e-6)


def test_the_weight_is_of_smaller_archs_only(tiny, batch):
    found = {}
    for weight in (0.0, 0.5, 1.0):
        supernet = ofa.Supernet(tiny, seed=0)
        step = TrainingStep(supernet, config(), 10)
        supernet.zero_grad()
        torch.manual_seed(1)
        step.accumulate_gradients([tiny.space.largest, tiny.space.smallest], *batch, weight)
        found[weight] = gradients(supernet)
    alone = ofa.Supernet(tiny, seed=0)
    alone.zero_grad()
    torch.manual_seed(1)
    TrainingStep(alone, config(), 10).accumulate_gradients([tiny.space.largest], *batch)
    for name, gradient in gradients(alone).items():
        torch.testing.assert_close(found[0.0][name], gradient, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(2 * found[0.5][name], found[0.0][name] + found[1.0][name], rtol=1e-3, atol=1e-5)


def test_losses_leave_no_gradient(supernet, batch):
    space = supernet.family.space
    step = TrainingStep(supernet, config(), 10)
    supernet.zero_grad()
    first, second = step.losses([space.largest, space.smallest], *batch)
    assert first != second
    assert all(float(gradient.abs().max()) == 0 for gradient in gradients(supernet).values())


def test_losses_are_without_dropout(supernet, batch):
    space, step = supernet.family.space, TrainingStep(supernet, config(), 10)
    first, second = (step.losses([space.largest], *batch) for _ in range(2))  # dropout would draw anew
    assert first == second


def test_stochastic_depth_follows_the_depth_of_the_arch():
    family = autoformer.tiny(num_classes=10, resolutions=(32,), embed_dims=(64,), depths=(2, 5), heads=(1,))
    supernet = ofa.Supernet(family).train()

    def chances(arch):
        network = supernet.subnet(arch)
        drops = [module for module in network.modules() if isinstance(module, DropPath)]
        with dropout_mode(network, enabled=False, drop_path=0.4):
            assert not any(drop.training for drop in drops)
        with dropout_mode(network, enabled=True, drop_path=0.4):
            assert all(drop.training for drop in drops)
            found = [drop.drop_prob for drop in drops]
        assert all(drop.training and drop.drop_prob == 0 for drop in drops)
        return found

    space = family.space
    assert chances(space.largest) == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    assert chances(space.smallest) == pytest.approx([0.0, 0.4])
    assert chances(space.largest) == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


def test_mixed_precision_and_back(supernet, batch):
    space = supernet.family.space
    plain, mixed = (TrainingStep(supernet, config(precision=p, teacher="none"), 10) for p in ("float32", "bfloat16"))
    expected, found = (step.losses([space.largest], *batch)[0] for step in (plain, mixed))
    assert found == pytest.approx(expected, rel=0.05)
    assert found != expected


@pytest.mark.slow
def test_compiled_networks_learn_the_same(tiny, smooth_images):
    tiny = ofa.create_family(tiny.name, **tiny.options | {"dropout": 0.0})  # compiled, it draws other numbers
    images, labels, found = smooth_images(32, 1, 16), torch.arange(32) % 10, []
    for compiled in (False, True):
        supernet = ofa.Supernet(tiny, seed=0)
        step = TrainingStep(supernet, config(compile=compiled, teacher="none"), 10)
        optimizer = torch.optim.SGD(supernet.parameters(), lr=0.1)
        for _ in range(3):
            supernet.zero_grad()
            losses = step.accumulate_gradients([tiny.space.largest, tiny.space.smallest], images, labels)
            optimizer.step()
        found.append((torch.stack(losses), dict(supernet.network.named_parameters())))
    (losses, plain), (same, compiled) = found
    assert same.tolist() == pytest.approx(losses.tolist(), rel=1e-4)
    for name, parameter in plain.items():
        assert (compiled[name] - parameter).abs().max() <= 1e-4 * parameter.abs().max() + 1e-6, name
