from dataclasses import replace

import numpy as np
import pytest

import ofa
from ofa.data.config import DataConfig
from ofa.evaluate.subnets import evaluate_subnets
from tests.ofa.data.conftest import Counted


@pytest.fixture(scope="module")
def supernet():
    options = {"num_classes": 10, "in_channels": 1, "resolutions": [12, 16], "width_mult": 0.5}
    return ofa.Supernet(ofa.create_family("small_mobilenet_v3", **options), seed=0)


@pytest.mark.parametrize("cache_mib", [256, 0])
def test_subnets_share_what_does_not_stay_in_memory(supernet, cache_mib):
    space, data = supernet.family.space, ofa.load_data(DataConfig(name="digits"))
    rows = space.sample(12, np.random.default_rng(0))
    rows[:, space.column("resolution")] = [0] * 2 + [1] * 10
    archs = [space.decode(row) for row in rows]
    images = Counted(data.validation)
    bounded = replace(data, cache_mib=cache_mib)
    measured = dict(evaluate_subnets(supernet, archs, bounded, images, calibration_images=64, max_images=100))
    passes = {12: 1, 16: 1} if cache_mib else {12: 1, 16: 2}  # at most 8 networks share a pass
    assert images.n_read == 100 * sum(passes.values())
    for arch in (archs[1], archs[5], archs[-1]):
        network = supernet.extract(arch)
        limits = {"resolution": int(arch["resolution"]), "data": data}
        ofa.calibrate(network, ofa.eval_batches(images=data.train, limit=64, **limits))
        alone = ofa.evaluate(network, ofa.eval_batches(images=data.validation, limit=100, **limits))
        assert measured[arch].top1_percent == alone.top1_percent
        assert measured[arch].loss == pytest.approx(alone.loss, rel=1e-5)
