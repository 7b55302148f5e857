import copy

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, top_k_accuracy_score
from torch import nn

from ofa.evaluate.calibrate import calibrate
from ofa.evaluate.metrics import evaluate, top1_percent


@pytest.fixture
def network():
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4, momentum=0.3), nn.ReLU(), nn.Dropout(0.5), nn.Flatten()]
    made = nn.Sequential(*layers, nn.Linear(4 * 36, 5), nn.BatchNorm1d(5))
    made[1].running_mean.fill_(3.0)
    return made


@pytest.fixture
def batches():
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(n, 2, 8, 8, generator=generator) + n, torch.randint(0, 5, (n,), generator=generator))
        for n in (6, 6, 3)
    ]


def test_statistics_are_the_average_over_batches(network, batches):
    convolution = network[0]
    with torch.no_grad():
        outs = [convolution(images).transpose(0, 1).flatten(1) for images, _ in batches]
    means = torch.stack([out.mean(dim=1) for out in outs])
    variances = torch.stack([out.var(dim=1, unbiased=True) for out in outs])
    calibrate(network, batches)
    torch.testing.assert_close(network[1].running_mean, means.mean(dim=0))
    torch.testing.assert_close(network[1].running_var, variances.mean(dim=0))


def test_later_norms_see_what_earlier_ones_give_in_training_and_no_dropout(network, batches):
    plain = copy.deepcopy(network)
    with torch.no_grad():
        outs = []
        for images, _ in batches:
            hidden = plain[0](images)
            hidden = nn.functional.batch_norm(hidden, None, None, plain[1].weight, plain[1].bias, training=True)
            outs.append(plain[5](hidden.relu().flatten(1)))
    calibrate(network, batches)
    torch.testing.assert_close(network[6].running_mean, torch.stack([out.mean(dim=0) for out in outs]).mean(dim=0))
    torch.testing.assert_close(network[6].running_var, torch.stack([out.var(dim=0) for out in outs]).mean(dim=0))


@pytest.mark.parametrize("training", [True, False])
def test_momentum_comes_back_and_the_network_is_left_in_eval_mode(network, batches, training):
    weights = {name: p.detach().clone() for name, p in network.named_parameters()}
    calibrate(network.train(training), batches)
    assert (network[1].momentum, network[6].momentum) == (0.3, 0.1)
    assert not any(module.training for module in network.modules())
    assert all(torch.equal(p, weights[name]) for name, p in network.named_parameters())
    assert torch.is_grad_enabled()
    assert all(p.grad is None for p in network.parameters())


def test_a_failing_forward_pass_leaves_momentum_and_mode_right(network, batches):
    wrong = [*batches, (torch.zeros(2, 3, 8, 8), torch.zeros(2))]
    with pytest.raises(RuntimeError, match="channels"):
        calibrate(network.train(), wrong)
    assert (network[1].momentum, network[6].momentum) == (0.3, 0.1)
    assert not any(module.training for module in network.modules())


def test_calibrating_twice_gives_the_same(network, batches):
    calibrate(network, batches)
    first = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    calibrate(network, batches)
    assert all(torch.equal(tensor, first[name]) for name, tensor in network.state_dict().items())


def test_a_network_without_batchnorm_stays_as_it_is(batches):
    network = nn.Sequential(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.Dropout(0.5))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    calibrate(network, batches)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_accuracy_is_the_share_of_right_answers(network, batches):
    calibrate(network, batches)
    right = total = 0
    for images, labels in batches:
        for image, label in zip(images, labels, strict=True):
            with torch.no_grad():
                logits = network(image[None])[0].tolist()
            right += logits.index(max(logits)) == int(label)
            total += 1
    assert top1_percent(network.train(), batches) == pytest.approx(100 * right / total)
    assert 0 < right < total
    assert not network.training


def test_scores_are_those_of_scikit_learn(batches):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(128, 12)).train()
    found = evaluate(network, batches)
    labels = np.concatenate([labels.numpy() for _, labels in batches])
    with torch.no_grad():
        logits = torch.cat([network(images) for images, _ in batches])
    classes = np.arange(12)
    for k, percent in ((1, found.top1_percent), (5, found.top5_percent)):
        assert percent == pytest.approx(100 * top_k_accuracy_score(labels, logits.numpy(), k=k, labels=classes))
    assert found.loss == pytest.approx(log_loss(labels, logits.double().softmax(1).numpy(), labels=classes))
    assert 0 < found.top1_percent < found.top5_percent < 100
    assert top1_percent(network, batches) == found.top1_percent
    assert torch.is_grad_enabled()


def test_up_to_five_classes_have_no_top5(network, batches):
    assert evaluate(network, batches).top5_percent is None
