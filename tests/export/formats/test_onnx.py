import copy
import warnings
from collections import Counter

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import numpy_helper
from torch import nn
from torch.nn import functional

import export.formats.onnx
import ofa
from export.formats.onnx import compare, export_onnx
from export.formats.onnx_format import OnnxFormat
from export.preprocess import Preprocess
from export.session import session
from ofa.core.errors import ExportError, OfaError


@pytest.fixture
def batch(images):
    return torch.from_numpy(Preprocess(28, 1, (0.3,), (0.4,))(images))


class Net(nn.Module):
    """A network with some parameters and a forward pass that a test gives."""

    def __init__(self, forward):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.classifier = nn.Linear(36, 10)
        self.compute = forward

    def forward(self, x):
        return self.compute(self, x)


def pooled(net, x):
    return net.conv(x).mean((2, 3))


def test_a_network_becomes_a_file_that_computes_the_same_at_any_batch_size(network, batch, tmp_path):
    parity = export_onnx(network, (1, 28, 28), tmp_path / "model.onnx", images=[batch[:1], batch])
    assert parity.max_abs_diff < 1e-4
    assert (parity.same_top1, parity.n_images) == (1.0, 7)
    with torch.no_grad():
        assert parity.max_abs_logit == float(network(batch).abs().max())
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    graph = onnx.load(tmp_path / "model.onnx").graph
    assert [i.name for i in graph.input] == ["images"]
    assert [o.name for o in graph.output] == ["logits"]
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_the_parity_is_that_of_the_worst_batch_and_of_all_images(tmp_path):
    """Counted by hand: the second model adds 0.5 to the last logit, which changes one of four classes."""
    path, bias = tmp_path / "model.onnx", torch.tensor([0.0, 0.0, 0.5])
    other = nn.Sequential(nn.Flatten(), nn.Linear(3, 3))
    with torch.no_grad():
        other[1].weight.copy_(torch.eye(3))
        other[1].bias.copy_(bias)
    export_onnx(other, (1, 1, 3), path)
    logits = torch.tensor([[[3.0, 0.0, 0.0]], [[0.0, 0.0, -9.0]], [[0.0, 1.0, 0.75]], [[0.0, 0.0, 2.0]]])[:, None]
    parity = compare(OnnxFormat().load(path), nn.Flatten(), [logits[:1], logits[1:]])
    assert (parity.max_abs_diff, parity.max_abs_logit, parity.same_top1, parity.n_images) == (0.5, 9.0, 0.75, 4)


@pytest.mark.parametrize(("margin", "same"), [(0.0, 1.0), (2e-5, 1.0), (2e-3, 0.5)])
def test_either_class_counts_where_rounding_decides_between_two(margin, same):
    """The file has the other of two classes first, which PyTorch has a little apart in the second image."""
    logits = torch.tensor([[9.0, 0.0, 1.0], [0.0, 9.0, 9.0 - margin]])
    file = np.array([[9.0, 0.0, 1.0], [0.0, 9.0, 9.1]], dtype=np.float32)
    assert compare(lambda _: file, nn.Identity(), [logits]).same_top1 == same


def test_a_fixed_batch_is_the_only_one_that_the_file_takes(network, batch, tmp_path):
    path = tmp_path / "model.onnx"
    parity = export_onnx(network, (1, 28, 28), path, images=[batch[:1], batch], batch=4)
    assert (parity.same_top1, parity.n_images) == (1.0, 7)
    assert parity.max_abs_diff < 1e-4
    graph = onnx.load(path).graph
    assert [size.dim_value for size in graph.input[0].type.tensor_type.shape.dim] == [4, 1, 28, 28]
    assert [size.dim_value for size in graph.output[0].type.tensor_type.shape.dim] == [4, 10]
    assert "Shape" not in {node.op_type for node in graph.node}
    with pytest.raises(Exception, match="Got: 1 Expected: 4"):
        session(path).run(None, {"images": batch[:1].numpy()})


def test_a_batch_that_cannot_be_is_refused(network, tmp_path):
    with pytest.raises(ExportError, match="batch = 0 is not allowed; give a whole number from 1 to 4096"):
        export_onnx(network, (1, 28, 28), tmp_path / "model.onnx", batch=0)


def test_metadata_and_opset_are_in_the_file(network, batch, tmp_path):
    path, metadata = tmp_path / "model.onnx", {"labels": '["cat", "dog"]', "ofa": "1.2"}
    for opset in (13, 18, 20):
        parity = export_onnx(network, (1, 28, 28), path, images=[batch], opset=opset, metadata=metadata)
        assert parity.max_abs_diff < 1e-4
        model = onnx.load(path)
        assert [entry.version for entry in model.opset_import] == [opset]
        assert {entry.key: entry.value for entry in model.metadata_props} == metadata
        assert session(path).get_modelmeta().custom_metadata_map == metadata


