"""Assembles the commands and turns errors that a user can cause into one line and exit code 2."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.metadata import entry_points
from typing import Any

import typer
from typer.core import TyperGroup

from ofa.cli.cost import cost
from ofa.cli.data import data
from ofa.cli.evaluate import evaluate
from ofa.cli.importing import import_weights
from ofa.cli.output import errors
from ofa.cli.profile import profile
from ofa.cli.show import devices, env, families, recipes
from ofa.cli.stages import export, finetune, fit, report, run, sample, search, train
from ofa.cli.targets import specialize, targets
from ofa.core.errors import OfaError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def build() -> typer.Typer:
    """Return the application: the commands of this package and those that entry points `ofa.commands` add."""
    app = typer.Typer(
        cls=_Commands,
        help="Train one elastic network, then deploy the best subnet of it for every device.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    for command in (
        run,
        specialize,
        targets,
        train,
        sample,
        fit,
        export,
        report,
        search,
        finetune,
        profile,
        cost,
        evaluate,
        data,
    ):
        app.command()(command)
    for point in sorted(entry_points(group="ofa.commands")):
        point.load()(app)
    app.command("import")(import_weights)
    for listing in (families, devices, recipes, env):
        app.command()(listing)
    return app


def main() -> None:
    """Run the command line; the entry point of `ofa` and of `python -m ofa`."""
    _keep_freed_memory()
    try:
        with _stoppable(), _joined_by_torchrun():
            build()()
    except OfaError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error}; finished work is kept, continue with `ofa run RECIPE --resume` once this is mended")


@contextmanager
def _stoppable() -> Iterator[None]:
    """Turn Ctrl-C into a line that says how to continue, and exit code 130."""
    try:
        yield
    except KeyboardInterrupt as stopped:
        message = str(stopped) or "stopped; continue with `ofa run RECIPE --resume`"
        errors.print(message, markup=False, highlight=False, soft_wrap=True)
        sys.exit(130)


class _Commands(TyperGroup):
    """The commands. Typer itself ends at Ctrl-C without a word, so that it must not see that."""

    def invoke(self, ctx: Any) -> Any:
        with _stoppable():
            return super().invoke(ctx)


def _keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next step instead of returning it to the system after each tensor.

    Training on a CPU allocates the same activations at every step; returning and clearing those pages took 13% of a
    step of `small_mobilenet_v3`. Does nothing where the C library is not glibc.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)


def _joined_by_torchrun() -> AbstractContextManager[None]:
    """Join the other processes that torchrun started; imports nothing in a single process, as torch is slow to load."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return nullcontext()
    from ofa.core.distributed import joined

    return joined()


def _fail(message: str) -> None:
    errors.print(f"error: {message}", style="red", markup=False, highlight=False, soft_wrap=True)
    sys.exit(2)
