"""Properties of every registered family; registering a family tests it."""

import copy
import json
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import ofa
from export.formats.onnx import compare, export_onnx
from export.formats.onnx_format import OnnxFormat
from ofa.cost.block_table import distinct_blocks
from ofa.cost.counted import macs_m, params_m
from ofa.supernet.block import skeleton
from ofa.supernet.sharing import shared_buffers
from tests.families import FAMILIES

FEW_OR_MANY = pytest.mark.parametrize("n_archs", [1, pytest.param(50, marks=pytest.mark.slow)])
OPTIONS = {"num_classes": 10, "in_channels": 3, "resolutions": (32, 48, 64)}  # small, to be quick


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return ofa.create_family(request.param, **OPTIONS)


@pytest.fixture(scope="module")
def images(smooth_images):
    return {resolution: smooth_images(4, 3, resolution, seed=resolution) for resolution in OPTIONS["resolutions"]}


@pytest.fixture(scope="module")
def trained(family, awake, smooth_images):
    """A supernet with statistics of images; no test changes it."""
    supernet = ofa.Supernet(family, seed=1)
    awake(supernet.network, smooth_images(16, 3, 48))
    return supernet.eval()


@pytest.fixture
def supernet(trained):
    return copy.deepcopy(trained)


def archs(space, n_random):
    rows = space.sample(n_random, np.random.default_rng(7))
    return [space.largest, space.smallest, *(space.decode(row) for row in rows)]


