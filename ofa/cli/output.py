"""What the commands print: tables for people, JSON for programs, progress on standard error."""

from __future__ import annotations

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


def emit(value: Any, as_json: bool, show: Callable[[], None]) -> None:
    """Prints `value` as JSON, or calls `show`."""
    if as_json:
        print(json.dumps(value, indent=1))
    else:
        show()


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Prints a table; numbers are set flush right."""
    shown = Table(title=title, title_justify="left", title_style="bold")
    for i, column in enumerate(columns):
        numbers = all(isinstance(row[i], int | float) for row in rows)
        shown.add_column(column, justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        shown.add_row(*(_text(value) for value in row))
    console.print(shown)


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1 else f"{value:.2f}"
    return str(value)


@contextmanager
def progress(name: str, shown: bool = True) -> Iterator[Callable[[int, int, str], None]]:
    """A progress bar on a terminal, a line every 15 seconds elsewhere: what, how far, how long left."""
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
    begin = last = time.monotonic()
    first: int | None = None  # what was done before this process, when it goes on after a kill

    def line(done: int, total: int, message: str) -> None:
        nonlocal last, first
        first = done - 1 if first is None else first
        now = time.monotonic()
        if now - last > 15:
            last = now
            left = (now - begin) / max(done - first, 1) * (total - done)
            errors.print(f"{name}: {done}/{total}, {message}, {left:.0f} s left", highlight=False)

    yield line
    errors.print(f"{name}: done in {time.monotonic() - begin:.1f} s", highlight=False)
