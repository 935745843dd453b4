"""Commands that run one operation: the settings of a recipe step as options, the artifact as a folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from warmstart.cli.options import SettingsCommand, settings_options
from warmstart.cli.output import prints
from warmstart.cli.tables import pairs
from warmstart.foundation.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console


def operation_command(
    kind: str, *, help: str, arguments: tuple[str, ...] = (), name: str = ""
) -> click.Command:
    """Build `warmstart <kind>` from the registered operation of that name.

    The step is kept and resumed under the hash of what it depends on, like any step of a recipe; a killed
    command continues where it stood when it is given again.

    Args:
        kind: Name of the operation.
        help: What the command does, for its `--help`.
        arguments: Settings that are given as plain words.
        name: Name of the command where it differs from the operation's.
    """
    from warmstart.recipes.operations import operations

    entry = operations.get(kind)

    @click.command(name or kind, cls=SettingsCommand, help=help)
    @settings_options(entry.settings, arguments=arguments)
    @click.option(
        "--output-dir", "-o", required=True, type=click.Path(path_type=Path), help="Folder to create."
    )
    @click.option("--replace", is_flag=True, help="Replace the output folder if it exists.")
    @prints(_render)
    def command(settings: Any, output_dir: Path, replace: bool) -> dict[str, Any]:
        from warmstart.recipes.runner import Runner

        check_output(output_dir, replace)
        if "streams" in entry.tags:
            make_beside(kind, settings, output_dir)
        else:
            artifact = Runner().step(kind, settings, name=kind)
            place(artifact, output_dir, replace)
        return {"output": str(output_dir), "operation": kind, "measured": measured(output_dir)}

    return command


def check_output(output: Path, replace: bool) -> None:
    """Refuse an existing output folder before any work is done."""
    if output.exists() and not replace:
        raise UserError(
            "the output folder already exists", where=output, fix="choose another, or give --replace"
        )


def make_beside(kind: str, settings: Any, output: Path) -> None:
    """Run a step whose artifact may be as large as the disk allows: beside the output, and moved there.

    The cache holds no copy of it. What an interrupted command has finished stays beside the output, and the
    same command goes on from there.
    """
    from warmstart.foundation.files import move_into
    from warmstart.recipes.runner import Runner

    plain = Runner().with_sources(settings.model_dump(exclude_unset=True))
    work = output.absolute().parent / f".{output.name}.steps"
    try:
        move_into(Runner(work).step(kind, plain, name=kind), output)
    finally:
        if not any(work.glob("*/.*.part-*/*.safetensors")):  # nothing that a next attempt could use
            shutil.rmtree(work, ignore_errors=True)


def place(artifact: Path, output: Path, replace: bool) -> None:
    """Copy an artifact out of the cache: whole or not at all."""
    from warmstart.foundation.files import atomic_folder

    with atomic_folder(output, replace=replace) as temporary:
        shutil.copytree(artifact, temporary, dirs_exist_ok=True)


def measured(folder: Path) -> dict[str, Any]:
    """The numbers that the operation wrote into the checkpoint's lineage."""
    record = folder / "warmstart.json"
    if not record.is_file():
        return {}
    data = json.loads(record.read_text(encoding="utf-8"))
    found = data.get("measured") or data.get("lineage", {}).get("measured")
    return found if isinstance(found, dict) else {}


def _render(console: Console, result: dict[str, Any]) -> None:
    if result["measured"]:
        pairs(console, result["measured"])
    console.print(f"→ {result['output']}", markup=False)
