"""`ofa bundle`: make the bundle of a run, and replay a discharging battery over it; `ofa agent`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ofa.cli.options import JsonOption, RecipeArgument, RunOption, execute, make_run
from ofa.cli.output import emit, table


class _MakeByDefault(TyperGroup):
    """`ofa bundle RECIPE` means `ofa bundle make RECIPE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            args = ["make", *args]
        return super().parse_args(ctx, args)


bundle = typer.Typer(
    cls=_MakeByDefault, no_args_is_help=True, help="Make the bundle of a run (make), or replay it (demo)."
)


@bundle.command()
def make(recipe: RecipeArgument, run_dir: RunOption = None) -> None:
    """Make the bundle of a run's exported levels. `ofa bundle RECIPE` does the same."""
    execute(make_run(recipe, run_dir), "bundle")


@bundle.command()
def demo(
    recipe: RecipeArgument,
    run_dir: RunOption = None,
    steps: Annotated[int, typer.Option(min=2, max=1000, help="Steps of the discharge.")] = 21,
    as_json: JsonOption = False,
) -> None:
    """Serve real test images while a battery goes from full to empty, and is charged again at the end."""
    from export.replay import replay
    from export.stages import raw_images

    run = make_run(recipe, run_dir)
    images, labels = raw_images(run.data, limit=400)
    done = replay(run.path("bundle"), images, labels, steps)

    def show() -> None:
        rows = [
            (
                f"{step.battery_percent:.0f}%" + (" charging" if step.charging else ""),
                step.level,
                step.top1_percent,
                f"{step.correct}/{step.n_images}",
                step.latency_ms,
            )
            for step in done
        ]
        table("battery replay", ("battery", "level", "test top-1 %", "right now", "latency ms"), rows)

    emit([asdict(step) for step in done], as_json, show)


def agent(ctx: typer.Context) -> None:
    """Run ONNX models for `ofa profile` on another computer; `ofa agent --help` lists the options."""
    from export.agent.server import main

    raise typer.Exit(main(ctx.args))


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this file."""
    app.add_typer(bundle, name="bundle")
    app.command(
        "agent", context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    )(agent)