OPTIONS = {
    "opset = 12 is not allowed; give a whole number from 13 to 20": {"opset": 12},
    "opset = 21 is not allowed": {"opset": 21},
    r"metadata = {'labels': \['cat'\]} is not allowed; give names and values that are strings": {
        "metadata": {"labels": ["cat"]}
    },
}


@pytest.mark.parametrize("message", OPTIONS)
def test_an_option_that_is_not_allowed_is_refused(network, tmp_path, message):
    with pytest.raises(ExportError, match=message):
        export_onnx(network, (1, 28, 28), tmp_path / "model.onnx", **OPTIONS[message])
    assert not list(tmp_path.iterdir())


QUICK = ("hybrid_small", "ofa_mobilenet_v3", "small_mobilenet_v3")
FAMILIES = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in ofa.list_families()]


def optimized_operators(path, target):
    """Count the operators that ONNX Runtime runs for a file."""
    options = ort.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(target), 4
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(target).graph.node)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_weights_in_the_file_are_the_parameters_and_buffers_of_the_network(name, tmp_path):
    family = ofa.create_family(name, num_classes=10)
    network = ofa.Supernet(family).extract(family.space.smallest)
    export_onnx(network, family.input_shape(family.space.smallest), tmp_path / "model.onnx")
    initializers = onnx.load(tmp_path / "model.onnx").graph.initializer
    assert len(initializers) > 20
    tensors = network.state_dict()
    for initializer in initializers:
        assert np.array_equal(numpy_helper.to_array(initializer), tensors[initializer.name])


@pytest.mark.parametrize("name", FAMILIES)
def test_onnx_runtime_folds_as_much_as_the_exporter_would(name, tmp_path, monkeypatch):
    family, write = ofa.create_family(name, num_classes=10), torch.onnx.export
    network, shape = ofa.Supernet(family).extract(family.space.smallest), family.input_shape(family.space.smallest)
    export_onnx(network, shape, tmp_path / "ours.onnx")

    def write_folded(*arguments, do_constant_folding, **options):
        assert not do_constant_folding
        write(*arguments, **options)

    monkeypatch.setattr(torch.onnx, "export", write_folded)
    export_onnx(network, shape, tmp_path / "folded.onnx")
    ours, expected = (optimized_operators(tmp_path / f"{name}.onnx", tmp_path / "run") for name in ("ours", "folded"))
    assert ours == expected
    assert "BatchNormalization" not in ours
    images = np.random.default_rng(0).standard_normal((2, *shape), dtype=np.float32)
    logits, folded_logits = (
        session(tmp_path / f"{name}.onnx").run(None, {"images": images})[0] for name in ("ours", "folded")
    )
    assert np.abs(logits - folded_logits).max() <= 1e-5 * np.abs(folded_logits).max()


def test_dropout_and_batch_norm_of_a_network_in_train_mode_are_exported_in_eval_mode(network, batch, tmp_path):
    network = nn.Sequential(copy.deepcopy(network), nn.Dropout(0.9)).train()
    assert export_onnx(network, (1, 28, 28), tmp_path / "model.onnx", images=[batch]).same_top1 == 1.0
    operators = {node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node}
    assert "Dropout" not in operators


def test_channels_last_weights_are_exported(network, batch, tmp_path):
    turned = copy.deepcopy(network).to(memory_format=torch.channels_last)
    images = [batch.to(memory_format=torch.channels_last)]
    assert export_onnx(turned, (1, 28, 28), tmp_path / "model.onnx", images=images).same_top1 == 1.0


def test_every_block_of_a_family_is_exported_alone(family, tmp_path):
    row = family.space.row(family.space.smallest)
    for slot, block in family.blocks(row):
        if block is not None:
            module, shape = block.build().eval(), block.input_shape(slot.size(28))
            assert export_onnx(module, shape, tmp_path / "block.onnx") is None
            images = torch.randn(3, *shape)
            assert compare(OnnxFormat().load(tmp_path / "block.onnx"), module, [images]).max_abs_diff < 1e-4


def test_modules_without_parameters_are_exported_and_paths_may_be_strings(tmp_path):
    export_onnx(nn.Identity(), (1, 4, 4), str(tmp_path / "identity.onnx"))
    images = np.ones((2, 1, 4, 4), dtype=np.float32)
    (same,) = session((tmp_path / "identity.onnx").read_bytes()).run(None, {"images": images})
    assert np.array_equal(same, images)


