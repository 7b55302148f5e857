"""Other runtimes' files against PyTorch: `python -m benchmarks.runtimes [FAMILY ...]` writes docs/results/runtimes.md.

The networks are those of `benchmarks.parity`. 20 minutes on one core for all.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.page import table, write_page
from benchmarks.parity import MAX_RESOLUTION, N_ARCHS, STEPS, networks
from export.formats.onnx import Parity, compare
from ofa.core.errors import DeviceError
from ofa.data.config import DataConfig
from ofa.data.dataset import Data
from ofa.data.load import load_data
from ofa.devices.format import create_format

FORMATS = ("mnn",)
FAMILIES = ("small_mobilenet_v3", "hybrid_small", "autoformer_tiny")
HEADER = "format | family | converted | largest difference of a logit | median over archs | largest logit | same top-1"


def main(names: list[str]) -> None:
    data = load_data(DataConfig(name="digits"))
    rows, errors = list[str](), list[str]()
    for format_name in FORMATS:
        for name in names:
            row, refused = measured_row(format_name, name, data)
            rows.append(row)
            errors += [f"- `{format_name}`, `{name}`: {error}" for error in dict.fromkeys(refused)]
            print(row, flush=True)
    introduction = f"""
# Files of other runtimes against PyTorch

Made by `python -m benchmarks.runtimes`: {N_ARCHS} random archs of each family at no more than {MAX_RESOLUTION} pixels
where it has such, trained for {STEPS} steps, converted in float32, on the whole digits test split ({len(data.test)}
images).

MNN approximates GELU, which alone is off by up to 5e-4: a transformer differs by more than `export.max_abs_diff`
allows by default, and is refused as a float32 level unless that is raised and every class stays the same.
"""
    refusals = "\n".join(errors) if errors else "None was refused."
    write_page("runtimes", introduction, table(HEADER, rows), "What was refused, and why:", refusals)


def measured_row(format_name: str, name: str, data: Data) -> tuple[str, list[str]]:
    """Return the row of a format and a family, and the messages of networks that could not be converted."""
    model_format, parities, refused = create_format(format_name), list[Parity](), list[str]()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"model{model_format.suffix}")
        for network, shape, images in networks(name, data):
            try:
                model_format.write(network, shape, path, precision="float32", images=images[0].numpy(), metadata={})
                parities.append(compare(model_format.load(path), network, images))
            except DeviceError as error:
                refused.append(str(error))
    diffs = [parity.max_abs_diff for parity in parities] or [np.nan]
    largest = max((parity.max_abs_logit for parity in parities), default=np.nan)
    same = min((parity.same_top1 for parity in parities), default=np.nan)
    cells = f"{max(diffs):.1e} | {np.median(diffs):.1e} | {largest:.1f} | {100 * same:.1f}%"
    return f"`{format_name}` | `{name}` | {len(parities)} of {N_ARCHS} | {cells}", refused


if __name__ == "__main__":
    main(sys.argv[1:] or list(FAMILIES))
