from dataclasses import replace

import numpy as np
import pytest
import torch

import ofa
import ofa.train.trainer
from ofa.data.config import DataConfig
from ofa.data.load import load_data
from ofa.train.config import TrainConfig
from ofa.train.finetune import FinetuneConfig, finetune

LIKE = TrainConfig(
    phases=[{"strategy": "full", "epochs": 1}],
    batch_size=32,
    ema_decay=0.5,
    checkpoint_seconds=0.0,
    calibration_images=32,
)


@pytest.fixture(scope="module")
def data():
    """4 batches of 32 images an epoch."""
    digits = load_data(DataConfig(name="digits"))
    return replace(
        digits, train=digits.train.subset(np.arange(150)), validation=digits.validation.subset(np.arange(50))
    )


@pytest.fixture(scope="module")
def supernet():
    return ofa.Supernet(
        ofa.create_family("small_mobilenet_v3", resolutions=[8, 16], width_mult=0.5, in_channels=1), seed=0
    )


@pytest.fixture
def teacher(supernet, tmp_path):
    supernet.save(tmp_path / "supernet.safetensors")
    return tmp_path / "supernet.safetensors"


def finetuned(supernet, data, teacher, folder, on_progress=lambda *_: None, like=LIKE, **settings):
    network = supernet.extract(supernet.family.space.smallest)
    config = FinetuneConfig(**{"epochs": 2} | settings)
    result = finetune(
        network, supernet.family, 8, data, config, teacher=teacher, like=like, folder=folder, on_progress=on_progress
    )
    return network.state_dict(), result.state_dict()


def equal(first, second):
    return all(torch.equal(first[name], second[name]) for name in first | second)


def test_it_starts_from_the_inherited_weights_and_leaves_them(supernet, data, teacher, tmp_path):
    expected = supernet.extract(supernet.family.space.smallest).state_dict()
    before, after = finetuned(supernet, data, teacher, tmp_path / "a", lr=1e-12)
    assert equal(before, expected)
    weights = [name for name in before if "running" not in name and "num_batches" not in name]
    assert all(torch.allclose(before[name], after[name], atol=1e-8) for name in weights)
    before, after = finetuned(supernet, data, teacher, tmp_path / "b", lr=0.05)
    assert equal(before, expected)
    assert not any(torch.equal(before[name], after[name]) for name in weights if name.endswith("conv.weight"))


def test_its_optimizer_is_its_own(supernet, data, teacher, tmp_path):
    other = LIKE.model_copy(update={"optimizer": "adamw", "weight_decay": 0.2, "lr": 0.02})
    expected = finetuned(supernet, data, teacher, tmp_path / "a", epochs=1)[1]
    assert equal(expected, finetuned(supernet, data, teacher, tmp_path / "b", like=other, epochs=1)[1])
    for name, changes in {"c": {"optimizer": "sgd"}, "d": {"weight_decay": 0.5}}.items():
        assert not equal(expected, finetuned(supernet, data, teacher, tmp_path / name, epochs=1, **changes)[1])


def test_it_learns_from_the_largest_network_at_its_resolution(supernet, data, teacher, tmp_path, monkeypatch):
    seen = []
    logits = ofa.train.step.teacher_logits

    def spy(network, images, resolution):
        seen.append((tuple(images.shape[2:]), resolution))
        assert equal(
            {name: p.data for name, p in network.named_parameters()},
            {name: p.data for name, p in supernet.network.named_parameters()},
        )
        return logits(network, images, resolution)

    monkeypatch.setattr(ofa.train.step, "teacher_logits", spy)
    finetuned(supernet, data, teacher, tmp_path / "a", epochs=1)
    assert seen == [((16, 16), 16)] * 4


def test_killed_and_resumed_it_ends_the_same(supernet, data, teacher, tmp_path):
    class Killed(BaseException):
        pass

    def kill(done, total, message):  # noqa: ARG001
        if done == 5:
            raise Killed

    _, expected = finetuned(supernet, data, teacher, tmp_path / "a")
    with pytest.raises(Killed):
        finetuned(supernet, data, teacher, tmp_path / "b", kill)
    _, resumed = finetuned(supernet, data, teacher, tmp_path / "b")
    assert equal(resumed, expected)
