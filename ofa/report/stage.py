"""The last stage: the summary and the page."""

from __future__ import annotations

from ofa.core.files import write_json, write_text
from ofa.pipeline.run import Run
from ofa.pipeline.stage import Progress, Stage
from ofa.report.content import gather
from ofa.report.page import page


def _report(run: Run, progress: Progress) -> None:
    keys = (
        "arch", "onnx", "top1_percent", "latency_ms", "predicted_latency_ms", "parity_max_abs_diff", "macs_m",
        "params_m",
    )  # fmt: skip
    content = gather(run)
    summary = {
        "space_size": run.family.space.size,
        "levels": [{key: level[key] for key in keys} for level in content.levels],
        "predictor": {key: content.fit[key] for key in ("kendall_tau", "rmse_percent", "n_fit", "n_test")},
        "seconds": content.seconds,
    }
    write_text(run.path("report.html"), page(content))
    write_json(run.path("summary.json"), summary)
    progress(1, 1, "written")


REPORT = Stage("report", ("bundle",), (), _report)
