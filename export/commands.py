"""`ofa bundle`, which bundles the levels of a run or replays a discharging battery over them, and `ofa agent`."""

from dataclasses import asdict
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ofa.cli.options import JsonOption, RecipeArgument, RunOption, TargetOption, execute, make_run
from ofa.cli.output import emit, table


class _MakeByDefault(TyperGroup):
    """Read `ofa bundle RECIPE` as `ofa bundle make RECIPE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            args = ["make", *args]
        return super().parse_args(ctx, args)


bundle = typer.Typer(
    cls=_MakeByDefault, no_args_is_help=True, help="Bundle the levels of a run (make), or replay a battery (demo)."
)


@bundle.command()
def make(recipe: RecipeArgument, run_dir: RunOption = None, target: TargetOption = None) -> None:
    """Bundle the exported levels of each target; `ofa bundle RECIPE` does the same."""
    execute(make_run(recipe, run_dir), "bundle", target)


@bundle.command()
def demo(
    recipe: RecipeArgument,
    run_dir: RunOption = None,
    target: TargetOption = None,
    steps: Annotated[int, typer.Option(min=2, max=1000, help="Steps from a full battery to an empty one.")] = 21,
    as_json: JsonOption = False,
) -> None:
    """Serve test images while a simulated battery discharges from full to empty and is charged again."""
    from export.replay import replay
    from export.stages import raw_images

    run = make_run(recipe, run_dir)
    images, labels = raw_images(run.data, limit=400)
    replayed = replay(run.target(target).path("bundle"), images, labels, steps=steps)

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


def agent(ctx: typer.Context) -> None:
    """Run ONNX models for `ofa profile` on another computer; `ofa agent --help` lists the options."""
    from export.agent.__main__ import main

    raise typer.Exit(main(ctx.args))


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(bundle, name="bundle")
    app.command(
        "agent", context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    )(agent)
