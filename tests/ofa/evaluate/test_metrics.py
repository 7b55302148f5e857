import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, top_k_accuracy_score
from torch import nn

from ofa.evaluate.calibrate import calibrate
from ofa.evaluate.metrics import evaluate


def test_accuracy_is_the_share_of_right_answers(network, batches):
    calibrate(network, batches)
    right = total = 0
    for images, labels in batches:
        for image, label in zip(images, labels, strict=True):
            with torch.no_grad():
                logits = network(image[None])[0].tolist()
            right += logits.index(max(logits)) == int(label)
            total += 1
    assert evaluate(network.train(), batches).top1_percent == pytest.approx(100 * right / total)
    assert 0 < right < total
    assert not network.training


def test_scores_are_those_of_scikit_learn(batches):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(128, 12)).train()
    metrics = evaluate(network, batches)
    labels = np.concatenate([labels.numpy() for _, labels in batches])
    with torch.no_grad():
        logits = torch.cat([network(images) for images, _ in batches])
    classes = np.arange(12)
    for k, percent in ((1, metrics.top1_percent), (5, metrics.top5_percent)):
        assert percent == pytest.approx(100 * top_k_accuracy_score(labels, logits.numpy(), k=k, labels=classes))
    assert metrics.loss == pytest.approx(log_loss(labels, logits.double().softmax(1).numpy(), labels=classes))
    assert 0 < metrics.top1_percent < metrics.top5_percent < 100
    assert torch.is_grad_enabled()


def test_up_to_five_classes_have_no_top5(network, batches):
    assert evaluate(network, batches).top5_percent is None
