import json
from pathlib import Path

import pytest
import torch

import ofa
from ofa.core.errors import CheckpointError, SpaceError
from supernets import autoformer
from supernets.checkpoints import autoformer as source


def test_an_option_gives_the_official_supernets_width():
    keys = json.loads((Path(__file__).parent / "official" / "autoformer_tiny.json").read_text())["keys"]
    family = autoformer.tiny(embed_dims=(192, 216, 240, 256))
    with torch.device("meta"):
        state = family.build(family.space.largest).state_dict()
    names = source.names(family)
    assert {names[name]: list(tensor.shape) for name, tensor in state.items()} == keys


def config(**changes):
    return {"layer_num": 12, "embed_dim": [192] * 12, "num_heads": [3] * 12, "mlp_ratio": [4.0] * 12} | changes


def test_an_option_allows_the_released_tiny_subnet():
    released = config(mlp_ratio=[3.5, 3.0] * 6)
    arch = source.arch(autoformer.tiny(mlp_ratios=(3, 3.5, 4)), released)
    assert [arch[name] for name in ("resolution", "embed_dim", "depth", "block1.mlp_ratio")] == [224, 192, 12, 3]
    assert len(arch) == 3 + 2 * 12
    with pytest.raises(SpaceError, match=r"block1.mlp_ratio = 3.0 is not allowed; choose from \(3.5, 4\)"):
        source.arch(autoformer.tiny(), released)


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({"layer_num": 12, "embed_dim": [192] * 12, "num_heads": [3] * 12}, "must have 'mlp_ratio'; this one has"),
        (config(layer_num=13), "embed_dim has 12 values but layer_num is 13"),
        (config(num_heads=[3] * 11), "num_heads has 11 values"),
        (config(embed_dim=[192] * 11 + [216]), r"embed_dim has the values \[192, 216\]"),
    ],
)
def test_a_description_of_another_form_is_refused(description, message):
    with pytest.raises(CheckpointError, match=message):
        source.arch(autoformer.tiny(), description)


def test_a_family_without_the_official_resolution_is_refused():
    with pytest.raises(SpaceError, match="resolution = 224 is not allowed"):
        source.arch(autoformer.tiny(resolutions=(32, 64)), config())


def test_other_families_are_refused():
    family = ofa.create_family("small_mobilenet_v3")
    for call in (source.names, lambda other: source.arch(other, config())):
        with pytest.raises(CheckpointError, match=r"'small_mobilenet_v3' cannot hold .* choose one of autoformer_tiny"):
            call(family)