def test_modes_statistics_hooks_and_generators_stay_as_they_were(network, batch, tmp_path):
    network = copy.deepcopy(network).train()
    network.get_submodule("stages").eval()
    modes = [module.training for module in network.modules()]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    generator, filters, log = torch.get_rng_state(), list(warnings.filters), torch._C._jit_onnx_log
    export_onnx(network, (1, 28, 28), tmp_path / "model.onnx", images=[batch])
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not network._forward_hooks
    assert torch.equal(torch.get_rng_state(), generator)
    assert (warnings.filters, torch._C._jit_onnx_log) == (filters, log)
    assert torch.is_grad_enabled()


def test_a_file_that_computes_something_else_is_refused_and_removed(
    network, other_network, batch, tmp_path, monkeypatch
):
    write = export.formats.onnx._write
    monkeypatch.setattr(
        export.formats.onnx, "_write", lambda _, *args, **options: write(other_network.eval(), *args, **options)
    )
    path = tmp_path / "model.onnx"
    path.write_bytes(b"an older file")
    with pytest.raises(ExportError, match=r"model\.onnx: ONNX differs from PyTorch .* \(allowed: 0\.0001\) .*; remove"):
        export_onnx(network, (1, 28, 28), path, images=[batch])
    assert not list(tmp_path.iterdir())


def test_another_top1_class_is_refused_even_within_the_tolerance(tmp_path, monkeypatch):
    tie, flipped = nn.Flatten(), nn.Sequential(nn.Flatten(), nn.Linear(2, 2))
    with torch.no_grad():
        flipped[1].weight.copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
        flipped[1].bias.zero_()
    write = export.formats.onnx._write
    monkeypatch.setattr(export.formats.onnx, "_write", lambda _, *args, **options: write(flipped, *args, **options))
    images = torch.tensor([[1.0, 1.001], [1.0, 1.0]]).reshape(2, 1, 1, 2)
    with pytest.raises(ExportError, match=r"gives the same class for 50\.00% of 2 images"):
        export_onnx(tie, (1, 1, 2), tmp_path / "model.onnx", images=[images], tolerance=0.1)
    assert not list(tmp_path.iterdir())


def test_not_a_number_is_refused(tmp_path):
    class Root(nn.Module):
        def forward(self, x):
            return x.flatten(1).sqrt()

    images = [torch.full((1, 1, 2, 2), -1.0), torch.ones(1, 1, 2, 2)]
    with pytest.raises(ExportError, match="by up to nan"):
        export_onnx(Root(), (1, 2, 2), tmp_path / "model.onnx", images=images)
    assert not list(tmp_path.iterdir())


def test_without_images_to_compare_on_no_file_is_written(network, tmp_path):
    with pytest.raises(ExportError, match="no images to compare"):
        export_onnx(network, (1, 28, 28), tmp_path / "model.onnx", images=[])
    assert not list(tmp_path.iterdir())


@torch.library.custom_op("mine::double", mutates_args=())
def double(x: torch.Tensor) -> torch.Tensor:
    return x * 2


@double.register_fake
def _(x):
    return torch.empty_like(x)


