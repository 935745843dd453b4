"""Measure bits per byte of held-out text under a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from warmstart.cli.options import SettingsCommand, settings_options
from warmstart.cli.output import prints
from warmstart.recipes.operations.evaluate import EvaluateSettings

if TYPE_CHECKING:
    from rich.console import Console


def _render(console: Console, result: dict[str, Any]) -> None:
    console.print(
        f"{result['bits_per_byte']:.4f} bits per byte on {result['corpus']} ({result['split']}: "
        f"{result['bytes']:,} bytes, {result['tokens']:,} tokens, {result['seconds']:.1f} s)",
        markup=False,
    )


@click.command(cls=SettingsCommand)
@settings_options(EvaluateSettings, arguments=("source",))
@prints(_render)
def command(settings: EvaluateSettings) -> dict[str, Any]:
    """Measure how well the checkpoint SOURCE predicts text, in bits per UTF-8 byte (lower is better).

    \b
    Example: warmstart evaluate my-model --corpus multi30k/de
    """
    from warmstart.recipes.operations.evaluate import evaluate

    return evaluate(settings)
