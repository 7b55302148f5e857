import numpy as np
import pytest
import timm
import torch
from timm.models import MobileNetV3

import ofa
from ofa import Choice, Family, SearchSpace
from ofa.core.errors import ExportError
from supernets.checkpoints.timm import to_timm


@pytest.mark.parametrize("name", ["ofa_mobilenet_v3", "small_mobilenet_v3"])
def test_timms_model_computes_the_same_with_the_weights_of_a_mobilenet(name, awake, smooth_images):
    family = ofa.create_family(name, num_classes=10, resolutions=(32, 48))
    supernet = ofa.Supernet(family)
    awake(supernet.network, smooth_images(16, 3, 48))
    rows = family.space.sample(5, np.random.default_rng(0))
    for arch in [family.space.largest, family.space.smallest, *map(family.space.decode, rows)]:
        network = supernet.extract(arch).eval()
        model = to_timm(family, arch, network)
        assert type(model) is MobileNetV3
        assert "blocks.1.0.conv_pw.weight" in model.state_dict()
        images = smooth_images(2, 3, int(arch["resolution"]), seed=1)
        with torch.no_grad():
            torch.testing.assert_close(model(images), network(images), rtol=1e-5, atol=1e-5)


def test_a_network_of_timm_is_returned_as_it_is():
    def build(arch):
        return timm.create_model(
            "vit_tiny_patch16_224", img_size=32, depth=arch["depth"], embed_dim=64, num_heads=2, num_classes=10
        )

    family = Family.from_builder(SearchSpace([Choice("depth", (1, 2, 3))]), build, resolution=32)
    arch = family.space.arch({"depth": 2})
    network = ofa.Supernet(family).extract(arch).eval()
    model = build(arch).eval()
    model.load_state_dict(to_timm(family, arch, network).state_dict(), strict=True)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(model(images), network(images))


@pytest.mark.parametrize("name", ["ofa_resnet50", "autoformer_tiny", "ofa_proxyless", "attentive_mobilenet"])
def test_a_network_that_timm_lacks_is_refused(name):
    family = ofa.create_family(name, num_classes=10, resolutions=(32, 64))
    arch = family.space.smallest
    with pytest.raises(ExportError, match="timm has no model that equals this network"):
        to_timm(family, arch, ofa.Supernet(family).extract(arch))
