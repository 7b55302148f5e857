import pickle

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from timm.models import levit
from torchvision.models import _api

import ofa
from ofa.core.errors import CheckpointError, FamilyError, SpaceError, TrainError
from ofa.core.tensors import write_tensors
from ofa.data.transforms import resize_center_crop
from ofa.evaluate.calibrate import calibrate
from ofa.train.teacher import TeacherConfig, average_logits, load_teacher, teacher_logits

TIMM = "timm:mobilenetv3_small_050"
TORCHVISION = "torchvision:shufflenet_v2_x0_5"
FAMILY = "family:small_mobilenet_v3"
FAMILY_OPTIONS = {"resolutions": [16], "width_mult": 0.5}  # those of the fixture `tiny`


@pytest.fixture(scope="session")
def models(awake, smooth_images):
    """Networks for 32 pixels with random weights, as their libraries make them."""
    torch.manual_seed(0)
    made = {
        TIMM: timm.create_model("mobilenetv3_small_050", num_classes=7, in_chans=3),
        TORCHVISION: torchvision.models.get_model("shufflenet_v2_x0_5", num_classes=7),
    }
    return {name: awake(model, smooth_images(8, 3, 32)).eval() for name, model in made.items()}


@pytest.fixture
def images(smooth_images):
    return smooth_images(5, 3, 32, seed=1)


def saved(tensors, path, wrap=False):
    """Written by safetensors or `torch.save`, as the name ends."""
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save({"state_dict": tensors, "epoch": 3} if wrap else tensors, path)
    return str(path)


def config(name, weights="nowhere.pth", **fields):
    return TeacherConfig(name=name, weights=str(weights), **fields)


# Libraries


@pytest.mark.parametrize("name", [TIMM, TORCHVISION])
@pytest.mark.parametrize(("file", "wrap"), [("net.safetensors", False), ("net.pth", False), ("net.pth", True)])
def test_a_teacher_answers_as_the_librarys_own_model_does(models, images, tmp_path, name, file, wrap):
    weights = saved(models[name].state_dict(), tmp_path / file, wrap)
    teacher = load_teacher(config(name, weights), 7, 3, [32])
    assert type(teacher) is type(models[name])
    expected = models[name](images)
    assert expected.std() > 0.3
    assert torch.equal(teacher_logits(teacher, images), expected)


def test_it_is_fixed_and_drops_nothing(models, images, tmp_path):
    weights = saved(models[TIMM].state_dict(), tmp_path / "net.pth")
    teacher = load_teacher(config(TIMM, weights, options={"drop_rate": 0.5}), 7, 3, [32])
    assert not any(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    images.requires_grad_()
    first, second = teacher_logits(teacher, images), teacher_logits(teacher, images)
    assert torch.equal(first, second)
    assert not first.requires_grad
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())


def test_global_generators_are_left_as_they_were(models, tmp_path):
    weights = saved(models[TIMM].state_dict(), tmp_path / "net.pth")
    state = torch.get_rng_state()
    load_teacher(config(TIMM, weights), 7, 3, [32])
    assert torch.equal(torch.get_rng_state(), state)


def test_it_sees_images_at_a_resolution_of_its_own(images, tmp_path):
    options = {"img_size": 48, "depth": 2, "embed_dim": 48, "num_heads": 3}
    torch.manual_seed(0)
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=7, **options).eval()
    teacher_config = config(
        "timm:vit_tiny_patch16_224", saved(vit.state_dict(), tmp_path / "vit.pth"), options=options, resolution=48
    )
    teacher = load_teacher(teacher_config, 7, 3, [32])
    logits = teacher_logits(teacher, images, teacher_config.resolution)
    assert torch.equal(logits, vit(resize_center_crop(images, 48)))
    wrong = config("timm:vit_tiny_patch16_224", teacher_config.weights, options=options)
    with pytest.raises(TrainError, match=r"does not take images of 3 channels and 32 pixels: .*set its `resolution`"):
        load_teacher(wrong, 7, 3, [32])


def test_timm_adapts_to_grey_images(smooth_images, tmp_path):
    torch.manual_seed(0)
    model = timm.create_model("mobilenetv3_small_050", num_classes=7, in_chans=1).eval()
    teacher = load_teacher(config(TIMM, saved(model.state_dict(), tmp_path / "net.pth")), 7, 1, [32])
    gray = smooth_images(3, 1, 32)
    assert torch.equal(teacher_logits(teacher, gray), model(gray))


# Pretrained


