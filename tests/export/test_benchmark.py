"""Tests of `ofa benchmark`'s rows, with a device whose latencies are known."""

from dataclasses import asdict, replace

import numpy as np
import onnx
import pytest

from export.benchmark import Deployable, benchmark, cells, of_file, page
from export.devices.ort_cpu import OrtCpu
from export.formats.onnx_format import OnnxFormat
from export.formats.ort_format import write_ort
from ofa.core.errors import DeviceError, ExportError
from ofa.devices.device import HostLost


class Clockwork:
    """Runs of a file take as many milliseconds as its name says; each tenth one takes 10 times as long."""

    name = "clockwork"

    def __init__(self):
        self.description = {"runtime": "gears", "runtime_version": "1.2", "threads": 3, "batch": 4}
        self.hosts, self.visits = (self,), []

    def load(self, model):
        ms, runs = float(model.file.stem), iter(range(1, 1_000_000))

        def run(n):
            self.visits.append(model.file.stem)
            return [ms * (10 if next(runs) % 10 == 0 else 1) for _ in range(n)]

        return run


@pytest.fixture
def files(tmp_path):
    device, found = Clockwork(), []
    for name in ("2", "5"):
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(bytes(2**18))
        found.append(Deployable(f"level {name}", path, device, (1, 8, 8), "onnx", "float32", 91.25, 2e-6))
    return found


def test_a_row_has_median_and_95th_percentile_of_all_runs(files):
    rows = benchmark(files, np.random.default_rng(0), rounds=40)
    for row, ms, burst in zip(rows, (2.0, 5.0), (5, 2), strict=True):
        assert row.runs == 40 * burst
        assert (row.latency_ms, row.latency_p95_ms) == (ms, 10 * ms)
        assert row.images_per_second == pytest.approx(4 * 1000 / ms)
        assert (row.size_mib, row.threads, row.batch, row.runtime) == (0.25, 3, 4, "gears 1.2")
        assert (row.top1_percent, row.max_abs_diff, row.precision) == (91.25, 2e-6, "float32")
        assert row.load_ms > 0


def test_files_are_visited_in_rounds_in_an_order_that_only_the_generator_decides(files):
    seen = []
    for seed in (0, 0, 1):
        files[0].device.visits.clear()
        benchmark(files, np.random.default_rng(seed), rounds=20)
        visits = files[0].device.visits[2:]  # the first ones find out how many runs fill a visit
        assert all({*visits[i : i + 2]} == {"2", "5"} for i in range(0, 40, 2))
        seen.append(tuple(visits))
    assert seen[0] == seen[1] != seen[2]


def test_a_host_that_is_gone_is_one_error(files):
    def gone(_):
        raise HostLost("phone unplugged")

    files[0].device.load = lambda _: gone
    with pytest.raises(DeviceError, match=r"no longer answers \(phone unplugged\); start again once it does"):
        benchmark(files, np.random.default_rng(0))


@pytest.mark.parametrize("rounds", [0, 1.5, 10_001])
def test_a_number_of_rounds_that_is_not_allowed_is_named(files, rounds):
    with pytest.raises(DeviceError, match=f"rounds = {rounds} is not allowed"):
        benchmark(files, np.random.default_rng(0), rounds=rounds)


def test_cells_leave_out_what_is_not_known_or_usual(files):
    unknown = replace(files[0], precision=None, top1_percent=None, max_abs_diff=None)
    known, bare = cells(benchmark([files[0], unknown], np.random.default_rng(0), rounds=1))
    assert (known["format"], known["top-1 %"], known["max diff"]) == ("onnx float32", "91.25", "2.0e-06")
    assert (bare["format"], bare["top-1 %"], bare["max diff"]) == ("onnx", "", "")
    assert known["device"] == "clockwork, 3 threads, batch 4"


def test_the_page_shows_a_hostile_name_as_text(files):
    hostile = replace(files[0], name="<script>alert(1)</script>")
    html = page("Benchmark of <b>", benchmark([hostile], np.random.default_rng(0), rounds=1))
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "<title>Benchmark of &lt;b&gt;</title>" in html
    assert "default-src 'none'" in html


