import numpy as np
import pytest
from scipy.stats import spearmanr

from ofa import create_family
from ofa.cost.block_table import distinct_blocks
from ofa.cost.counted import count_macs
from ofa.cost.latency.inferred_blocks import infer_ms
from ofa.supernet.block import skeleton
from tests.families import FAMILIES


def made_up_ms(block, size):
    """A latency with a cost per operation, per value of the input, and of the block itself."""
    shape = block.input_shape(size)
    return 0.01 + 1e-7 * count_macs(skeleton(block.build).eval(), shape) + 1e-6 * np.prod(shape)


@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_of_every_family_are_inferred_from_a_few(family):
    blocks = list(distinct_blocks(create_family(family)))
    chosen = [blocks[i] for i in np.random.default_rng(0).permutation(len(blocks))[:90]]
    n_known = 2 * len(chosen) // 3
    known_ms = {(block, size): made_up_ms(block, size) for block, size in chosen[:n_known]}
    true_ms = [made_up_ms(block, size) for block, size in chosen[n_known:]]
    inferred_ms = infer_ms(known_ms, chosen[n_known:])
    assert np.median(np.abs(np.log(np.divide(inferred_ms, true_ms)))) < 0.1
    assert spearmanr(inferred_ms, true_ms)[0] > 0.95


def test_blocks_that_took_no_time_and_a_single_one_are_no_trouble():
    blocks = list(distinct_blocks(create_family("small_mobilenet_v3")))
    inferred_ms = infer_ms(dict.fromkeys(blocks[:9], 0.0) | {blocks[9]: 1.0}, blocks[10:20])
    assert np.isfinite(inferred_ms).all()
    assert infer_ms({blocks[0]: 0.5}, blocks[1:3]) == pytest.approx([0.5, 0.5])
