"""The official networks, imported by the documented command, compute the logits that the official code computes.

`official/README.md` says how their tensors and the images are filled and what was recorded.
"""

import argparse
import json
import math
import sys
from pathlib import Path

import pytest
import torch

import ofa
from ofa.cli import main
from ofa.core.tensors import read_tensors
from ofa.supernet.importing import source

OFFICIAL = Path(__file__).parent / "official"
NETWORKS = {  # project, family, options that are part of the network
    "autoformer_tiny": ("autoformer", "autoformer_tiny", {}),
    "autoformer_small": ("autoformer", "autoformer_small", {}),
    "autoformer_base": ("autoformer", "autoformer_base", {}),
    "ofa_mobilenet_v3": ("once-for-all", "ofa_mobilenet_v3", {}),
    "ofa_mobilenet_v3_w1.2": ("once-for-all", "ofa_mobilenet_v3", {"width_mult": 1.2}),
    "ofa_proxyless": ("once-for-all", "ofa_proxyless", {}),
    "ofa_resnet50": ("once-for-all", "ofa_resnet50", {}),
}


def fill(shapes):
    """Return the official state dict, filled by the formula."""
    state = {}
    for i, name in enumerate(sorted(shapes)):
        shape = shapes[name]
        n = math.prod(shape)
        w = torch.sin(0.37 * torch.arange(n, dtype=torch.float64) + i).reshape(shape)
        if name.endswith("_matrix"):
            w = torch.eye(shape[0]) + 0.05 * w
        elif name.endswith("running_var"):
            w = 1 + 0.5 * w
        elif len(shape) > 1:
            w = w * math.sqrt(2 * shape[0] / n)
        elif name.endswith("weight"):
            w = 1 + 0.3 * w
        else:
            w = 0.1 * w
        state[name] = torch.tensor(0) if name.endswith("num_batches_tracked") else w.float()
    return state


def images(resolution):
    flat = torch.sin(0.37 * torch.arange(6 * resolution**2, dtype=torch.float64) + 0.5)
    return flat.reshape(2, 3, resolution, resolution).float()


LARGE = ("autoformer_small", "autoformer_base", "ofa_mobilenet_v3_w1.2")


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=pytest.mark.slow if name in LARGE else ()) for name in NETWORKS]
)
def network(request):
    """Name of an official network, and what was recorded of it."""
    return request.param, json.loads((OFFICIAL / f"{request.param}.json").read_text())


def save_official(name, keys, path):
    """Save a checkpoint as the project releases it."""
    if NETWORKS[name][0] == "autoformer":
        args = argparse.Namespace(lr=5e-4, gp=True, output_dir=Path("out"))
        torch.save({"model": fill(keys), "optimizer": {"state": {}}, "epoch": 499, "args": args}, path)
    else:
        torch.save({"state_dict": fill(keys)}, path)


@pytest.fixture(scope="module")
def imported(network, tmp_path_factory):
    """A supernet with the weights that `ofa import` wrote, at the resolutions that were recorded."""
    name, recorded = network
    project, family, options = NETWORKS[name]
    folder = tmp_path_factory.mktemp("official")
    save_official(name, recorded["keys"], folder / "official.pth")
    arguments = [project, folder / "official.pth", family, "--out", folder / "weights.safetensors"]
    arguments += [text for key, value in options.items() for text in ("--option", f"{key}={value}")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["ofa", "import", *map(str, arguments)])
        with pytest.raises(SystemExit, match="0"):
            main()
    resolutions = sorted({case["resolution"] for case in recorded["cases"]})
    supernet = ofa.Supernet(ofa.create_family(family, resolutions=resolutions, **options))
    supernet.network.load_state_dict(read_tensors(folder / "weights.safetensors")[0])
    for path in folder.iterdir():
        path.unlink()  # up to 300 MB each
    return supernet.eval()


def subnet_logits(network, supernet, config, resolution):
    size = {"image_size": resolution} if NETWORKS[network[0]][0] == "once-for-all" else {}
    arch = source(NETWORKS[network[0]][0]).arch(supernet.family, config | size)
    assert arch["resolution"] == resolution
    with torch.no_grad():
        return supernet.subnet(arch)(images(resolution))


def test_subnets_compute_the_official_logits(network, imported):
    cases = network[1]["cases"]
    assert len(cases) >= 3
    for case in cases:
        logits = subnet_logits(network, imported, case["config"], case["resolution"])
        expected = torch.tensor(case["logits"]).reshape(2, 16)
        assert (logits[:, :16] - expected).abs().max() <= 1e-4 * case["max_abs"]
        assert logits.abs().max() == pytest.approx(case["max_abs"], rel=1e-4)


def test_the_comparison_tells_subnets_apart(network, imported):
    """The recorded logits depend little on the images, but enough on the subnet, for some by little over 1e-4."""
    cases = network[1]["cases"]
    for case, other in zip(cases, cases[1:] + cases[:1], strict=True):
        logits = subnet_logits(network, imported, other["config"], case["resolution"])[:, :16]
        assert (logits - torch.tensor(case["logits"]).reshape(2, 16)).abs().max() > 1e-4 * case["max_abs"]


def test_every_official_tensor_has_one_name_and_is_large_enough(network):
    name, recorded = network
    project, family, options = NETWORKS[name]
    official = source(project)
    shapes = {official.canonical(key): shape for key, shape in recorded["keys"].items()}
    names = official.names(ofa.create_family(family, **options))
    assert len(shapes) == len(recorded["keys"])
    assert sorted(names.values()) == sorted(shapes)
    state = ofa.Supernet(ofa.create_family(family, **options)).network.state_dict()
    assert names.keys() == state.keys()
    for ours, tensor in state.items():
        size, official_size = ([n for n in shape if n > 1] for shape in (tensor.shape, shapes[names[ours]]))
        if official.LEADING_SLICES:
            assert all(small <= large for small, large in zip(size, official_size, strict=True)), ours
        else:
            assert size == official_size, ours
