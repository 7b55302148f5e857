"""Official networks, filled by the formula of the test data, give the logits that the official code gave."""

import json
from pathlib import Path

import pytest
import torch

import ofa
from ofa.core.errors import CheckpointError, SpaceError
from supernets import autoformer
from supernets.checkpoints import autoformer as source

OFFICIAL = Path(__file__).parent / "official"
FAMILIES = {"tiny": autoformer.tiny, "small": autoformer.small, "base": autoformer.base}


def filled(keys):
    """Every tensor a sine, scaled by what it is; the formula is fixed by the test data."""
    tensors = {}
    for position, (name, shape) in enumerate(sorted(keys.items())):
        n = torch.Size(shape).numel()
        wave = torch.sin(0.37 * torch.arange(n, dtype=torch.float64) + position).reshape(shape)
        if len(shape) > 1:
            value = wave * (2 * shape[0] / n) ** 0.5
        else:
            value = 1 + 0.3 * wave if name.endswith("weight") else 0.1 * wave
        tensors[name] = value.float()
    return tensors


def waves(resolution):
    n = 2 * 3 * resolution**2
    return torch.sin(0.37 * torch.arange(n, dtype=torch.float64) + 0.5).reshape(2, 3, resolution, resolution).float()


def load(family, official):
    """A supernet with the leading parts of official tensors."""
    supernet = ofa.Supernet(family)
    state = supernet.network.state_dict()
    names = source.names(family)
    parts = {ours: official[names[ours]][tuple(map(slice, tensor.shape))] for ours, tensor in state.items()}
    supernet.network.load_state_dict(parts)
    return supernet.eval()


@pytest.mark.parametrize("size", FAMILIES)
def test_subnets_compute_what_the_official_ones_do(size):
    data = json.loads((OFFICIAL / f"autoformer_{size}.json").read_text())
    supernet = load(FAMILIES[size](), filled(data["keys"]))
    assert len(data["cases"]) == 3
    for case in data["cases"]:
        arch = source.arch(supernet.family, case["config"])
        assert arch["resolution"] == case["resolution"]
        with torch.no_grad():
            logits = supernet.subnet(arch)(waves(case["resolution"]))
        difference = (logits[:, :16] - torch.tensor(case["logits"])).abs().max()
        assert difference <= 1e-5 * case["max_abs"]
        assert logits.abs().max().item() == pytest.approx(case["max_abs"], rel=1e-5)


@pytest.mark.parametrize("size", FAMILIES)
def test_every_official_tensor_is_named_once_and_large_enough(size):
    keys = json.loads((OFFICIAL / f"autoformer_{size}.json").read_text())["keys"]
    family = FAMILIES[size]()
    names = source.names(family)
    with torch.device("meta"):
        state = family.build(family.space.largest).state_dict()
    assert names.keys() == state.keys()
    assert sorted(names.values()) == sorted(keys)
    assert source.CUT
    for name, tensor in state.items():
        official = keys[names[name]]
        assert len(official) == tensor.dim()
        assert all(small <= large for small, large in zip(tensor.shape, official, strict=True))


def test_the_width_of_the_official_supernet_can_be_had_by_an_option():
    keys = json.loads((OFFICIAL / "autoformer_tiny.json").read_text())["keys"]
    family = autoformer.tiny(embed_dims=(192, 216, 240, 256))
    with torch.device("meta"):
        state = family.build(family.space.largest).state_dict()
    names = source.names(family)
    assert {names[name]: list(tensor.shape) for name, tensor in state.items()} == keys


def config(**changes):
    return {"layer_num": 12, "embed_dim": [192] * 12, "num_heads": [3] * 12, "mlp_ratio": [4.0] * 12} | changes


def test_the_released_tiny_network_can_be_said_with_an_option():
    released = config(mlp_ratio=[3.5, 3.0] * 6)
    arch = source.arch(autoformer.tiny(mlp_ratios=(3, 3.5, 4)), released)
    assert [arch[name] for name in ("resolution", "embed_dim", "depth", "block1.mlp_ratio")] == [224, 192, 12, 3]
    assert len(arch) == 3 + 2 * 12
    with pytest.raises(SpaceError, match=r"block1.mlp_ratio = 3.0 is not allowed; choose from \(3.5, 4\)"):
        source.arch(autoformer.tiny(), released)


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({"layer_num": 12, "embed_dim": [192] * 12, "num_heads": [3] * 12}, "has a 'mlp_ratio'"),
        (config(layer_num=13), "embed_dim has 12 values but layer_num is 13"),
        (config(num_heads=[3] * 11), "num_heads has 11 values"),
        (config(embed_dim=[192] * 11 + [216]), r"embed_dim has \[192, 216\]"),
    ],
)
def test_descriptions_of_another_form_are_refused(description, message):
    with pytest.raises(CheckpointError, match=message):
        source.arch(autoformer.tiny(), description)


def test_a_family_without_the_official_resolution_is_refused():
    with pytest.raises(SpaceError, match="resolution = 224 is not allowed"):
        source.arch(autoformer.tiny(resolutions=(32, 64)), config())


def test_other_families_are_refused():
    family = ofa.create_family("small_mobilenet_v3")
    for call in (source.names, lambda other: source.arch(other, config())):
        with pytest.raises(CheckpointError, match=r"'small_mobilenet_v3' cannot hold .* take one of autoformer_tiny"):
            call(family)
