"""Assembles the commands and turns errors that a user can cause into one line and exit code 2."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import entry_points

import typer

from ofa.cli import cost, evaluate, importing, profile, run, search, show, stages
from ofa.cli.allocator import keep_freed_memory
from ofa.cli.output import errors
from ofa.core.errors import OfaError


def build() -> typer.Typer:
    """Return the application: the commands of this package and those that entry points `ofa.commands` add."""
    app = typer.Typer(
        help="Train one elastic network, then deploy the best subnet of it for every device.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    for module in (run, stages, search, profile, cost, evaluate):
        module.add_to(app)
    for point in sorted(entry_points(group="ofa.commands")):
        point.load()(app)
    for module in (importing, show):
        module.add_to(app)
    return app


def main() -> None:
    """Run the command line; the entry point of `ofa` and of `python -m ofa`."""
    keep_freed_memory()
    try:
        with _joined_by_torchrun():
            build()()
    except OfaError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error}; finished work is kept, continue with `ofa run RECIPE --resume` once this is mended")
    except KeyboardInterrupt as stopped:
        message = str(stopped) or "stopped; continue with `ofa run RECIPE --resume`"
        errors.print(message, highlight=False, soft_wrap=True)
        sys.exit(130)


def _joined_by_torchrun() -> AbstractContextManager[None]:
    """Join the other processes that torchrun started; imports nothing in a single process, as torch is slow to load."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return nullcontext()
    from ofa.core.distributed import joined

    return joined()


def _fail(message: str) -> None:
    errors.print(f"error: {message}", style="red", markup=False, highlight=False, soft_wrap=True)
    sys.exit(2)
