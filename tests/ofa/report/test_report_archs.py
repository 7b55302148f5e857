import pytest

from ofa.report.archs import arch_lines, compact


def test_groups_by_stage_and_block():
    arch = {
        "resolution": 24,
        "stage0.depth": 2,
        "stage0.block0.kernel": 5,
        "stage0.block0.expand": 4,
        "stage0.block1.kernel": 3,
        "stage0.block1.expand": 2,
        "stage1.depth": 1,
        "stage1.block0.kernel": 3,
        "stage1.block0.expand": 2,
    }
    assert arch_lines(arch) == ["24 px", "stage0: depth 2, k5 e4, k3 e2", "stage1: depth 1, k3 e2"]
    assert compact(arch) == "24 px | stage0: depth 2, k5 e4, k3 e2 | stage1: depth 1, k3 e2"


def test_transformers_with_blocks_but_no_all_stages():
    arch = {
        "resolution": 192,
        "embed_dim": 216,
        "depth": 2,
        "block0.heads": 3,
        "block0.mlp_ratio": 3.5,
        "block1.heads": 4,
        "block1.mlp_ratio": 4.0,
    }
    assert compact(arch) == "192 px, embed_dim 216, depth 2 | blocks: h3 m3.5, h4 m4"


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (("expand", "expand_out"), "expand6 expand_6"),
        (("kernel", "kernels"), "kernel6 kernels6"),
        (("se", "stride"), "se6 st6"),
    ],
)
def test_abbreviations_stay_distinct(names, text):
    assert arch_lines({f"stage0.block0.{name}": 6 for name in names}) == [f"stage0: {text}"]


def test_large_numbers_are_not_rounded():
    assert arch_lines({"width": 1234567}) == ["width 1234567"]
