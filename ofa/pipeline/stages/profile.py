"""Stage `profile`: the latency table of the recipe's device."""

from __future__ import annotations

from ofa.cost.latency.profile import profile
from ofa.pipeline.run import Run
from ofa.pipeline.stage import Progress, Stage


def _profile(run: Run, progress: Progress) -> None:
    table = profile(
        run.family,
        run.device,
        run.rng("profile"),
        config=run.recipe.profile,
        samples_path=run.path("latency_samples.json"),
        on_progress=lambda done, total: progress(done, total, "latencies"),
    )
    table.save(run.path("latency_table.json"))


PROFILE = Stage("profile", (), ("family", "data", "profile"), _profile)
