"""One place that prints results: for people on a terminal, or one JSON document with `--json`."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from pydantic import BaseModel

if TYPE_CHECKING:
    from rich.console import Console

Render = Callable[["Console", Any], None]


def prints(
    render: Render, *, fails: Callable[[Any], bool] = lambda _: False
) -> Callable[..., Callable[..., Any]]:
    """Decorator for a command that returns its result as plain data.

    Adds `--json` and `--quiet`. With `--json`, standard output holds exactly one JSON document: whatever
    a library prints meanwhile goes to the error stream.

    Args:
        render: Shows the result to a person.
        fails: Whether the result means exit code 1 (a check that found something wrong).
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def run(*args: Any, json: bool, quiet: bool, **kwargs: Any) -> int:
            from warmstart.foundation.progress import set_quiet

            set_quiet(json or quiet)
            with only_results(json) as write:
                result = function(*args, **kwargs)
                if json:
                    write(as_json(result))
                else:
                    from rich.console import Console

                    console = Console(highlight=False)
                    if (
                        not console.is_terminal
                    ):  # a pipe or file: never cut or wrap what another program reads
                        console.width = 120
                    render(console, result)
            return int(fails(result))

        run = click.option("--quiet", "-q", is_flag=True, help="Print no progress.")(run)
        return click.option("--json", is_flag=True, help="Print one JSON document and nothing else.")(run)

    return decorate


@contextlib.contextmanager
def only_results(exclusive: bool) -> Iterator[Callable[[str], None]]:
    """Yield a writer to the real standard output; when `exclusive`, other output goes to the error stream."""
    real = sys.stdout
    if not exclusive:
        yield lambda text: print(text, file=real)
        return
    kept: list[str] = []
    descriptor = None
    with contextlib.suppress(OSError, AttributeError, ValueError):
        if real.fileno() == 1:  # also what compiled code prints
            real.flush()
            descriptor = os.dup(1)
            os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield kept.append
    finally:
        if descriptor is not None:
            os.dup2(descriptor, 1)
            os.close(descriptor)
    for text in kept:
        print(text, file=real, flush=True)


def as_json(value: Any) -> str:
    """`value` as indented JSON; settings, paths and arrays become plain values, NaN and infinity null."""
    return json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False)


def plain(value: Any) -> Any:
    """`value` made of dictionaries, lists and scalars only."""
    if isinstance(value, BaseModel):
        return plain(value.model_dump(mode="json"))
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int | bool):
        return value
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # numpy scalars and arrays
        return plain(value.tolist())
    raise TypeError(f"cannot print a {type(value).__name__} as JSON")
