"""Families of timm's architectures, by `timm_family` or from constructors by `from_builder`."""

import pickle
from functools import partial

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file
from timm import create_model
from timm.models._efficientnet_builder import decode_arch_def
from timm.models.efficientnet import EfficientNet
from timm.models.ghostnet import GhostNet
from timm.models.metaformer import MetaFormer
from timm.models.mlp_mixer import MlpMixer
from timm.models.mobilenetv3 import MobileNetV3
from timm.models.regnet import RegNet, RegNetCfg
from torch import nn

import ofa
from export.formats.onnx import export_onnx
from ofa import Choice, Family, SearchSpace
from ofa.core.errors import FamilyError, SpaceError
from ofa.cost.counted import count_macs, macs_m, params_m
from ofa.pipeline.recipe import Recipe
from ofa.pipeline.run import Run
from ofa.pipeline.stage import all_stages
from ofa.supernet.block import skeleton
from ofa.supernet.rules import Grouped, Rule
from supernets.rules import CenterTable, CornerTable, ResampledPositions
from supernets.timm_layers import classifiers
from supernets.timm_models import timm_family


def timm_spec(model, resolutions=(32, 48), **arguments):
    def timm(num_classes=10):
        return timm_family(model, num_classes=num_classes, resolutions=resolutions, **arguments)

    return timm


def built(choices, build, resolution=32, **options):
    space = SearchSpace(Choice(name, values) for name, values in choices.items())
    return lambda: Family.from_builder(space, build, resolution=resolution, **options)


def mobilenet(arch):
    middle = f"ir_r{arch['stage1.depth']}_k{arch['stage1.kernel']}_s2_e{arch['stage1.expand']}_c24_se0.25"
    blocks = decode_arch_def([["ds_r1_k3_s1_e1_c16_nre"], [middle], ["cn_r1_k1_s1_c48"]])
    return MobileNetV3(blocks, num_classes=10, num_features=64, stem_size=16)


def efficientnet(arch):
    middle = f"ir_r{arch['stage1.depth']}_k3_s2_e4_c{arch['stage1.width']}_se0.25"
    blocks = decode_arch_def([["ds_r1_k3_s1_e1_c16_se0.25"], [middle]])
    return EfficientNet(blocks, num_classes=10, num_features=64, stem_size=16, act_layer=nn.SiLU)


def mixer(arch):
    ratios = (0.5, float(arch["mlp_ratio"]))
    sizes = {"img_size": 32, "patch_size": 8, "num_blocks": arch["depth"], "embed_dim": arch["embed_dim"]}
    return MlpMixer(num_classes=10, mlp_ratio=ratios, **sizes)


def regnet(arch):
    config = RegNetCfg(depth=arch["depth"], w0=16, wa=16.0, wm=2.0, group_size=arch["group_size"])
    return RegNet(config, num_classes=10)


def ghostnet(arch):
    stages = [[[3, 16, 16, 0, 1]], [[3, 48, 24, 0, 2]], [[5, 72, 40, 0.25, 2]]]
    return GhostNet(stages, num_classes=10, width=arch["width"])


def poolformer(arch):
    depths, dims = (1, arch["stage1.depth"], 1, 1), (arch["stage0.width"], 32, 32, 48)
    return MetaFormer(depths=depths, dims=dims, num_classes=10)


