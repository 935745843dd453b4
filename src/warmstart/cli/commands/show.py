"""Show what a checkpoint is: family, sizes, tokenizer, lineage, risks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from warmstart.cli.output import prints
from warmstart.cli.tables import pairs, size, table, text, tree

if TYPE_CHECKING:
    from rich.console import Console


def _render(console: Console, found: dict[str, Any]) -> None:
    from rich.markup import escape

    console.print(f"[bold]{escape(str(found['name']))}[/bold]  [dim]{escape(str(found['path']))}[/dim]")
    total = found["parameters"].get("total", 0)
    dtypes = ", ".join(found["dtypes"])
    facts = {
        "architecture": f"{found['family']} ({found['architecture'] or 'not stated'}), {found['task']}",
        "parameters": f"{total:,}, {size(found['bytes'])} in {found['shards']} file(s), {dtypes}",
        "per token": f"{active:,} parameters are used"
        if (active := found["parameters"].get("active"))
        else None,
        "vocabulary": f"{text(found['rows'])} rows, head {'tied' if found['tied'] else 'separate'}",
        "context": f"{found['context_length']:,} tokens" if found["context_length"] else None,
        "hub id": found["hub_id"],
        "revision": found["revision"],
        "licence": found["license"],
    }
    pairs(console, {key: value for key, value in facts.items() if value})
    console.print()
    parts = {k: n for k, n in found["parameters"].items() if k not in ("total", "non_embedding", "active")}
    rows = [(part, n, f"{n / max(1, total):.1%}") for part, n in parts.items()]
    table(console, ("part", "parameters", "share"), rows)
    if found["tokenizer"]:
        console.print()
        pairs(console, _tokenizer(found["tokenizer"]), title="Tokenizer")
    if found["lineage"]:
        console.print()
        console.print(tree(str(found["name"]), found["lineage"]))
    console.print()
    for risk in found["risks"]:
        console.print(f"[yellow]risk[/yellow] {escape(risk)}")
    if not found["risks"]:
        console.print("no risks found")


def _tokenizer(found: dict[str, Any]) -> dict[str, Any]:
    special = {
        role: f"{entry['token']} {text(entry['id'])}" if isinstance(entry, dict) else entry
        for role, entry in found.get("special", {}).items()
    }
    rest = {k: v for k, v in found.items() if k != "special" and v not in (None, "", {}, [], False)}
    return rest | {"special": ", ".join(f"{role} {token}" for role, token in special.items())}


@click.command()
@click.argument("checkpoint")
@click.option("--revision", help="Branch, tag or commit on the hub.")
@click.option("--trust-remote-code", is_flag=True, help="Accept a checkpoint that brings code.")
@prints(_render)
def command(checkpoint: str, revision: str | None, trust_remote_code: bool) -> dict[str, Any]:
    """Show what CHECKPOINT (folder, hub id, name@revision, named source) is, without reading its weights."""
    import warmstart.recipes.sources  # noqa: F401  named sources become known to `resolve`
    from warmstart.checkpoint import inspect, resolve

    found = resolve(checkpoint, revision=revision, trust_remote_code=trust_remote_code, scan=False)
    return inspect(found, trust_remote_code=trust_remote_code)
