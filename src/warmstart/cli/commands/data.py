"""Look at a corpus: sizes, splits, scripts, duplicates, samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from warmstart.cli.options import SettingsCommand, settings_options
from warmstart.cli.output import prints
from warmstart.cli.tables import pairs, size, table
from warmstart.corpus.settings import CorpusSettings
from warmstart.foundation.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console


def _render(console: Console, result: Any) -> None:
    if isinstance(result, list):
        table(console, ("name", "kind"), [(row["name"], row["kind"]) for row in result])
        return
    pairs(
        console,
        {
            "name": result["name"],
            "language": result["language"],
            "fingerprint": result["fingerprint"],
            "documents": result["documents"],
            "bytes": size(result["bytes"]),
            "bytes per character": result["bytes_per_character"],
            "mean document": f"{result['mean_characters']:,.0f} characters",
            "longest document": f"{result['longest_characters']:,} characters",
            "duplicates": f"{result['duplicates']:.1%} of the documents",
            "scripts": ", ".join(f"{k} {v:.1%}" for k, v in list(result["scripts"].items())[:4])
            or "no letters",
        },
    )
    console.print()
    official = set(result["official_splits"])
    rows = [
        (name, count["documents"], size(count["bytes"]), "official" if name in official else "by hash")
        for name, count in result["splits"].items()
    ]
    table(console, ("split", "documents", "size", "divided"), rows)
    for sample in result["samples"]:
        console.print(f"\n{sample['id']} ({sample['split']})", markup=False, style="dim")
        console.print(sample["text"], markup=False)


@click.command(cls=SettingsCommand)
@click.option("--list", "listing", is_flag=True, help="List the named sets instead.")
@click.option(
    "--samples", type=click.IntRange(min=0), default=5, show_default=True, help="Documents to show."
)
@settings_options(CorpusSettings, arguments=("path",), name="make", lazy=True)
@prints(_render)
def command(make: Any, listing: bool, samples: int) -> Any:
    """Describe the corpus PATH: file, folder, named set such as `python-stdlib/docs`, or Hugging Face id."""
    if listing:
        from warmstart.corpus.named_set import datasets

        rows = []
        for entry in datasets:
            family = entry.target()
            for kind, members in (("corpus", family.corpora()), ("pairs", family.parallel())):
                rows += [{"name": f"{entry.name}/{m}" if m else entry.name, "kind": kind} for m in members]
        return rows
    settings = make()
    from warmstart.corpus import describe, open_corpus

    if not settings.path:
        raise UserError("no corpus was named", fix="give a path, or --list for the named sets")
    return describe(open_corpus(settings), samples=samples)