BATCH_SIZE = r"int\(\), len\(\), .item\(\) and .numpy\(\) fix a value when a network is exported: write x.shape\[0\]"
LOGITS = r"return float32 logits \[batch, classes\]"
GENERAL = "it must be float32 and map one tensor of images to one tensor of logits, with operators that ONNX has"
FAILURES = {
    "a pool that does not divide its input": (
        lambda net, x: net.classifier(functional.adaptive_avg_pool2d(net.conv(x), 3).flatten(1)),
        r"cannot be exported to ONNX: .*; pool to a size that divides the input's height and width",
    ),
    "a batch size fixed by int() in expand": (
        lambda net, x: pooled(net, x) + torch.ones(1, 4).expand(int(x.shape[0]), -1),
        rf"has a fixed batch size: for one image it returns shape \(2, 4\); {BATCH_SIZE}",
    ),
    "a batch size fixed by int() in reshape": (
        lambda net, x: net.conv(x).reshape(int(x.shape[0]), -1).mean(1, keepdim=True),
        rf"has a fixed batch size: .*; {BATCH_SIZE}",
    ),
    "a batch size fixed by len() in a tensor": (
        lambda net, x: torch.cat([pooled(net, x), torch.zeros(len(x), 4)], 1),
        rf"does not run on one image: .*; {BATCH_SIZE}",
    ),
    "an input that leaves torch": (
        lambda net, x: torch.from_numpy(net.conv(x).detach().numpy()).mean((2, 3)),
        rf"does not run on one image: .*; {BATCH_SIZE}",
    ),
    "a tuple": (lambda net, x: (pooled(net, x), x), "Net returns a tuple; return one tensor"),
    "a tuple of one": (lambda net, x: (pooled(net, x),), "Net returns a tuple; return one tensor"),
    "a list": (lambda net, x: [pooled(net, x)], "Net returns a list; return one tensor"),
    "a dict": (lambda net, x: {"logits": pooled(net, x)}, "Net returns a dict; return one tensor"),
    "nothing": (lambda net, x: None, "Net returns a NoneType; return one tensor"),
    "one logit per image": (lambda net, x: net.conv(x).mean((1, 2, 3)), rf"returns torch.float32 \[2\] .*; {LOGITS}"),
    "one logit in all": (lambda net, x: net.conv(x).mean(), rf"returns torch.float32 \[\] .*; {LOGITS}"),
    "another batch size": (lambda net, x: pooled(net, x).reshape(-1, 8), rf"\[1, 8\] for 2 images; {LOGITS}"),
    "float64": (lambda net, x: pooled(net, x).double(), rf"returns torch.float64 \[2, 4\] .*; {LOGITS}"),
    "complex logits": (lambda net, x: torch.fft.fft(pooled(net, x)), rf"returns torch.complex64 .*; {LOGITS}"),
    "complex numbers": (
        lambda net, x: torch.fft.fft2(net.conv(x)).abs().mean((2, 3)),
        "cannot be exported to ONNX: .*; replace aten::fft_fft2 by operators that ONNX has",
    ),
    "an operator that ONNX lacks": (
        lambda net, x: torch.special.bessel_j0(pooled(net, x)),
        "cannot be exported to ONNX: .*; replace aten::special_bessel_j0 by operators that ONNX has",
    ),
    "an unknown custom operator": (
        lambda net, x: double(pooled(net, x)),
        "cannot be exported to ONNX: .*; replace mine::double by operators that ONNX has",
    ),
    "a type that ONNX Runtime does not run": (
        lambda net, x: functional.conv2d(x.double(), net.conv.weight.double()).mean((2, 3)).float(),
        "ONNX Runtime cannot load the model: .*; use float32 and operators that it implements",
    ),
    "shapes that do not fit": (
        lambda net, x: net.classifier(net.conv(x).flatten(1)),
        rf"Net with input \(1, 10, 10\) cannot be exported to ONNX: mat1 and mat2 .*; {GENERAL}",
    ),
    "an error of several lines": (
        lambda net, x: pooled(net, x) + net.conv.weight.new_zeros("a\nb"),
        f"cannot be exported to ONNX: .*; {GENERAL}",
    ),
    "control flow that depends on data": (
        lambda net, x: pooled(net, x) if x.sum() > 5 else -pooled(net, x),
        "ONNX differs from PyTorch .*; remove randomness and control flow that depends on data",
    ),
    "a number taken from the data": (
        lambda net, x: pooled(net, x) * (1 + float(x.mean())),
        "ONNX differs from PyTorch .*; remove randomness and control flow that depends on data",
    ),
    "randomness": (
        lambda net, x: pooled(net, x) + torch.rand(x.shape[0], 4),
        "ONNX differs from PyTorch .*; remove randomness and control flow that depends on data",
    ),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_network_that_cannot_be_exported_is_one_line_with_advice_for_its_cause(name, tmp_path, capfd):
    forward, message = FAILURES[name]
    images = [torch.full((n, 1, 10, 10), float(n)) for n in (1, 3)]
    with pytest.raises(OfaError, match=message) as caught:
        export_onnx(Net(forward), (1, 10, 10), tmp_path / "model.onnx", images=images)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())


SUCCESSES = {
    "a map of features": lambda net, x: net.conv(x),
    "what is printed": lambda net, x: (print("hello"), pooled(net, x))[1],
    "sizes fixed by int()": lambda net, x: net.conv(x)[:, :, : int(x.shape[2]) - 1].mean((2, 3)),
    "the batch size of the input": lambda net, x: pooled(net, x) + torch.ones(1, 4).expand(x.shape[0], -1),
    "parameters that need no gradient": lambda net, x: pooled(net.requires_grad_(False), x),
}


@pytest.mark.parametrize("name", SUCCESSES)
def test_what_onnx_can_express_is_exported(name, tmp_path):
    images = [torch.randn(n, 1, 10, 10) for n in (1, 3)]
    assert export_onnx(Net(SUCCESSES[name]), (1, 10, 10), tmp_path / "model.onnx", images=images).n_images == 4


def test_a_folder_that_does_not_exist_is_named_by_the_system(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        export_onnx(nn.Flatten(), (1, 2, 2), tmp_path / "nowhere" / "model.onnx")


def test_a_file_with_another_output_shape_is_refused(network, batch, tmp_path):
    export_onnx(nn.Flatten(), (1, 28, 28), tmp_path / "model.onnx")
    with pytest.raises(
        ExportError, match=r"ONNX returns shape \(6, 784\), PyTorch \(6, 10\); export the network again"
    ):
        compare(OnnxFormat().load(tmp_path / "model.onnx"), network, [batch])
