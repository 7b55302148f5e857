"""What the commands print: tables for people, JSON for programs, progress on standard error."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

console = Console()
errors = Console(stderr=True)

_SECONDS_PER_LINE = 15


def emit(value: Any, as_json: bool, show: Callable[[], None]) -> None:
    """Print `value` as JSON, or call `show`."""
    if as_json:
        print(json.dumps(value, indent=1))
    else:
        show()


def warn(message: str) -> None:
    """Print what went wrong, without an end to the command, on standard error."""
    errors.print(f"warning: {message}", style="yellow", markup=False, highlight=False, soft_wrap=True)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table; columns of numbers are right-justified."""
    printed = Table(title=title, title_justify="left", title_style="bold")
    for i, column in enumerate(columns):
        numeric = all(isinstance(row[i], int | float) for row in rows)
        printed.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        printed.add_row(*(_text(value) for value in row))
    console.print(printed)


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1 else f"{value:.2f}"
    return str(value)


@contextmanager
def progress(name: str, shown: bool = True) -> Iterator[Callable[[int, int, str], None]]:
    """Yield a function `(done, total, message)` that shows progress: a bar on a terminal, else a line now and then."""
    if not shown:
        yield lambda done, total, message: None
        return
    if errors.is_terminal:
        columns = (
            TextColumn("{task.description:>8}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[message]}"),
        )
        with Progress(*columns, console=errors) as bar:
            task = bar.add_task(name, total=None, message="")
            yield lambda done, total, message: bar.update(task, completed=done, total=total, message=message)
        return
    start = last = time.monotonic()
    done_before: int | None = None  # by an earlier process that this one resumes

    def print_line(done: int, total: int, message: str) -> None:
        nonlocal last, done_before
        done_before = done - 1 if done_before is None else done_before
        now = time.monotonic()
        if now - last > _SECONDS_PER_LINE:
            last = now
            seconds_left = (now - start) / max(done - done_before, 1) * (total - done)
            errors.print(f"{name}: {done}/{total}, {message}, {seconds_left:.0f} s left", highlight=False)

    yield print_line
    errors.print(f"{name}: done in {time.monotonic() - start:.1f} s", highlight=False)