def test_timms_own_weights_come_with_their_own_classes(images, tmp_path):
    torch.manual_seed(0)
    model = timm.create_model("mobilenetv3_small_050").eval()
    path = saved(model.state_dict(), tmp_path / "net.safetensors")
    of_timm = config(TIMM, "pretrained", options={"pretrained_cfg_overlay": {"file": path}})
    teacher = load_teacher(of_timm, 1000, 3, [32])
    assert torch.equal(teacher_logits(teacher, images), model(images))
    with pytest.raises(TrainError, match=r"gives \(1000,\) logits .* the data has 7 classes"):
        load_teacher(of_timm, 7, 3, [32])


def test_torchvisions_own_weights_are_fetched_without_running_code(images, monkeypatch):
    torch.manual_seed(0)
    model = torchvision.models.get_model("shufflenet_v2_x0_5").eval()
    asked = []

    def fetch(url, **options):
        asked.append((url, options))
        return model.state_dict()

    monkeypatch.setattr(_api, "load_state_dict_from_url", fetch)
    teacher = load_teacher(config(TORCHVISION, "pretrained"), 1000, 3, [32])
    assert torch.equal(teacher_logits(teacher, images), model(images))
    ((url, options),) = asked
    assert "shufflenet" in url
    assert (options["weights_only"], options["check_hash"]) == (True, True)


