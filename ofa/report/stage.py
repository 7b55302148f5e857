"""The last stage: the summary and the page."""

from __future__ import annotations

from ofa.files import write_json
from ofa.pipeline.run import Progress, Run, Stage


def _report(run: Run, progress: Progress) -> None:
    keys = (
        "arch", "onnx", "accuracy_top1_percent", "latency_ms", "predicted_latency_ms", "parity_max_abs_diff", "macs_m",
        "params_m",
    )  # fmt: skip
    predictor = run.read_json("predictor.json")
    summary = {
        "space_size": run.family.space.size,
        "levels": [{key: level[key] for key in keys} for level in run.read_json("export/levels.json")],
        "predictor": {key: predictor[key] for key in ("kendall_tau", "rmse_percent", "n_fit", "n_test")},
        "seconds": {name: record["seconds"] for name, record in run.records().items() if name != "report"},
    }
    write_json(run.path("summary.json"), summary)
    progress(1, 1, "written")


REPORT = Stage("report", ("bundle",), (), _report)
