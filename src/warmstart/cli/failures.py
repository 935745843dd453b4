"""What the person sees when a command does not finish."""

from __future__ import annotations

import os
import platform
import shlex
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import click

from warmstart import __version__
from warmstart.foundation.errors import UserError, nearest

BUG, BAD_INPUT, INTERRUPTED = 1, 2, 130


def exit_code_of(error: BaseException, words: Sequence[str]) -> int:
    """Say on the error stream what happened and return the exit code.

    Args:
        error: What ended the command.
        words: The words after `warmstart`, kept in the crash file.
    """
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else BUG
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt | click.Abort):
        say("stopped", "by Ctrl-C; what was finished is kept, and the same command continues from there.")
        return INTERRUPTED
    if isinstance(error, BrokenPipeError):  # `warmstart systems | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    if isinstance(error, UserError):
        say("stopped" if error.exit_code == INTERRUPTED else "error", error.sentence)
        return error.exit_code
    if isinstance(error, click.ClickException):
        say("error", usage_sentence(error))
        return BAD_INPUT
    if os.environ.get("WARMSTART_DEBUG") == "1":
        traceback.print_exception(error)
        return BUG
    say(
        "bug",
        f"{type(error).__name__}: {' '.join(str(error).split())[:300]}; this should not happen: the details "
        f"are in {write_crash(error, words)} (or run again with WARMSTART_DEBUG=1), please report them.",
    )
    return BUG


def usage_sentence(error: click.ClickException) -> str:
    """One sentence for a mistake in the words of the command line, with the nearest right one."""
    context = getattr(error, "ctx", None)
    if isinstance(error, click.NoSuchOption):
        known = [o for p in context.command.params for o in p.opts] if context else []
        long = [option for option in known if option.startswith("--")]
        text = f"{error.option_name!r} is not an option of {context.command_path if context else 'warmstart'}"
        return f"{text}; {nearest(error.option_name, long)}"
    if isinstance(error, getattr(click, "NoSuchCommand", ())):
        group = context.command if context else None
        known = group.list_commands(context) if isinstance(group, click.Group) and context else []
        name, path = getattr(error, "command_name", ""), context.command_path if context else "warmstart"
        return f"there is no command {name!r} of {path}; {nearest(name, known)}"
    text = " ".join(error.format_message().split()).rstrip(".")
    if context and "unexpected extra argument" in text:
        helps = {p.opts[0]: getattr(p, "help", None) or "" for p in context.command.params}
        if needed := [name for name, help in helps.items() if "[required]" in help and "." not in name]:
            text += f"; it may belong to {' or '.join(needed)}"
    hint = f" (see `{context.command_path} --help`)" if context and "; " not in text else ""
    return f"{text[0].lower()}{text[1:]}{hint}" + ("" if text.endswith("?") else ".")


def say(label: str, sentence: str) -> None:
    """One line on the error stream; coloured on a terminal unless `NO_COLOR` is set."""
    colour = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    head = click.style(f"{label}:", fg="yellow" if label == "stopped" else "red", bold=True)
    click.echo(f"{head if colour else f'{label}:'} {sentence}", err=True)


def write_crash(error: BaseException, words: Sequence[str]) -> Path:
    """Keep the traceback of a bug in a file that can be sent to us; returns its path."""
    from warmstart.foundation.files import cache_home, write_atomic

    text = (
        f"warmstart {__version__}, Python {platform.python_version()}, {platform.platform()}\n"
        f"$ warmstart {shlex.join(words)}\n\n" + "".join(traceback.format_exception(error))
    )
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    for folder in (cache_home() / "crashes", Path(tempfile.gettempdir()) / "warmstart-crashes"):
        try:
            write_atomic(folder / name, text)
        except (UserError, OSError):
            continue
        return folder / name
    return Path(os.devnull)
