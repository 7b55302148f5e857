import json
from contextlib import suppress

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from timm.optim import create_optimizer_v2, list_optimizers
from torch import nn

from ofa.core.errors import CheckpointError
from ofa.core.tensors import write_tensors
from ofa.train.checkpoints import Checkpoints, load, pack_optimizer, save, unpack_optimizer
from ofa.train.config import OptimizerName

OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "plain sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.01, amsgrad=True),
    "muon": lambda parameters: create_optimizer_v2(parameters, "muon", lr=0.01, momentum=0.9),  # matrices; else AdamW
    "rmsprop": lambda parameters: torch.optim.RMSprop(parameters, lr=0.01, momentum=0.5),
}


def network(layout=torch.contiguous_format):
    torch.manual_seed(0)
    made = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 2), nn.Linear(9, 9))
    return made.to(memory_format=layout)


def steps(net, optimizer, some):
    for step in some:
        generator = torch.Generator().manual_seed(step)
        optimizer.zero_grad()
        net[:4](
            torch.randn(5, 3, 6, 6, generator=generator)
        ).square().mean().backward()  # the last layer has no gradient
        optimizer.step()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_restored_from_a_file_continues_identically(tmp_path, name, layout):
    whole = network(layout)
    steps(whole, OPTIMIZERS[name](whole.parameters()), range(6))

    first = network(layout)
    optimizer = OPTIMIZERS[name](first.parameters())
    steps(first, optimizer, range(3))
    tensors, state = pack_optimizer(optimizer)
    save(tmp_path / "a", {f"o.{k}": v for k, v in tensors.items()} | first.state_dict(prefix="n."), state)

    tensors, state = load(tmp_path / "a")
    second = network(layout)
    second.load_state_dict({k[2:]: v for k, v in tensors.items() if k.startswith("n.")})
    optimizer = OPTIMIZERS[name](second.parameters())
    unpack_optimizer(optimizer, {k[2:]: v for k, v in tensors.items() if k.startswith("o.")}, state)
    steps(second, optimizer, range(3, 6))
    for key, tensor in whole.state_dict().items():
        assert tensor.isfinite().all()
        assert torch.equal(tensor, second.state_dict()[key])


def allowed_optimizers():
    allowed = []
    for name in map(str, list_optimizers()):
        with suppress(ValidationError):
            allowed.append(TypeAdapter(OptimizerName).validate_python(name))
    return allowed


def test_every_optimizer_that_a_recipe_may_name_continues_identically(tmp_path):
    names = allowed_optimizers()
    assert {"sgd", "adamw", "muon", "lamb", "lion", "adafactor"} <= set(names)
    for name in names:
        ends = []
        for killed in (False, True):
            net = network()
            optimizer = create_optimizer_v2(net[:4], name, lr=0.01)
            steps(net, optimizer, range(2))
            if killed:
                save(tmp_path / "a", *pack_optimizer(optimizer))
                optimizer = create_optimizer_v2(net[:4], name, lr=0.01)
                unpack_optimizer(optimizer, *load(tmp_path / "a"))
            steps(net, optimizer, range(2, 4))
            ends.append(net.state_dict())
        for key, tensor in ends[0].items():
            assert torch.equal(tensor, ends[1][key]), name


@pytest.mark.parametrize("name", ["kron", "adafactorbv", "adahessian"])
def test_an_optimizer_that_cannot_be_kept_is_refused_before_the_training(name):
    if name not in map(str, list_optimizers()):
        pytest.skip("another timm")
    state = torch.get_rng_state()
    with pytest.raises(ValidationError, match="timm makes no optimizer of this name to train with"):
        TypeAdapter(OptimizerName).validate_python(name)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_learning_rate_is_part_of_the_state(tmp_path):
    net = network()
    optimizer = OPTIMIZERS["sgd"](net.parameters())
    optimizer.param_groups[0]["lr"] = 1 / 3
    save(tmp_path / "a", *pack_optimizer(optimizer))
    other = OPTIMIZERS["sgd"](net.parameters())
    unpack_optimizer(other, *load(tmp_path / "a"))
    assert other.param_groups[0]["lr"] == 1 / 3
    assert other.state_dict()["param_groups"] == optimizer.state_dict()["param_groups"]


def test_tensors_and_state_come_back(tmp_path):
    tensors = {"a.b": torch.randn(3, 4), "n": torch.tensor(7)}
    state = {"step": 3, "history": [{"loss": [0.1, 1e-17]}], "none": None}
    save(tmp_path / "a", tensors, state)
    read, read_state = load(tmp_path / "a")
    assert read_state == state
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())
    assert read.keys() == tensors.keys()


def test_only_the_newest_two_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints")
    for step in (1, 9, 10, 100, 99_999_999):
        checkpoints.save(step, {"step": torch.tensor(step)}, {"step": step})
        tensors, state = checkpoints.load()
        assert (int(tensors["step"]), state) == (step, {"step": step})
    assert [path.name for path in checkpoints.paths()] == ["step-99999999.safetensors", "step-00000100.safetensors"]
    assert len(list(checkpoints.folder.iterdir())) == 2


def test_no_checkpoint_is_none(tmp_path):
    assert Checkpoints(tmp_path).load() is None
    assert Checkpoints(tmp_path / "nowhere").load() is None


@pytest.fixture
def two(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step in (5, 6):
        checkpoints.save(step, {"a": torch.full((100,), float(step))}, {"step": step})
    return checkpoints


def without_state(_):
    return None


@pytest.mark.parametrize(
    "damage", [lambda whole: whole[:-1], lambda whole: b"", lambda whole: whole[:50], without_state]
)
def test_a_broken_newest_falls_back_and_says_so(two, damage):
    newest = two.paths()[0]
    content = damage(newest.read_bytes())
    if content is None:
        write_tensors(newest, {"a": torch.ones(1)})
    else:
        newest.write_bytes(content)
    with pytest.warns(UserWarning, match=rf"{newest} .*; resuming from step 5") as warned:
        tensors, state = two.load()
    assert len(warned) == 1
    assert state == {"step": 5}
    assert torch.equal(tensors["a"], torch.full((100,), 5.0))


def test_none_intact_is_an_error(two):
    for path in two.paths():
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* can be read: .*; remove the folder to start"):
        two.load()


def test_a_failed_save_leaves_the_older_ones(two, monkeypatch):
    def full_disk(*_):
        raise OSError("no space left")

    before = {path.name: path.read_bytes() for path in two.folder.iterdir()}
    monkeypatch.setattr("ofa.core.tensors.save_file", full_disk)
    with pytest.raises(OSError, match="no space left"):
        two.save(7, {"a": torch.ones(1)}, {"step": 7})
    assert {path.name: path.read_bytes() for path in two.folder.iterdir()} == before


def test_the_state_is_json_in_the_file(two):
    header = two.paths()[0].read_bytes()
    length = int.from_bytes(header[:8], "little")
    assert json.loads(json.loads(header[8 : 8 + length])["__metadata__"]["state"]) == {"step": 6}
