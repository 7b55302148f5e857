import numpy as np
import pytest
import torch
import yaml
from torch import nn
from torch.nn import functional

import ofa
from export import stages
from export.formats.onnx import export_onnx
from export.formats.onnx_format import OnnxFormat
from export.preprocess import Preprocess
from export.stages import BUNDLE, EXPORT, raw_images
from ofa.core.errors import ExportError, OfaError
from ofa.data.loaders import eval_batches
from ofa.pipeline.level_files import score_file
from ofa.pipeline.recipe import Recipe
from ofa.pipeline.run import Run


@pytest.fixture
def run(tiny_recipe_text, tmp_path):
    return Run(Recipe.model_validate(yaml.safe_load(tiny_recipe_text)), tmp_path / "run")


class Net(nn.Module):
    def __init__(self, width, forward):
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.classifier = nn.Linear(width, 10)
        self.compute = forward

    def features(self, x):
        return functional.relu(self.norm(self.conv(x)))

    def forward(self, x):
        return self.compute(self, x)


def pooled(net, x):
    return net.classifier(net.features(x).mean((2, 3)))


def with_family(run, forward):
    """The run with a family of two networks at 8 and 12 pixels, whose forward pass is given."""
    space = ofa.SearchSpace([ofa.Choice("resolution", (8, 12)), ofa.Choice("width", (4, 8))])
    run.__dict__["family"] = ofa.Family.from_builder(
        space, lambda arch: Net(arch["width"], forward), name="mine", in_channels=1
    )
    return run


def check(run):
    assert EXPORT.check is not None
    EXPORT.check(run.target())


def test_a_family_that_can_be_exported_passes_the_check_and_leaves_no_file(run, tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    generator = torch.get_rng_state()
    check(run)
    check(with_family(run, pooled))
    assert torch.equal(torch.get_rng_state(), generator)
    assert not list((tmp_path / "temporary").iterdir())
    assert not list(run.folder.iterdir())


FAILURES = {
    "a pool that does not divide its input": (
        lambda net, x: net.classifier(functional.adaptive_avg_pool2d(net.features(x), 5).mean((2, 3))),
        "pool to a size that divides the input's height and width",
    ),
    "a fixed batch size": (
        lambda net, x: pooled(net, x) + torch.ones(1, 10).expand(int(x.shape[0]), -1),
        "has a fixed batch size",
    ),
    "a tuple": (lambda net, x: (pooled(net, x), x), "returns a tuple; return one tensor"),
    "a dict": (lambda net, x: {"logits": pooled(net, x)}, "returns a dict; return one tensor"),
    "a map of features": (
        lambda net, x: net.features(x),
        r"it returns shape \(1, 4, 8, 8\) for one image; return logits \[batch, 10\]",
    ),
    "another number of classes": (
        lambda net, x: pooled(net, x)[:, :7],
        r"it returns shape \(1, 7\) for one image; return logits \[batch, 10\]",
    ),
    "an operator that ONNX lacks": (
        lambda net, x: torch.special.bessel_j0(pooled(net, x)),
        "replace aten::special_bessel_j0 by operators that ONNX has",
    ),
    "complex numbers": (lambda net, x: pooled(net, torch.fft.fft2(x).abs()), "replace aten::fft_fft2"),
    "float64": (lambda net, x: pooled(net, x).double(), "return float32 logits"),
    "a type that ONNX Runtime does not run": (
        lambda net, x: pooled(net, functional.conv2d(x.double(), torch.ones(1, 1, 1, 1).double()).float()),
        "ONNX Runtime cannot load the model: .*; use float32",
    ),
    "control flow that depends on data": (
        lambda net, x: pooled(net, x) if x.abs().max() > 0 else -pooled(net, x),
        "remove randomness and control flow that depends on data",
    ),
    "randomness": (
        lambda net, x: pooled(net, x) + torch.randn(x.shape[0], 10),
        "remove randomness and control flow that depends on data",
    ),
    "not a number": (lambda net, x: pooled(net, x) / 0 * 0, "differs from PyTorch by up to nan"),
    "shapes that do not fit": (
        lambda net, x: net.classifier(net.features(x)),
        "it does not run in PyTorch: mat1 and mat2 .*; mend the family",
    ),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_family_that_cannot_be_exported_is_one_line_before_the_training(run, name, capfd):
    forward, message = FAILURES[name]
    with pytest.raises(OfaError, match=rf"the smallest network of mine cannot be exported: .*{message}") as caught:
        check(with_family(run, forward))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_the_largest_network_is_checked_too(run):
    def forward(net, x):
        return pooled(net, x) if net.conv.out_channels == 4 else (pooled(net, x),)

    with pytest.raises(ExportError, match="the largest network of mine cannot be exported: Net returns a tuple"):
        check(with_family(run, forward))


def test_the_check_tolerates_one_percent_of_the_largest_logit(run, monkeypatch):
    compare = stages.compare
    for share, passes in ((0.009, True), (0.011, False)):

        def differing(*arguments, share=share):
            parity = compare(*arguments)
            return type(parity)(share * parity.max_abs_logit, parity.max_abs_logit, 1.0, parity.n_images)

        monkeypatch.setattr(stages, "compare", differing)
        if passes:
            check(with_family(run, pooled))
        else:
            with pytest.raises(ExportError, match="the file differs from PyTorch by up to"):
                check(with_family(run, pooled))


def test_the_accuracy_of_a_file_counts_all_batches(tmp_path):
    """The classes of 5 images of 3 pixels, two of them right."""
    export_onnx(nn.Flatten(), (1, 1, 3), tmp_path / "model.onnx")
    images = torch.eye(3)[[0, 1, 2, 0, 1]].reshape(5, 1, 1, 3)
    labels = torch.tensor([0, 2, 2, 1, 0])
    batches = [(images[:4], labels[:4]), (images[4:], labels[4:])]
    metrics, model = score_file(OnnxFormat(), tmp_path / "model.onnx", batches)
    assert metrics.top1_percent == pytest.approx(40.0)
    assert np.array_equal(model(images.numpy()), np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1]])


def test_raw_images_become_the_batches_of_evaluation(run):
    images, labels = raw_images(run.data, limit=10**6)
    ((expected, expected_labels),) = eval_batches(run.data, run.data.test, 16, batch_size=10**6)
    preprocess = Preprocess(16, run.data.in_channels, run.data.mean, run.data.std)
    assert np.abs(preprocess(images) - expected.numpy()).max() < 1e-4
    assert labels == expected_labels.tolist()
    some, some_labels = raw_images(run.data, limit=7)
    assert len(some) == len(some_labels) == 7
    assert np.array_equal(some[0], images[0])
    assert np.array_equal(some[-1], images[-1])


def test_stages_need_what_they_read():
    assert (EXPORT.needs, BUNDLE.needs) == (("finetune", "profile"), ("export",))
