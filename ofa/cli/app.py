"""Puts the commands together and turns errors that a user can cause into one line and exit code 2."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import entry_points

import typer

from ofa.cli import cost, evaluate, importing, profile, run, show
from ofa.cli.allocator import keep_freed_memory
from ofa.cli.output import errors
from ofa.core.errors import OfaError


def build() -> typer.Typer:
    """The application: commands of this package, and those that functions of the entry points `ofa.commands` add."""
    app = typer.Typer(
        help="Train one elastic network, then deploy the best subnet of it for every device.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    run.add_to(app)
    profile.add_to(app)
    cost.add_to(app)
    evaluate.add_to(app)
    for point in sorted(entry_points(group="ofa.commands")):
        point.load()(app)
    importing.add_to(app)
    show.add_to(app)
    return app


def main() -> None:
    """Runs the command line; the entry point of `ofa` and of `python -m ofa`."""
    keep_freed_memory()
    try:
        with joined_by_torchrun():
            build()()
    except OfaError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error}; what was finished before is kept, go on with `ofa run --resume` once this is mended")
    except KeyboardInterrupt as stopped:
        errors.print(str(stopped) or "stopped; go on with `ofa run RECIPE --resume`", highlight=False, soft_wrap=True)
        sys.exit(130)


def joined_by_torchrun() -> AbstractContextManager[None]:
    """Joins the other processes where torchrun started this one; else imports nothing, as torch takes its time."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return nullcontext()
    from ofa.core.distributed import joined

    return joined()


def _fail(message: str) -> None:
    errors.print(f"error: {message}", style="red", markup=False, highlight=False, soft_wrap=True)
    sys.exit(2)
