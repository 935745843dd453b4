"""Print the JSON schema of recipes or of one operation's settings."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from warmstart.cli.output import prints

if TYPE_CHECKING:
    from rich.console import Console


def _render(console: Console, schema: dict[str, Any]) -> None:
    console.print(json.dumps(schema, indent=2, ensure_ascii=False), markup=False, soft_wrap=True)


@click.command()
@click.argument("operation", required=False)
@prints(_render)
def command(operation: str | None) -> dict[str, Any]:
    """Print the JSON schema of recipe files, or of the settings of one OPERATION.

    Editors complete and check recipes with it: put `# yaml-language-server: $schema=warmstart.json` on top.
    """
    from warmstart.recipes.operations import operations
    from warmstart.recipes.schema import recipe_schema

    return operations.get(operation).settings.model_json_schema() if operation else recipe_schema()
