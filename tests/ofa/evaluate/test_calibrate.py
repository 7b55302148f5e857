import copy

import pytest
import torch
from torch import nn

from ofa.evaluate.calibrate import calibrate


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
