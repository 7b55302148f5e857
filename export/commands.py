"""`ofa bundle`, which bundles the levels of a run or replays a discharging battery over them, and `ofa agent`."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from export.web.command import serve
from ofa.cli.options import (
    JsonOption,
    RecipeArgument,
    RunArgument,
    RunOption,
    TargetOption,
    execute,
    existing_run,
    json_object,
    make_run,
    user_path,
)
from ofa.cli.output import console, emit, progress, table

if TYPE_CHECKING:  # the engine imports torch; `ofa --help` does without
    from ofa.pipeline.target import Target


class PolicyName(StrEnum):
    """The policies that `ofa bundle demo` shows."""

    BATTERY = "battery"
    ENDURANCE = "endurance"


class _MakeByDefault(TyperGroup):
    """Read `ofa bundle RECIPE` as `ofa bundle make RECIPE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            args = ["make", *args]
        return super().parse_args(ctx, args)


bundle = typer.Typer(
    cls=_MakeByDefault,
    no_args_is_help=True,
    help="Bundle the levels of each target (make) or of several (join), or replay a battery (demo).",
)


@bundle.command()
def make(recipe: RecipeArgument, run_dir: RunOption = None, target: TargetOption = None) -> None:
    """Bundle the exported levels of each target; `ofa bundle RECIPE` does the same."""
    execute(make_run(recipe, run_dir), "bundle", target)


@bundle.command()
def join(
    run_dir: RunArgument,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", parser=user_path, help="Folder of the new bundle.")],
    target: Annotated[
        list[str] | None, typer.Option("--target", metavar="NAME", help="A target; may be repeated. Default: all.")
    ] = None,
) -> None:
    """Bundle the levels of several targets together; the runtime serves those that fit the machine it runs on."""
    from export.stages import bundle_targets

    run = existing_run(run_dir)
    targets = [run.target(name) for name in target] if target else run.targets
    joined = bundle_targets(run, targets, folder)
    counts = f"{len(joined.levels)} levels of {len(targets)} targets"
    console.print(f"{folder}: {counts}", highlight=False, soft_wrap=True)


def _day_option(help_text: str) -> Any:
    return typer.Option(help=f"{help_text} Simulates a day.", show_default=False)


@bundle.command()
def demo(
    recipe: RecipeArgument,
    run_dir: RunOption = None,
    target: TargetOption = None,
    policy: Annotated[PolicyName, typer.Option(help="What chooses the level.")] = PolicyName.BATTERY,
    hours: Annotated[float | None, _day_option("Hours that the battery shall last; 8 by default.")] = None,
    requests_per_hour: Annotated[float | None, _day_option("Images per hour.")] = None,
    capacity_wh: Annotated[float | None, _day_option("Stated energy of the battery in Wh; 50 by default.")] = None,
    power_w: Annotated[float | None, _day_option("Power that a running model adds, in watts.")] = None,
    latency_bound_ms: Annotated[float | None, _day_option("Run faster levels while requests take longer.")] = None,
    steps: Annotated[int, typer.Option(min=2, max=1000, help="Rows of the table.")] = 21,
    as_json: JsonOption = False,
) -> None:
    """Show the levels that serve while a battery is emptied.

    Serves test images while a simulated battery falls from full to empty and is charged again.

    With `--policy endurance`, or any option of a day, simulates a whole day without running models.
    """
    selected = make_run(recipe, run_dir).target(target)
    selected.require("bundle", "bundle demo")
    options = {
        "hours": hours,
        "requests_per_hour": requests_per_hour,
        "capacity_wh": capacity_wh,
        "power_w": power_w,
        "latency_bound_ms": latency_bound_ms,
    }
    day_options = {name: value for name, value in options.items() if value is not None}
    if day_options or policy is PolicyName.ENDURANCE:
        _show_day(selected, policy, steps, as_json, day_options)
    else:
        _show_discharge(selected, steps, as_json)


def _show_discharge(target: Target, steps: int, as_json: bool) -> None:
    from export.replay import replay
    from export.stages import raw_images

    images, labels = raw_images(target.run.data, limit=400)
    replayed = replay(target.path("bundle"), images, labels, steps=steps)

    def show() -> None:
        rows = [
            (
                f"{step.battery_percent:.0f}%" + (" charging" if step.charging else ""),
                step.level,
                step.top1_percent,
                f"{step.correct}/{step.n_images}",
                step.latency_ms,
            )
            for step in replayed
        ]
        table("battery replay", ("battery", "level", "test top-1 %", "correct here", "latency ms"), rows)

    emit([asdict(step) for step in replayed], as_json, show)


def _show_day(target: Target, policy: PolicyName, steps: int, as_json: bool, options: dict[str, float]) -> None:
    from export.bundle import load_bundle
    from export.policies.day_demo import simulated_demo

    day = simulated_demo(load_bundle(target.path("bundle")).levels, policy=policy.value, steps=steps, **options)

    def show() -> None:
        rows = [
            (
                step.hours,
                f"{step.battery_percent:.0f}%",
                ", ".join(f"{i}: {100 * share:.0f}%" for i, share in enumerate(step.levels) if share > 0),
                step.top1_percent,
                step.n_images,
                step.latency_ms,
            )
            for step in day.steps
        ]
        columns = ("hours", "battery", "levels that served", "test top-1 %", "images", "latency ms")
        table(f"simulated day, {policy} policy", columns, rows)
        lasted = "lasted" if day.lasted else f"was empty after {day.steps[-1].hours:.2f} hours"
        console.print(f"The battery {lasted}. It holds {day.capacity_wh:.1f} Wh, which the policy was not told.")
        best = "no level lasts" if day.best_top1_percent is None else f"{day.best_top1_percent:.2f} %"
        console.print(
            f"Accuracy over all {day.n_images} images: {day.top1_percent:.2f} %; best plan in hindsight: {best}."
        )

    emit(asdict(day), as_json, show)


def benchmark(
    what: Annotated[
        list[str],
        typer.Argument(metavar="RUN|FILE...", help="Run directory, or recipe of one in runs/NAME; or model files."),
    ],
    target: TargetOption = None,
    device: Annotated[
        str | None, typer.Option(metavar="NAME", help="Device that runs files. Default: by their format.")
    ] = None,
    device_options: Annotated[str, typer.Option(help="Device options as JSON: '{\"threads\": 2}'.")] = "{}",
    rounds: Annotated[int, typer.Option(min=1, max=10_000, help="Visits to each file, about 10 ms each.")] = 30,
    page: Annotated[
        Path | None, typer.Option("--page", metavar="FILE", parser=user_path, help="Writes an HTML page, too.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure deployed files side by side: size, time to load, latency, accuracy.

    All levels of a run on the devices of their targets, or any *.onnx, *.ort, *.mnn, *.ncnn, *.tflite, *.pte files.
    """
    import numpy as np

    from export import benchmark as measuring
    from ofa.core.errors import ExportError
    from ofa.core.files import write_text

    paths = [user_path(name) for name in what]
    if all(path.suffix in measuring.FILES for path in paths):
        if target is not None:
            raise ExportError(f"--target {target} is for a run; leave it out for files")
        files = [measuring.of_file(path, device, json_object("--device-options", device_options)) for path in paths]
    elif len(what) == 1 and device is None and device_options == "{}":
        run = existing_run(what[0])
        targets = [run.target(target)] if target else run.targets
        files = [file for one in targets for file in measuring.of_target(one)]
    else:
        allowed = f"one run, whose targets name their devices, or files *{', *'.join(measuring.FILES)}"
        raise ExportError(f"{' '.join(what)} is not {allowed}; give one or the other")
    with progress("benchmark") as on_progress:
        rows = measuring.benchmark(files, np.random.default_rng(0), rounds=rounds, on_progress=on_progress)
    if page is not None:
        write_text(page, measuring.page(f"Benchmark of {', '.join(path.name for path in paths)}", rows))

    def show() -> None:
        shown = measuring.cells(rows)
        for row in shown:
            del row["max diff"]  # a terminal is narrow
        table("latency: median, 95th percentile", list(shown[0]), [list(row.values()) for row in shown])

    emit([asdict(row) for row in rows], as_json, show)


def agent(ctx: typer.Context) -> None:
    """Run ONNX models for `ofa profile` on another computer; `ofa agent --help` lists the options."""
    from export.agent.__main__ import main

    raise typer.Exit(main(ctx.args))


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(bundle, name="bundle")
    app.command()(benchmark)
    app.command()(serve)
    app.command(
        "agent", context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    )(agent)