@pytest.fixture
def onnx_path(network, tmp_path):
    path, images = tmp_path / "model.onnx", np.zeros((4, 1, 28, 28), np.float32)
    metadata = {"ofa.precision": '"float32"'}
    OnnxFormat().write(network, (1, 28, 28), path, precision="float32", images=images, metadata=metadata)
    return path


@pytest.mark.parametrize("suffix", [".onnx", ".ort"])
def test_a_file_says_its_input_and_runs_by_default_with_onnx_runtime(onnx_path, suffix):
    path = onnx_path if suffix == ".onnx" else write_ort(onnx_path)
    file = of_file(path, None, {"threads": 1})
    assert (file.format, file.input_shape, file.device.name) == (suffix[1:], (1, 28, 28), "ort-cpu")
    assert file.precision == "float32"
    (row,) = map(asdict, benchmark([file], np.random.default_rng(0), rounds=2))
    assert row["latency_ms"] <= row["latency_p95_ms"]
    assert row["runtime"].startswith("onnxruntime ")


def test_a_file_of_mnn_runs_by_default_with_mnn(network, tmp_path):
    pytest.importorskip("_tools", reason="needs the extra mnn")
    from export.formats.mnn_format import MnnFormat

    path = tmp_path / "model.mnn"
    MnnFormat().write(network, (1, 28, 28), path, precision="float32", images=np.empty(0), metadata={})
    file = of_file(path, None, {})
    assert (file.format, file.input_shape, file.device.name) == ("mnn", (1, 28, 28), "mnn-cpu")
    with pytest.raises(DeviceError, match=r"ort-cpu does not run model\.mnn, but files of onnx and web; choose"):
        of_file(path, "ort-cpu", {})


@pytest.mark.parametrize("name", ["model.txt", "none.onnx"])
def test_what_is_no_model_file_is_refused(tmp_path, name):
    (tmp_path / "model.txt").write_text("")
    with pytest.raises(ExportError, match=r"is not a file \*\.onnx, \*\.ort, \*\.pte, .*; give such a file"):
        of_file(tmp_path / name, None, {})


@pytest.mark.parametrize(
    ("inputs", "listed"),
    [
        ([("images", "float32", ["n", 3, "h", "w"])], r"'images' tensor\(float\) \['n', 3, 'h', 'w'\]"),
        ([("x", "float32", ["n", 3, 8, 8])], r"'x' tensor\(float\) \['n', 3, 8, 8\]"),
        ([("images", "uint8", ["n", 3, 8, 8])], r"'images' tensor\(uint8\)"),
        ([("images", "float32", ["n"])], r"'images' tensor\(float\) \['n'\]"),
        ([("images", "float32", [])], r"'images' tensor\(float\) \[\]"),
        ([("images", "float32", ["n", 3]), ("mask", "float32", ["n"])], r"'images' .*, 'mask' tensor"),
    ],
)
def test_a_foreign_file_that_takes_something_else_than_images_is_one_error(tmp_path, inputs, listed):
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.DataType.Value(kind.upper().replace("32", "")), shape)
        for name, kind, shape in inputs
    ]
    out = onnx.helper.make_tensor_value_info("logits", values[0].type.tensor_type.elem_type, None)
    node = onnx.helper.make_node("Identity", [inputs[0][0]], ["logits"])
    opsets = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], "foreign", values, [out]), opset_imports=opsets, ir_version=8
    )
    onnx.save(model, tmp_path / "foreign.onnx")
    with pytest.raises(DeviceError, match=f"the model takes {listed}.*, which is not one tensor.*; export it so"):
        of_file(tmp_path / "foreign.onnx", None, {})


def test_a_device_that_runs_no_files_says_so(onnx_path):
    device = OrtCpu()
    file = Deployable("model", onnx_path, device, (1, 28, 28), "onnx")
    device.hosts = (BuildsNetworks(),)
    with pytest.raises(DeviceError, match="ort-cpu runs networks of PyTorch and no files; choose another device"):
        benchmark([file], np.random.default_rng(0))


class BuildsNetworks:
    def load(self, model):
        return model.module()
