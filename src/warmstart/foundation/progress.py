"""Progress on the error stream: a live line on a terminal, quiet elsewhere and with `--json`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

console = Console(stderr=True, highlight=False)
_stack: list[Progress] = []
_quiet = False


def set_quiet(quiet: bool) -> None:
    """Silence every progress line and note (used by `--json` and `--quiet`)."""
    global _quiet
    _quiet = quiet


def note(message: str) -> None:
    """One line for the person watching."""
    if not _quiet:
        (_stack[-1].console if _stack else console).print(message)


class Task:
    """Handle on one progress line."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def update(self, completed: float, status: str = "") -> None:
        """Set how much is done and the text at the right (`"12,300 tokens/s  loss 3.21"`)."""
        self._progress.update(self._task, completed=completed, status=status)


@contextmanager
def progress(description: str, total: float) -> Iterator[Task]:
    """Show a line with bar, status and time left until the block ends. Nested calls share one display."""
    disabled = _quiet or not sys.stderr.isatty() or bool(os.environ.get("HF_HUB_DISABLE_PROGRESS_BARS"))
    if _stack:
        display = _stack[-1]
        task = display.add_task(description, total=total, status="")
        try:
            yield Task(display, task)
        finally:
            display.remove_task(task)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[status]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=disabled) as display:
        _stack.append(display)
        try:
            yield Task(display, display.add_task(description, total=total, status=""))
        finally:
            _stack.remove(display)
