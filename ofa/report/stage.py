"""The last stage: the summary and the page."""

from __future__ import annotations

from ofa.core.files import write_json, write_text
from ofa.pipeline.levels import to_json
from ofa.pipeline.run import Run
from ofa.pipeline.stage import Progress, Stage
from ofa.report.content import gather
from ofa.report.page import page


def _report(run: Run, progress: Progress) -> None:
    content = gather(run)
    summary = {
        "space_size": run.family.space.size,
        "levels": [to_json(level) for level in content.levels],
        "predictor": {key: content.fit[key] for key in ("kendall_tau", "rmse_percent", "n_fit", "n_test")},
        "seconds": content.seconds,
    }
    write_text(run.path("report.html"), page(content))
    write_json(run.path("summary.json"), summary)
    progress(1, 1, "written")


REPORT = Stage("report", ("bundle",), (), _report)