def part(full, shape, center=()):
    """Return the leading part of a tensor, the center along some dimensions, by plain indexing."""
    assert full.dim() == len(shape)
    starts = [(n - shape[d]) // 2 if d in center else 0 for d, n in enumerate(full.shape)]
    return full[tuple(slice(start, start + size) for start, size in zip(starts, shape, strict=True))]


def sliced(supernet, tensors, name, shape):
    """Compute a subnet's parameter from the largest network's tensors: the sharing rules, written a second time."""
    full = tensors[name]
    owner = name.rpartition(".")[0]
    if name.endswith("bias_table"):
        return part(full, shape, center=(0, 1))
    if not isinstance(supernet.network.get_submodule(owner), nn.Conv2d):
        return part(full, shape)
    if shape[-1] < full.shape[-1] and f"{name}_7to5" in tensors:
        weight = part(full, (*shape[:2], 5, 5), center=(2, 3)).flatten(2) @ tensors[f"{name}_7to5"].T
        if shape[-1] == 3:
            center = weight.reshape(*shape[:2], 5, 5)[:, :, 1:4, 1:4].flatten(2)
            weight = center @ tensors[f"{name}_5to3"].T
        return weight.reshape(shape)
    return part(full, shape, center=(2, 3))


class CountMacs(TorchDispatchMode):
    """Count the multiply-accumulates of all operators, from the shapes of their tensors."""

    def __init__(self):
        super().__init__()
        self.macs = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name == "convolution":
            self.macs += out.numel() * args[1][0].numel()
        elif name in ("mm", "bmm"):
            self.macs += out.numel() * args[0].shape[-1]
        elif name in ("addmm", "baddbmm"):
            self.macs += out.numel() * args[1].shape[-1]
        elif "scaled_dot_product" in name:
            query, key, value = args[:3]
            self.macs += query.numel() * key.shape[-2] + query[..., 0].numel() * value[0, 0].numel()
        return out


def count_macs_m(network, images):
    """Return multiply-accumulates per image in millions."""
    with CountMacs() as counter, torch.no_grad():
        network(images[:1])
    return counter.macs / 1e6


def step(network, images, seed):
    torch.manual_seed(seed)  # dropout
    logits = network(images)
    (0.1 * logits.square().mean() - logits.log_softmax(1)[:, 3].mean()).backward()


@FEW_OR_MANY
def test_a_subnet_computes_what_the_extracted_network_does_to_the_last_bit(trained, images, n_archs):
    answers = set()
    for arch in archs(trained.family.space, n_archs):
        x = images[arch["resolution"]]
        with torch.no_grad():
            logits, extracted = trained.subnet(arch)(x), trained.extract(arch)(x)
        assert torch.equal(logits, extracted)
        assert logits.isfinite().all()
        assert logits.std() > 1e-2
        answers.add(tuple(logits.flatten().tolist()))
    assert len(answers) > 0.7 * n_archs  # the archs differ


@FEW_OR_MANY
def test_gradients_are_those_of_slicing_with_autograd(supernet, images, n_archs):
    """Equal to 1e-5: convolutions over strided and over contiguous weights may sum in another order."""
    supernet.train()
    for number, arch in enumerate(archs(supernet.family.space, n_archs)):
        supernet.zero_grad()
        leaves = {name: p.detach().clone().requires_grad_() for name, p in supernet.network.named_parameters()}
        static = supernet.extract(arch)
        slices = {name: sliced(supernet, leaves, name, p.shape) for name, p in static.named_parameters()}
        x = images[arch["resolution"]]
        step(supernet.subnet(arch), x, number)
        step(lambda batch, net=static, slices=slices: torch.func.functional_call(net, slices, (batch,)), x, number)
        for name, parameter in supernet.network.named_parameters():
            expected = torch.zeros_like(parameter) if leaves[name].grad is None else leaves[name].grad
            difference = (parameter.grad - expected).abs().max()
            assert difference <= 1e-5 * expected.abs().max(), f"{name} of {arch}"
        assert any(parameter.grad.abs().max() > 1e-3 for parameter in supernet.parameters())


def test_gradients_of_several_subnets_accumulate(supernet, images):
    some = archs(supernet.family.space, 1)
    total = {name: torch.zeros_like(p) for name, p in supernet.network.named_parameters()}
    for arch in some:
        supernet.zero_grad()
        step(supernet.subnet(arch), images[arch["resolution"]], 0)
        for name, parameter in supernet.network.named_parameters():
            total[name] += parameter.grad
    supernet.zero_grad()
    for arch in some:
        step(supernet.subnet(arch), images[arch["resolution"]], 0)
    for name, parameter in supernet.network.named_parameters():
        assert (parameter.grad - total[name]).abs().max() <= 1e-5 * total[name].abs().max(), name


def test_a_training_subnet_updates_statistics_in_its_slices_and_nowhere_else(supernet, images):
    supernet.train()
    for number, arch in enumerate(archs(supernet.family.space, 2)):
        before = {name: buffer.clone() for name, buffer in supernet.network.named_buffers()}
        static = supernet.extract(arch)
        for network in (static, supernet.subnet(arch)):
            torch.manual_seed(number)
            with torch.no_grad():
                network(images[arch["resolution"]])
        for name, buffer in shared_buffers(static):
            part(before[name], buffer.shape).copy_(buffer)
        for name, buffer in supernet.network.named_buffers():
            torch.testing.assert_close(buffer, before[name], rtol=1e-5, atol=1e-7)


def test_a_step_of_the_largest_and_smallest_network_changes_their_parameters_and_no_others(supernet, images):
    space = supernet.family.space
    optimizer = torch.optim.SGD(supernet.parameters(), lr=0.01)
    supernet.train()
    for arch in (space.largest, space.smallest):
        before = {name: p.detach().clone() for name, p in supernet.network.named_parameters()}
        supernet.zero_grad()
        subnet = supernet.subnet(arch)
        step(subnet, images[arch["resolution"]], 0)
        optimizer.step()
        mine = {name: p.shape for name, p in supernet.extract(arch).named_parameters()}
        probe = {name: torch.full_like(p, 0.5).requires_grad_() for name, p in supernet.network.named_parameters()}
        for name, parameter in supernet.network.named_parameters():
            reached = torch.zeros_like(parameter)  # nonzero where a parameter of the subnet depends on it
            source = name.rsplit("_", 1)[0] if name.endswith(("_7to5", "_5to3")) else name
            if source in mine:
                made = sliced(supernet, probe, source, mine[source])
                gradient = torch.autograd.grad(made.sum(), probe[name], allow_unused=True)[0]
                reached = reached if gradient is None else gradient
            moved = parameter.detach() != before[name]
            assert not moved[reached == 0].any(), name
        changed = [name for name, p in supernet.network.named_parameters() if not torch.equal(p, before[name])]
        assert len(changed) > 0.9 * len(mine)


def test_subnets_keep_the_names_of_parameters(supernet):
    full = supernet.network.state_dict().keys()
    for arch in archs(supernet.family.space, 2):
        built = skeleton(partial(supernet.family.build, arch))
        assert supernet.extract(arch).state_dict().keys() == built.state_dict().keys() <= full
    beside = full - supernet.extract(supernet.family.space.largest).state_dict().keys()
    assert all(name.endswith(("_7to5", "_5to3")) for name in beside)


def test_an_extracted_network_has_ordinary_modules_and_loads_into_a_built_one(trained, images):
    for arch in archs(trained.family.space, 2):
        built = trained.family.build(arch).eval()
        extracted = trained.extract(arch)
        assert not any(type(module).__module__.startswith("ofa.") for module in extracted.modules())
        built.load_state_dict(extracted.state_dict())
        assert all(parameter.requires_grad for parameter in extracted.parameters())
        x = images[arch["resolution"]]
        assert torch.equal(built(x), extracted(x))


def test_archs_survive_json(family):
    for arch in archs(family.space, 20):
        again = json.loads(json.dumps(dict(arch)))
        assert family.space.arch(again) == arch
        assert np.array_equal(family.space.row(again), family.space.row(arch))


@FEW_OR_MANY
def test_costs_summed_over_slots_are_those_of_the_whole_network(family, images, n_archs):
    some = archs(family.space, n_archs)
    rows = family.space.rows(some)
    macs, params = macs_m(family)(rows), params_m(family)(rows)
    for arch, counted_macs, counted_params in zip(some, macs, params, strict=True):
        network = family.build(arch).eval()
        assert counted_macs == pytest.approx(count_macs_m(network, images[arch["resolution"]]), rel=1e-9)
        assert counted_params == pytest.approx(sum(p.numel() for p in network.parameters()) / 1e6, rel=1e-9)
    assert macs[0] == macs.max() > macs[1] == macs.min()
    assert params[0] == params.max() > params[1] == params.min()


def test_distinct_blocks_cover_every_arch(family):
    covered = list(distinct_blocks(family))
    assert len(set(covered)) == len(covered)
    assert len({(repr(block), size) for block, size in covered}) == len(covered)
    for arch in archs(family.space, 5):
        for slot, block in family.blocks(family.space.row(arch)):
            assert block is None or (block, slot.size(int(arch["resolution"]))) in set(covered)


def watch_inputs(network, paths):
    """Return a dictionary that receives, as the network runs, the shape of one sample that enters each module."""
    seen = {}
    for path in paths:

        def note(_, inputs, path=path):
            seen[path] = tuple(inputs[0].shape[1:])

        network.get_submodule(path).register_forward_pre_hook(note)
    return seen


@pytest.mark.parametrize("odd", [0, 7, pytest.param(1, marks=pytest.mark.slow)])
def test_slots_know_the_shape_of_their_input(family, odd):
    """Resolutions that the strides do not divide are among them."""
    for arch in archs(family.space, 2):
        resolution = int(arch["resolution"]) + odd * family.resolution_multiple
        network = skeleton(partial(family.build, arch)).eval()
        pairs = [(slot, block) for slot, block in family.blocks(family.space.row(arch)) if block is not None]
        seen = watch_inputs(network, [slot.path for slot, _ in pairs])
        with torch.no_grad():
            logits = network(torch.zeros(2, 3, resolution, resolution, device="meta"))
        assert logits.shape == (2, 10)
        assert seen == {slot.path: block.input_shape(slot.size(resolution)) for slot, block in pairs}


def test_options_recreate_the_family(family):
    again = ofa.create_family(family.name, **family.options)
    assert again.space.choices == family.space.choices
    assert dict(again.options) == dict(family.options)
    row = family.space.row(family.space.largest)
    assert [block for _, block in again.blocks(row)] == [block for _, block in family.blocks(row)]


def test_classifiers_are_the_layers_whose_size_depends_on_the_number_of_classes(family):
    other = ofa.create_family(family.name, **OPTIONS | {"num_classes": 11})
    networks = (skeleton(partial(made.build, made.space.largest)).state_dict() for made in (family, other))
    shapes, other_shapes = ({name: tensor.shape for name, tensor in network.items()} for network in networks)
    resized = {name.rpartition(".")[0] for name, shape in shapes.items() if shape != other_shapes[name]}
    assert resized == set(family.classifiers)
    assert {shapes[f"{path}.weight"][0] for path in family.classifiers} == {10}


def test_another_number_of_classes_and_channels(family):
    made = ofa.create_family(family.name, **OPTIONS | {"num_classes": 7, "in_channels": 1})
    arch = made.space.smallest
    assert made.build(arch).eval()(torch.zeros(2, *made.input_shape(arch))).shape == (2, 7)
    assert made.input_shape(arch) == (1, 32, 32)


def exact(network):
    """Return a copy of the network that computes in float64."""
    made = copy.deepcopy(network).double()
    made.register_forward_pre_hook(lambda _, args: (args[0].double(),))
    return made


def onnx_parity(trained, awake, smooth_images, tmp_path, some):
    """ONNX is within 1e-4 of float64, and so is PyTorch in float32: the two may differ by twice that.

    Deep untrained networks give nearly equal logits for all images; scaled up, these carry errors near 1e-4.
    """
    for number, arch in enumerate(some):
        resolution = int(arch["resolution"])
        network = awake(trained.extract(arch), smooth_images(128, 3, resolution))
        batches = [smooth_images(n, 3, resolution, seed=n) for n in (1, 8)]
        path = tmp_path / f"{number}.onnx"
        export_onnx(network, trained.family.input_shape(arch), path, images=batches, tolerance=2e-4)
        result = compare(OnnxFormat().load(path), exact(network), batches)
        assert result.max_abs_diff <= 1e-4
        assert (result.same_top1, result.n_images, path.is_file()) == (1.0, 9, True)


def test_onnx_computes_the_same(trained, awake, smooth_images, tmp_path):
    onnx_parity(trained, awake, smooth_images, tmp_path, archs(trained.family.space, 1)[2:])


@pytest.mark.slow
def test_onnx_computes_the_same_for_many(trained, awake, smooth_images, tmp_path):
    onnx_parity(trained, awake, smooth_images, tmp_path, archs(trained.family.space, 20))
