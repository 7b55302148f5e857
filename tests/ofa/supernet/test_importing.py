"""Import of checkpoints from a source of our own; real projects are tested in tests/supernets/checkpoints."""

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

import ofa
from ofa.core.errors import CheckpointError
from ofa.supernet import importing


@pytest.fixture
def source(monkeypatch):
    """A project that names our `stem.conv.weight` `net/stem/conv/weight`."""

    def names(family):
        if family.name != "small_mobilenet_v3":
            raise CheckpointError(f"elsewhere has no {family.name}")
        ours = ofa.Supernet(family).network.state_dict()
        return {name: "net/" + name.replace(".", "/") for name in ours}

    project = SimpleNamespace(names=names, canonical=lambda name: name, arch=None, LEADING_SLICES=False)
    monkeypatch.setattr(importing, "source", lambda name: project)
    return project


@pytest.fixture
def checkpoint(source, tiny):
    network = ofa.Supernet(tiny, seed=3).network
    return {theirs: network.state_dict()[ours].clone() for ours, theirs in source.names(tiny).items()}


def test_weights_are_loaded_by_name(checkpoint, tiny, tmp_path):
    torch.save({"epoch": 3, "state_dict": checkpoint}, tmp_path / "net.pth")
    supernet = ofa.import_checkpoint("elsewhere", tmp_path / "net.pth", tiny)
    expected = ofa.Supernet(tiny, seed=3).network.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in supernet.network.state_dict().items())


def test_dimensions_of_one_may_be_missing(checkpoint, tiny, tmp_path):
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
        "1 missing: stem.conv.weight",
        "1 unknown: net/tail",
        r"1 of another shape: head.classifier.bias (7,) instead of (10,)",
    ):
        assert part in str(error.value)


def test_leading_slices_of_larger_tensors_are_taken_only_where_the_source_allows_it(checkpoint, source, tiny, tmp_path):
    expected = {name: tensor.clone() for name, tensor in checkpoint.items()}
    for name, tensor in checkpoint.items():
        more = 0 if name.startswith("net/head/classifier") else 3  # channels of all layers, but no classes
        wider = torch.full([n + (more if dim == 0 else 3) for dim, n in enumerate(tensor.shape)], 7.0)
        wider[tuple(map(slice, tensor.shape))] = tensor
        checkpoint[name] = wider.to(tensor.dtype)
    torch.save(checkpoint, tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match="of another shape"):
        ofa.import_checkpoint("elsewhere", tmp_path / "net.pth", tiny)
    source.LEADING_SLICES = True
    state = ofa.import_checkpoint("elsewhere", tmp_path / "net.pth", tiny).network.state_dict()
    assert all(torch.equal(state[ours], expected[theirs]) for ours, theirs in source.names(tiny).items())


@pytest.mark.parametrize("classes", [7, 1000])
@pytest.mark.parametrize("layer", ["weight", "bias"])
def test_another_number_of_classes_is_refused_also_where_slices_are_allowed(
    checkpoint, source, tiny, tmp_path, layer, classes
):
    name = f"net/head/classifier/{layer}"
    checkpoint[name] = torch.ones(classes, *checkpoint[name].shape[1:])
    torch.save(checkpoint, tmp_path / "net.pth")
    source.LEADING_SLICES = True
    with pytest.raises(
        CheckpointError, match=rf"1 of another shape: head.classifier.{layer} \({classes},.* instead of \(10,"
    ):
        ofa.import_checkpoint("elsewhere", tmp_path / "net.pth", tiny)


def test_smaller_tensors_are_refused_also_where_slices_are_allowed(checkpoint, source, tiny, tmp_path):
    checkpoint["net/stem/conv/weight"] = checkpoint["net/stem/conv/weight"][:4]
    torch.save(checkpoint, tmp_path / "net.pth")
    source.LEADING_SLICES = True
    with pytest.raises(CheckpointError, match=r"1 of another shape: stem\.conv\.weight"):
        ofa.import_checkpoint("elsewhere", tmp_path / "net.pth", tiny)


@pytest.mark.usefixtures("source")
def test_a_file_that_is_no_checkpoint_is_refused(tiny, tmp_path):
    for write in (lambda path: path.write_bytes(b"PK"), lambda path: torch.save([1], path), lambda path: path.unlink()):
        write(tmp_path / "net.pth")
        with pytest.raises(CheckpointError, match=r"truncated|holds no state dict|no checkpoint"):
            ofa.import_checkpoint("elsewhere", tmp_path / "net.pth", tiny)


def test_an_unknown_source_is_refused_with_the_known_ones(tiny, tmp_path):
    with pytest.raises(CheckpointError, match=r"checkpoints 'nowhere'; choose from autoformer, once-for-all"):
        ofa.import_checkpoint("nowhere", tmp_path / "net.pth", tiny)
