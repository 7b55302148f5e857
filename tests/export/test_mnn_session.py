import subprocess
import sys

import pytest

import export.mnn_session
from export.mnn_session import MnnModel
from ofa.core.errors import DeviceError
from ofa.devices.format import create_format

pytest.importorskip("_tools", reason="needs the extra mnn")


@pytest.fixture(scope="module")
def path(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("mnn") / "model.mnn"
    create_format("mnn").write(network, (1, 28, 28), path, precision="float32", images=None, metadata={})
    return path


def test_without_mnn_the_error_says_what_to_install(path, monkeypatch):
    export.mnn_session.import_mnn.cache_clear()
    monkeypatch.setattr("export.errors.find_spec", lambda _: None)
    with pytest.raises(DeviceError, match=r"MNN is not installed; run in the checkout: pip install -e '\.\[mnn\]'"):
        MnnModel(path)


def test_nothing_is_written_to_the_standard_output_which_is_there_after_any_number_of_threads_loaded(path):
    program = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numpy as np
from export.mnn_session import MnnModel
with ThreadPoolExecutor(8) as pool:
    models = list(pool.map(MnnModel, [Path(sys.argv[1])] * 40))
models[-1](np.zeros((1, 1, 28, 28), np.float32))
try:
    MnnModel(Path(sys.executable))  # not a model, of which MNN writes a line
except Exception:
    print("{}")
"""
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == "{}\n"
