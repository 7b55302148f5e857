"""Importing checkpoints, with a source of our own; those of real projects are tested beside their names."""

import pickle
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

import ofa
from ofa.core.errors import CheckpointError
from ofa.supernet import importing


@pytest.fixture
def source(monkeypatch):
    """A project that calls our `stem.conv.weight` `net/stem/conv/weight`."""

    def names(family):
        if family.name != "small_mobilenet_v3":
            raise CheckpointError(f"elsewhere has no {family.name}")
        ours = ofa.Supernet(family).network.state_dict()
        return {name: "net/" + name.replace(".", "/") for name in ours}

    made = SimpleNamespace(names=names, canonical=lambda name: name, arch=None, CUT=False)
    monkeypatch.setattr(importing, "source", lambda name: made)
    return made


@pytest.fixture
def checkpoint(source, tiny):
    network = ofa.Supernet(tiny, seed=3).network
    return {theirs: network.state_dict()[ours].clone() for ours, theirs in source.names(tiny).items()}


@pytest.mark.parametrize("wrap", [dict, lambda d: {"state_dict": d, "epoch": 3}, lambda d: {"model": d}])
def test_weights_are_taken_by_name_also_when_wrapped(checkpoint, tiny, tmp_path, wrap):
    torch.save(wrap({f"module.{name}": tensor for name, tensor in checkpoint.items()}), tmp_path / "net.pth")
    supernet = ofa.import_checkpoint("elsewhere", tmp_path / "net.pth", tiny)
    expected = ofa.Supernet(tiny, seed=3).network.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in supernet.network.state_dict().items())


def test_safetensors_and_dimensions_of_one(checkpoint, tiny, tmp_path):
    name = "net/head/hidden/weight"
    checkpoint[name] = checkpoint[name].flatten(1)
    save_file(checkpoint, tmp_path / "net.safetensors")
    supernet = ofa.import_checkpoint("elsewhere", tmp_path / "net.safetensors", tiny)
    assert torch.equal(supernet.network.get_parameter("head.hidden.weight").flatten(1), checkpoint[name])


def test_every_problem_is_listed(checkpoint, tiny, tmp_path):
    del checkpoint["net/stem/conv/weight"]
    checkpoint["net/tail"] = torch.zeros(2)
    checkpoint["net/head/classifier/bias"] = torch.zeros(7)
    torch.save(checkpoint, tmp_path / "net.pth")
    with pytest.raises(CheckpointError) as error:
        ofa.import_checkpoint("elsewhere", tmp_path / "net.pth", tiny)
    for part in (
        "1 missing: net/stem/conv/weight",
        "1 unknown: net/tail",
        r"1 of another shape: net/head/classifier/bias (7,) for (10,)",
    ):
        assert part in str(error.value)


def test_larger_tensors_are_cut_only_where_the_source_says_so(checkpoint, source, tiny, tmp_path):
    weight = checkpoint["net/stem/conv/weight"]
    checkpoint["net/stem/conv/weight"] = torch.cat([weight, torch.ones(8, 1, 3, 3)])
    torch.save(checkpoint, tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match="of another shape"):
        ofa.import_checkpoint("elsewhere", tmp_path / "net.pth", tiny)
    source.CUT = True
    supernet = ofa.import_checkpoint("elsewhere", tmp_path / "net.pth", tiny)
    assert torch.equal(supernet.network.get_parameter("stem.conv.weight"), weight)
    checkpoint["net/head/classifier/bias"] = torch.ones(1000)  # other classes are not the first ten of these
    torch.save(checkpoint, tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match="of another shape"):
        ofa.import_checkpoint("elsewhere", tmp_path / "net.pth", tiny)


class Attack:
    def __reduce__(self):
        return exec, ("raise SystemExit('code was run')",)


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda path: path.write_bytes(pickle.dumps(Attack(), protocol=2)), "could run code"),
        (lambda path: torch.save({"state_dict": Attack()}, path), "could run code"),
        (lambda path: path.write_bytes(b"PK\x03\x04 and no more"), "truncated or not a checkpoint"),
        (lambda path: path.write_bytes(b""), "truncated or not a checkpoint"),
        (lambda path: torch.save([torch.zeros(2)], path), "holds no state_dict"),
        (lambda path: torch.save({0: torch.zeros(2)}, path), "holds no state_dict"),
        (lambda _: None, "no checkpoint"),
    ],
)
@pytest.mark.usefixtures("source")
def test_what_is_no_checkpoint_is_refused_and_runs_nothing(tiny, tmp_path, write, said):
    write(tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match=said):
        ofa.import_checkpoint("elsewhere", tmp_path / "net.pth", tiny)


def test_an_unknown_source_is_named_with_those_there_are(tiny, tmp_path):
    with pytest.raises(CheckpointError, match="unknown source 'nowhere'; checkpoints can be imported from"):
        ofa.import_checkpoint("nowhere", tmp_path / "net.pth", tiny)
