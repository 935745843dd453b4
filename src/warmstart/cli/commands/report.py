"""Write the HTML report of a finished comparison again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from warmstart.cli.output import prints
from warmstart.foundation.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console


def _render(console: Console, result: dict[str, Any]) -> None:
    console.print(result["sentence"], markup=False)
    for file in (result["report"], *result["plots"]):
        console.print(f"→ {file}", markup=False)


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write; beside the result by default.",
)
@click.option(
    "--plots", type=click.Path(path_type=Path, file_okay=False), help="Folder for the plots as PNG."
)
@prints(_render)
def command(source: Path, output: Path | None, plots: Path | None) -> dict[str, Any]:
    """Render SOURCE, a `result.json` or the run folder that holds one, as one self-contained HTML page."""
    from pydantic import ValidationError

    from warmstart.evaluation.results import ComparisonResult
    from warmstart.report import export_plots, write_report

    file = source / "result.json" if source.is_dir() else source
    if not file.is_file():
        raise UserError("there is no result.json", where=source, fix="give a run folder or a result.json")
    try:
        result = ComparisonResult.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UserError(
            f"not a comparison's result: {key}: {first['msg'].lower()}",
            where=file,
            fix="give the result.json of `warmstart compare`, `demo` or `reproduce`",
        ) from None
    page = output or file.with_name("report.html")
    write_report(result, page)
    pictures = export_plots(result, plots) if plots else []
    return {"report": str(page), "sentence": result.sentence, "plots": [str(p) for p in pictures]}
