"""Entry point of the command line: find the command, run it, turn every failure into one sentence."""

from __future__ import annotations

import ast
import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from warmstart import __version__

_COMMANDS = Path(__file__).parent / "commands"


class CommandFolder(click.Group):
    """A group whose commands are the files of a folder.

    `commands/show.py` is `warmstart show`: its attribute `command` is the click command and the first line
    of its docstring is the line in `--help`, read without importing the file.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the files, `_` written as `-`."""
        return sorted(p.stem.replace("_", "-") for p in _COMMANDS.glob("*.py") if not p.stem.startswith("_"))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the one command that is asked for."""
        if cmd_name not in self.list_commands(ctx):
            return None
        module = importlib.import_module(f"warmstart.cli.commands.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        command.name = cmd_name
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's, with the nearest command named when there is no such one."""
        name, known = args[0], self.list_commands(ctx)
        if name not in known and not name.startswith("-"):
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]!r}?" if close else "choose one of " + ", ".join(known)
            ctx.fail(f"there is no command {name!r}; {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from the docstrings alone."""
        rows = []
        for name in self.list_commands(ctx):
            source = (_COMMANDS / f"{name.replace('-', '_')}.py").read_text(encoding="utf-8")
            text = ast.get_docstring(ast.parse(source)) or ""
            rows.append((name, text.split("\n")[0]))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.command(
    cls=CommandFolder,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    no_args_is_help=False,
    invoke_without_command=True,
)
@click.version_option(__version__, "-V", "--version", prog_name="warmstart")
@click.pass_context
def app(ctx: click.Context) -> None:
    """Start every language model from one that exists: checkpoint in, checkpoint out, and what it saved.

    New here? `warmstart demo` needs no network and no data. `warmstart doctor` checks this machine.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line and leave the process with its exit code.

    0: done. 1: a bug, or a check that found something wrong. 2: bad input, said in one sentence.
    130: stopped with Ctrl-C.

    Args:
        args: Words after `warmstart`; the process's own when None.
    """
    from warmstart.cli.failures import exit_code_of

    # Threads that spin while they wait slow training tenfold once another program wants a core; sleeping
    # costs next to nothing. Must be set before torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        code = app.main(
            args=None if args is None else list(args), prog_name="warmstart", standalone_mode=False
        )
    except BaseException as error:
        sys.exit(exit_code_of(error, sys.argv[1:] if args is None else list(args)))
    sys.exit(code if isinstance(code, int) else 0)