def swin_heads(arguments):
    return {"num_heads": tuple(arguments["embed_dim"] * 2**stage // 16 for stage in range(4))}


SPECS = {
    "vit": timm_spec(
        "vit_tiny_patch16_224", depth=[1, 2, 3], embed_dim=[64, 128], mlp_ratio=[2.0, 3.0], resolutions=[32, 48, 64]
    ),
    "deit distilled": timm_spec(
        "deit_tiny_distilled_patch16_224", depth=[1, 2], embed_dim=[64, 128], resolutions=[32, 48]
    ),
    "deit3": timm_spec(
        "deit3_small_patch16_224", depth=[1, 2], embed_dim=[64, 128], init_values=0.1, resolutions=[32, 48]
    ),
    "beit": timm_spec("beit_base_patch16_224", depth=[1, 2], embed_dim=[64, 128], resolutions=[32, 48]),
    "cait": timm_spec("cait_xxs24_224", depth=[1, 2], embed_dim=[48, 96], resolutions=[32, 48]),
    "xcit": timm_spec("xcit_nano_12_p16_224", depth=[1, 2], embed_dim=[32, 64], resolutions=[32, 48]),
    "convnext": timm_spec("convnext_atto", depths=(1, 1, [1, 2], 1), dims=([8, 16], [16, 24], 32, [40, 48])),
    "swin": timm_spec(
        "swin_tiny_patch4_window7_224",
        depths=(1, [1, 2], 1, 1),
        embed_dim=[16, 32],
        window_size=4,
        adjust=swin_heads,
        resolutions=[32, 64],
    ),
    "resnet": timm_spec(
        "resnet26", layers=(1, [1, 2], 1, 1), channels=([8, 24], [16, 32], 32, [32, 48]), zero_init_last=False
    ),
    "resnext": timm_spec("resnext50_32x4d", layers=(1, [1, 2], 1, 1), channels=(16, 16, 32, 32), base_width=[32, 64]),
    "resnext cardinality": timm_spec(
        "resnext50_32x4d", layers=(1, 1, 1, 1), channels=(16, 16, 32, 32), base_width=64, cardinality=[8, 16]
    ),
    "edgenext": timm_spec(
        "edgenext_xx_small", depths=(1, 2, 2, 2), dims=([8, 16], [16, 24], [32, 48], [64, 80]), heads=(4, 4, 4, 4)
    ),
    "fastvit": timm_spec("fastvit_t8", layers=(1, 1, [1, 2], 1), embed_dims=(16, 32, [32, 64], 64)),
    "coatnet": timm_spec(
        "coatnet_pico_rw_224",
        depths=(1, [1, 2], [1, 2], 1),
        embed_dim=(32, [64, 96], [96, 128], 192),
        stem_width=(16, 24),
        resolutions=[64, 96],
    ),
    "levit": timm_spec("levit_128s", depth=([1, 2], 1, 1), embed_dim=(32, 48, 64), resolutions=[64, 96]),
    "efficientformer v2": timm_spec(
        "efficientformerv2_s0", depths=(1, 1, [1, 2], 2), embed_dims=([8, 16], 32, 32, [48, 64]), resolutions=[64, 96]
    ),
    "mobilenet v3": built(
        {"resolution": (32, 48), "stage1.depth": (1, 2), "stage1.expand": (2, 4), "stage1.kernel": (3, 5)}, mobilenet
    ),
    "efficientnet": built({"resolution": (32, 48), "stage1.depth": (1, 2), "stage1.width": (16, 24)}, efficientnet),
    "mixer": built({"depth": (1, 2), "embed_dim": (32, 48), "mlp_ratio": (2, 4)}, mixer),
    "regnet": built({"depth": (6, 8), "group_size": (4, 8)}, regnet),
    "ghostnet": built({"width": (0.5, 1.0)}, ghostnet),
    "poolformer": built({"stage1.depth": (1, 2), "stage0.width": (16, 24)}, poolformer),
}


SLOW = (
    "beit",
    "cait",
    "coatnet",
    "deit3",
    "edgenext",
    "efficientformer v2",
    "fastvit",
    "levit",
    "poolformer",
    "resnext",
    "resnext cardinality",
    "xcit",
)
PARAMS = [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in SPECS]


@pytest.fixture(scope="module", params=PARAMS)
def supernet(request):
    """A supernet with noise in all parameters, so that none has its initial value, such as layer scales and zeros."""
    made = ofa.Supernet(SPECS[request.param](), seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return made


def archs(space):
    row = space.sample(1, np.random.default_rng(7))[0]
    return [space.largest, space.smallest, space.decode(row)]


@pytest.fixture(scope="module")
def images(smooth_images):
    return lambda arch, n=4: smooth_images(n, 3, int(arch["resolution"]))


def test_a_sandwich_step_changes_weights(supernet, images):
    supernet.train()
    supernet.zero_grad()
    before = {name: p.detach().clone() for name, p in supernet.named_parameters()}
    for arch in archs(supernet.family.space):
        loss = -supernet.subnet(arch)(images(arch, 8)).log_softmax(1)[:, 3].mean()
        assert loss.isfinite()
        loss.backward()
    torch.optim.Adam(supernet.parameters(), lr=1e-3).step()
    changed = [name for name, p in supernet.named_parameters() if not torch.equal(p, before[name])]
    assert len(changed) > 0.9 * len(before)
    assert all(p.isfinite().all() for p in supernet.parameters())


def test_a_subnet_computes_what_the_extracted_network_does_to_the_last_bit(supernet, images):
    supernet.eval()
    answers = set()
    for arch in archs(supernet.family.space):
        extracted = supernet.extract(arch)
        with torch.no_grad():
            logits = supernet.subnet(arch)(images(arch))
            assert torch.equal(logits, extracted(images(arch)))
        assert logits.isfinite().all()
        assert not any(type(module).__module__.startswith("ofa.") for module in extracted.modules())
        answers.add(tuple(logits.flatten().tolist()))
    assert len(answers) >= 2


def test_costs_are_those_of_the_extracted_network(supernet):
    family, some = supernet.family, archs(supernet.family.space)[1:]
    rows = family.space.rows(some)
    for arch, macs, params in zip(some, macs_m(family)(rows), params_m(family)(rows), strict=True):
        extracted = supernet.extract(arch).eval()
        assert macs == count_macs(extracted, family.input_shape(arch)) / 1e6
        assert params == sum(p.numel() for p in extracted.parameters()) / 1e6


def test_onnx_computes_the_same(supernet, images, tmp_path):
    supernet.eval()
    arch = archs(supernet.family.space)[-1]
    extracted = supernet.extract(arch)
    shape = supernet.family.input_shape(arch)
    batches = [images(arch), images(arch, 1)]
    assert export_onnx(extracted, shape, tmp_path / "x.onnx", images=batches).max_abs_diff <= 1e-4


def sliced(name, full, shape):
    """Return the part of a parameter that a smaller network shares, by plain indexing."""
    if name.endswith(("qkv.weight", "qkv.bias")):
        parts = full.unflatten(0, (3, -1))[:, : shape[0] // 3]
        return (parts[..., : shape[1]] if len(shape) > 1 else parts).flatten(0, 1)
    if name == "pos_embed":
        side, small = int((full.shape[1] - 1) ** 0.5), int((shape[1] - 1) ** 0.5)
        grid = full[:, 1:, : shape[2]].transpose(1, 2).unflatten(2, (side, side))
        if small != side:
            grid = nn.functional.interpolate(grid, (small, small), mode="bicubic", antialias=True)
        return torch.cat([full[:, :1, : shape[2]], grid.flatten(2).transpose(1, 2)], dim=1)
    if name.endswith("relative_position_bias_table"):
        side, small = int(full.shape[0] ** 0.5), int(shape[0] ** 0.5)
        edge = (side - small) // 2
        table = full.unflatten(0, (side, side))[edge : edge + small, edge : edge + small, : shape[1]]
        return table.flatten(0, 1)
    edges = [
        (n - m) // 2 if dim > 1 and len(shape) == 4 else 0
        for dim, (n, m) in enumerate(zip(full.shape, shape, strict=True))
    ]
    return full[tuple(slice(edge, edge + size) for edge, size in zip(edges, shape, strict=True))]


@pytest.mark.parametrize("supernet", ["vit", "swin", "convnext", "mobilenet v3"], indirect=True)
def test_gradients_are_those_of_slicing_with_autograd(supernet, images):
    supernet.eval()
    for arch in archs(supernet.family.space):
        supernet.zero_grad()
        leaves = {name: p.detach().clone().requires_grad_() for name, p in supernet.network.named_parameters()}
        static = supernet.extract(arch)
        weights = {name: sliced(name, leaves[name], p.shape) for name, p in static.named_parameters()}
        supernet.subnet(arch)(images(arch)).square().sum().backward()
        torch.func.functional_call(static, weights, (images(arch),)).square().sum().backward()
        for name, parameter in supernet.network.named_parameters():
            expected = torch.zeros_like(parameter) if leaves[name].grad is None else leaves[name].grad
            assert (parameter.grad - expected).abs().max() <= 1e-5 * expected.abs().max(), f"{name} of {arch}"


def test_a_list_is_a_choice_and_a_tuple_has_an_item_per_stage():
    made = timm_family(
        "convnext_atto", depths=(2, 2, [2, 4], 2), dims=([24, 40], 80, 160, [192, 320]), kernel_sizes=[5, 7]
    )
    choices = {choice.name: choice.values for choice in made.space.choices}
    assert choices == {
        "resolution": (224,),
        "stage2.depth": (2, 4),
        "stage0.width": (24, 40),
        "stage3.width": (192, 320),
        "kernel_sizes": (5, 7),
    }
    network = made.build(made.space.smallest)
    assert [len(stage.blocks) for stage in network.stages] == [2, 2, 2, 2]
    assert (network.stem[0].out_channels, network.head.fc.in_features, network.head.fc.out_features) == (24, 192, 1000)
    assert (made.name, made.resolution_multiple) == ("convnext_atto", 1)


def test_networks_have_the_classes_channels_and_resolution_of_the_family():
    made = timm_family("vit_tiny_patch16_224", num_classes=7, in_channels=1, resolutions=(32, 48), depth=[1, 2])
    assert made.resolution_multiple == 16
    for arch in (made.space.smallest, made.space.largest):
        assert made.build(arch).eval()(torch.zeros(2, *made.input_shape(arch))).shape == (2, 7)


@pytest.mark.parametrize(
    ("model", "arguments", "heads"),
    [
        ("vit_tiny_patch16_224", {"depth": 1, "embed_dim": [64, 128]}, 1),  # 64 channels each
        ("vit_tiny_patch16_224", {"depth": 1, "embed_dim": [64, 128], "num_heads": [2, 4]}, 2),
        ("vit_tiny_patch16_224", {"depth": 1, "embed_dim": 96, "num_heads": [2, 4]}, 2),
        (
            "vit_tiny_patch16_224",
            {"depth": 1, "embed_dim": [96, 144, 192]},
            3,
        ),  # not multiples of 64
        (
            "vit_tiny_patch16_224",
            {
                "depth": 1,
                "embed_dim": [64, 96],
                "adjust": lambda given: {"num_heads": given["embed_dim"] // 16},
            },
            4,
        ),
    ],
)
def test_heads_follow_embed_dim_unless_they_are_given(model, arguments, heads):
    made = timm_family(model, resolutions=(32,), **arguments)
    assert made.build(made.space.smallest).blocks[0].attn.num_heads == heads


def test_heads_of_stages_follow_embed_dim():
    made = timm_family("swin_tiny_patch4_window7_224", resolutions=(32, 64), depths=(1, 1, 1, 1), embed_dim=[32, 64])
    network = made.build(made.space.smallest)
    assert [layer.blocks[0].attn.num_heads for layer in network.layers] == [1, 2, 4, 8]


def output_layers(build, arch):
    """Return the layers whose shapes depend on the number of classes."""
    one, other = (skeleton(partial(build(n), arch)).state_dict() for n in (10, 11))
    return {name.rpartition(".")[0] for name in one if one[name].shape != other[name].shape}


@pytest.mark.parametrize("name", [p for p in PARAMS if SPECS[p.values[0]].__name__ == "timm"])
def test_classifiers_are_the_layers_whose_size_depends_on_the_number_of_classes(name):
    family = SPECS[name]()
    assert len(family.classifiers) == (2 if name in ("deit distilled", "levit", "efficientformer v2") else 1)
    assert output_layers(lambda n: SPECS[name](num_classes=n).build, family.space.largest) == set(family.classifiers)


@pytest.mark.parametrize("model", ["repvit_m0_9", "caformer_s18", "dla34"])
def test_classifiers_inside_timms_heads_are_found(model):
    def build(num_classes):
        return lambda _: create_model(model, num_classes=num_classes)

    assert set(classifiers(skeleton(lambda: build(10)(None)), 10)) == output_layers(build, None)


def test_a_model_without_a_classifier_has_none():
    for model in ("deit_tiny_distilled_patch16_224", "convnext_atto"):
        assert classifiers(skeleton(partial(create_model, model, num_classes=0)), 0) == ()


@pytest.mark.parametrize("name", ["vit", "deit distilled", "swin"])
def test_the_blocks_of_a_family_can_be_pickled(name):
    family = SPECS[name]()
    for arch in archs(family.space):
        ((_, block),) = family.blocks(family.space.row(arch))
        again = pickle.loads(pickle.dumps(block))
        assert str(skeleton(again.build)) == str(skeleton(block.build))


def test_rules_follow_timms_layers():
    def rule(name, family):
        return family.rules.get(name)

    distilled = SPECS["deit distilled"]()
    assert rule("pos_embed", distilled) == ResampledPositions(extra=2)
    assert rule("pos_embed", SPECS["deit3"]()) == ResampledPositions(extra=0)
    assert distilled.rules["blocks.0.attn.qkv.*"] == Grouped(3)
    assert rule("blocks.1.attn.relative_position_bias_table", SPECS["beit"]()) == CenterTable(extra=3)
    swin = rule("layers.0.blocks.0.attn.relative_position_bias_table", SPECS["swin"]())
    assert swin == CenterTable()
    coatnet = SPECS["coatnet"]()  # q, k and v of one head are adjacent
    assert not any(isinstance(rule, Grouped) for rule in coatnet.rules.values())
    assert any(isinstance(rule, CornerTable) for rule in SPECS["levit"]().rules.values())
    assert Grouped(2) in timm_family("pvt_v2_b0", depths=(1, 1, 1, [1, 2])).rules.values()
    plain = Rule()
    own = timm_family("vit_tiny_patch16_224", depth=[1, 2], rules={"*.qkv.*": plain, "pos_embed": plain})
    assert list(own.rules)[:2] == ["*.qkv.*", "pos_embed"]
    assert own.rules["pos_embed"] is plain


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        ("vit_tiny_patch16_22", {}, r"timm has no model 'vit_tiny_patch16_22'; near: .*vit_tiny_patch16_224"),
        ("vit_tiny_patch16_224", {"img_size": 64}, "img_size = 64 has another name here; give resolutions"),
        (
            "vit_tiny_patch16_224",
            {"depth": [12]},
            r"depth = \[12\] leaves no choice; give at least two values, or no l",
        ),
        ("vit_tiny_patch16_224", {"depth": [1, 2], "resolutions": (40,)}, "resolution 40 is not allowed; give multip"),
        ("vit_tiny_patch16_224", {"embed_dim": [96, 128]}, "3 heads do not divide embed_dim = 128"),
        (
            "vit_tiny_patch16_224",
            {"embed_dim": [96, 128], "num_heads": [2, 3]},
            "3 heads do not divide embed_dim = 128",
        ),
        (
            "vit_tiny_patch16_224",
            {"deepness": [1, 2]},
            r"timm's vit_tiny_patch16_224 does not take the argument 'deepness'",
        ),
        (
            "mobilenetv3_small_050",
            {"channel_multiplier": [0.5, 1.0]},
            "not take the argument 'channel_multiplier'; give Family.from",
        ),
        (
            "efficientnet_b0",
            {"channel_multiplier": [0.5, 1.0]},
            "the argument 'channel_multiplier'; give Family.from_buil",
        ),
        ("mixer_s32_224", {"embed_dim": [256, 512]}, "argument 'embed_dim'; give Family.from_builder a function that"),
        ("nextvit_small", {"depths": (1, 1, [2, 4], 1)}, "nextvit_small cannot be built with .*; change these"),
        (
            "resnet18",
            {"channels": ([32, 64], 128, 256, 512)},
            r"layer1\.0\.downsample.* is in a smaller network but not",
        ),
        ("edgenext_xx_small", {"depths": (2, 2, [2, 3], 2)}, "stages.2.blocks.1.* is in a smaller network but not in"),
        (
            "rexnet_100",
            {"depth_mult": [0.5, 1.0]},
            "features.2.se.fc1.weight is in a smaller network but not in the largest",
        ),
    ],
)
def test_arguments_that_make_no_family_are_refused(model, arguments, message):
    with pytest.raises(FamilyError, match=message):
        timm_family(model, **arguments)


@pytest.mark.parametrize("depths", [[2, 1], [1, 1], [1, "2"]])
def test_values_that_are_not_ascending_numbers_are_refused(depths):
    with pytest.raises(SpaceError, match="choice 'depth' has values"):
        timm_family("vit_tiny_patch16_224", depth=depths)


@pytest.fixture
def weights(tmp_path):
    """Weights of timm's model `test_vit` for ImageNet, and the overlay that names their file."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        state = create_model("test_vit").state_dict()
    save_file(state, tmp_path / "weights.safetensors")
    return state, {"file": str(tmp_path / "weights.safetensors")}


def test_a_supernet_can_start_from_timms_weights(weights):
    state, overlay = weights
    options = {"num_classes": 10, "in_channels": 1, "depth": [3, 6], "resolutions": (96, 160)}
    made = timm_family("test_vit", pretrained=True, pretrained_cfg_overlay=overlay, **options)
    network = ofa.Supernet(made).network
    for name, value in network.state_dict().items():
        if not name.startswith(("head.", "patch_embed.")):
            assert torch.equal(value, state[name])
    stem = network.patch_embed.proj.weight
    torch.testing.assert_close(stem, state["patch_embed.proj.weight"].sum(dim=1, keepdim=True))
    fresh = made.build(made.space.smallest)
    assert not torch.equal(fresh.blocks[0].attn.qkv.weight, state["blocks.0.attn.qkv.weight"])


def test_weights_at_another_resolution_are_resampled(weights):
    _, overlay = weights
    made = timm_family(
        "test_vit", pretrained=True, pretrained_cfg_overlay=overlay, depth=[3, 6], resolutions=(64, 96), num_classes=10
    )
    assert ofa.Supernet(made).network.pos_embed.shape[1] == 1 + 6 * 6


@pytest.mark.parametrize("arguments", [{"depth": [4, 5]}, {"depth": [6, 7]}, {"mlp_ratio": [3, 4]}])
def test_weights_of_another_network_are_refused(weights, arguments):
    with pytest.raises(FamilyError, match=r"the largest network is not timm's own test_vit, blocks\..* has shape"):
        timm_family("test_vit", pretrained=True, pretrained_cfg_overlay=weights[1], **arguments)


def test_weights_that_cannot_be_loaded_are_refused(tmp_path):
    save_file({"other": torch.zeros(2)}, tmp_path / "other.safetensors")
    for file in ("nowhere.safetensors", "other.safetensors"):
        overlay = {"file": str(tmp_path / file)}
        made = timm_family("test_vit", pretrained=True, pretrained_cfg_overlay=overlay, depth=[3, 6])
        with pytest.raises(FamilyError, match=r"timm's weights of test_vit cannot be loaded .*; give pretrained=False"):
            ofa.Supernet(made)


FAMILY_FILE = """
from ofa import timm_family

def family(num_classes=10, in_channels=1, resolutions=(8, 12)):
    sizes = {"patch_size": 4, "depth": [1, 2], "embed_dim": [64, 128], "mlp_ratio": [1, 2]}
    options = {"num_classes": num_classes, "in_channels": in_channels, "resolutions": resolutions}
    return timm_family("vit_tiny_patch16_224", **options, **sizes)
"""


@pytest.mark.slow
def test_a_family_file_runs_through_all_stages(tmp_path, tiny_recipe_text):
    (tmp_path / "digits_vit.py").write_text(FAMILY_FILE)
    content = yaml.safe_load(tiny_recipe_text)
    content["family"] = {"name": str(tmp_path / "digits_vit.py"), "options": {"resolutions": [8, 12]}}
    content["profile"] |= {"networks": 8}
    run = Run(Recipe.model_validate(content), tmp_path / "run")
    for stage in all_stages().values():
        run.execute(stage, lambda done, total, message: None)
    target = run.target()
    table = target.latency_table()
    assert not table.rows
    assert (len(table.networks), len(table.checks), run.family.space.size) == (8, 3, 16)
    front, summary = target.read_json("front.json")["front"], run.read_json("summary.json")
    rows = run.family.space.rows(entry["arch"] for entry in front)
    assert table(rows) == pytest.approx([entry["predicted_latency_ms"] for entry in front])
    levels = summary["targets"]["local"]["levels"]
    assert levels
    assert all(level["max_abs_diff"] <= 1e-4 for level in levels)
    assert run.path("report.html").is_file()