@pytest.mark.parametrize(("name", "module"), [(TIMM, timm), (TORCHVISION, _api)])
def test_weights_that_cannot_be_fetched(monkeypatch, name, module):
    def refuse(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(module, "create_model" if module is timm else "load_state_dict_from_url", refuse)
    with pytest.raises(TrainError, match="weights 'pretrained': no route to host"):
        load_teacher(config(name, "pretrained"), 1000, 3, [32])


# This project's own


@pytest.fixture
def gray(smooth_images):
    return smooth_images(5, 1, 16, seed=1)


@pytest.fixture
def supernet(tiny, awake, smooth_images):
    trained = ofa.Supernet(tiny, seed=3)
    awake(trained.network, smooth_images(8, 1, 16))
    return trained.eval()


def test_the_largest_network_of_a_saved_supernet(supernet, gray, tmp_path):
    path = tmp_path / "supernet.safetensors"
    write_tensors(path, supernet.network.state_dict(), {"family": "small_mobilenet_v3"})
    teacher = load_teacher(config(FAMILY, path, options=FAMILY_OPTIONS), 10, 1, [16])
    expected = supernet.extract(supernet.family.space.largest)(gray)
    assert expected.std() > 0.3
    assert torch.allclose(teacher_logits(teacher, gray), expected, atol=1e-6)


def test_a_supernet_as_teacher_can_be_calibrated(supernet, gray, tmp_path):
    path = tmp_path / "supernet.safetensors"
    write_tensors(path, supernet.network.state_dict())
    teacher = load_teacher(config(FAMILY, path, options=FAMILY_OPTIONS), 10, 1, [16])
    own = supernet.extract(supernet.family.space.largest)
    for network in (teacher, own):
        calibrate(network, [(gray, torch.zeros(5))])
    assert torch.allclose(teacher_logits(teacher, gray), own(gray), atol=1e-6)
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


@pytest.mark.parametrize("end", ["smallest", "largest"])
def test_an_extracted_subnet(supernet, gray, tmp_path, end):
    arch = getattr(supernet.family.space, end)
    subnet = supernet.extract(arch)
    weights = saved(subnet.state_dict(), tmp_path / "subnet.pth")
    teacher = load_teacher(config(FAMILY, weights, options=FAMILY_OPTIONS, arch=dict(arch)), 10, 1, [16])
    assert torch.equal(teacher_logits(teacher, gray), subnet(gray))


def test_a_family_of_a_file(tmp_path, images):
    path = tmp_path / "own.py"
    path.write_text(
        "import ofa\n"
        "from torch import nn\n"
        "def family(num_classes, in_channels, width=4):\n"
        "    space = ofa.SearchSpace([ofa.Choice('resolution', (16, 32))])\n"
        "    def build(arch):\n"
        "        return nn.Sequential(nn.AdaptiveAvgPool2d(width), nn.Flatten(),\n"
        "                             nn.Linear(in_channels * width**2, num_classes))\n"
        "    return ofa.Family.from_builder(space, build, in_channels=in_channels)\n"
    )
    supernet = ofa.Supernet(ofa.create_family(str(path), num_classes=7, in_channels=3, width=2), seed=1)
    weights = tmp_path / "supernet.safetensors"
    write_tensors(weights, supernet.network.state_dict())
    teacher = load_teacher(config(f"family:{path}", weights, options={"width": 2}), 7, 3, [32])
    assert torch.equal(teacher_logits(teacher, images), supernet.network(images))


# Errors


@pytest.mark.parametrize(
    ("teacher", "error", "said"),
    [
        (config("keras:resnet18"), TrainError, "no known library; choose from timm:MODEL, torchvision:MODEL, family:"),
        (config("resnet18"), TrainError, "'resnet18' is of no known library"),
        (config("timm:resnet181"), TrainError, "timm has no classifier 'resnet181'; did you mean resnet18"),
        (config("timm:hf-hub:timm/resnet18"), TrainError, "timm has no classifier"),
        (config("timm:"), TrainError, "timm has no classifier ''; choose from "),
        (config("torchvision:resnet19"), TrainError, "torchvision has no classifier 'resnet19'; did you mean resnet18"),
        (config("torchvision:fasterrcnn_resnet50_fpn"), TrainError, "torchvision has no classifier"),
        (config(TIMM, options={"color": 1}), TrainError, "cannot be made with options .*color"),
        (config(TORCHVISION, options={"color": 1}), TrainError, "cannot be made with options .*color"),
        (config(TIMM, options={"num_classes": 3}), TrainError, "does not take 'num_classes' as an option"),
        (config(TORCHVISION, options={"pretrained": True}), TrainError, "does not take 'pretrained' as an option"),
        (config(TIMM, options={"checkpoint_path": "net.pth"}), TrainError, "does not take 'checkpoint_path'"),
        (config(TIMM, arch={"resolution": 32}), TrainError, "has no archs"),
        (config("family:nothing"), FamilyError, "unknown family 'nothing'"),
        (config(FAMILY, options={"color": 1}), FamilyError, "has no option 'color'"),
        (config(FAMILY, arch={"resolution": 3}), SpaceError, "resolution"),
        (config(FAMILY, "pretrained"), TrainError, "no pretrained weights; give the path of a file"),
        (config(TIMM, "nowhere.pth"), CheckpointError, "no checkpoint nowhere.pth"),
        (config(TIMM, "nowhere.safetensors"), CheckpointError, "nowhere.safetensors is missing"),
    ],
)
def test_what_cannot_teach_is_named(teacher, error, said):
    with pytest.raises(error, match=said):
        load_teacher(teacher, 7, 3, [32])


def test_weights_that_do_not_fit_are_listed_briefly(models, tmp_path):
    tensors = dict(models[TORCHVISION].state_dict())
    del tensors["conv1.0.weight"]
    tensors |= {f"tail.{i}": torch.zeros(2) for i in range(9)}
    weights = saved(tensors, tmp_path / "net.pth")
    with pytest.raises(CheckpointError) as error:
        load_teacher(config(TORCHVISION, weights), 10, 3, [32])
    for part in (
        weights,
        "1 missing: conv1.0.weight;",
        "9 unknown: tail.0, tail.1, tail.2, tail.3, tail.4, ... (9 in all);",
        "2 of another shape: fc.weight (7, 1024) instead of (10, 1024), fc.bias (7,) instead of (10,)",
    ):
        assert part in str(error.value)


def test_other_channels(models, tmp_path):
    weights = {name: saved(model.state_dict(), tmp_path / f"{i}.pth") for i, (name, model) in enumerate(models.items())}
    with pytest.raises(CheckpointError, match=r"conv_stem.weight \(16, 3, 3, 3\) instead of \(16, 1, 3, 3\)"):
        load_teacher(config(TIMM, weights[TIMM]), 7, 1, [32])
    with pytest.raises(TrainError, match="does not take images of 1 channels and 32 pixels"):
        load_teacher(config(TORCHVISION, weights[TORCHVISION]), 7, 1, [32])


class Attack:
    def __reduce__(self):
        return exec, ("raise SystemExit('code was run')",)


@pytest.mark.parametrize("name", [TIMM, TORCHVISION, FAMILY])
@pytest.mark.parametrize("wrap", [pickle.dumps, None])
def test_a_pickle_that_would_run_code_is_refused(tmp_path, name, wrap):
    path = tmp_path / "net.pth"
    if wrap is None:
        torch.save({"state_dict": Attack()}, path)
    else:
        path.write_bytes(wrap(Attack(), protocol=2))
    with pytest.raises(CheckpointError, match=r"holds no state dict|truncated or not a checkpoint"):
        load_teacher(config(name, path), 7, 3, [32])


def test_an_average_teaches_with_the_weights_it_has_now():
    attention = levit.Attention(8, key_dim=4, num_heads=2, resolution=4)  # keeps its biases in eval mode
    network = torch.nn.Sequential(attention, torch.nn.BatchNorm1d(16)).eval()
    tokens = torch.randn(3, 16, 8)
    torch.nn.init.normal_(network[0].proj.ln.bn.weight)
    before = average_logits(network, tokens)
    torch.nn.init.normal_(attention.attention_biases, std=5.0)
    now = average_logits(network, tokens)
    assert torch.equal(now, network.train()(tokens))
    assert not torch.equal(now, before)
