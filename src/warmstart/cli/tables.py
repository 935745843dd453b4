"""Small helpers that show plain data to a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from warmstart.foundation.wording import plain

if TYPE_CHECKING:
    from rich.console import Console
    from rich.tree import Tree


def table(
    console: Console, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, title: str = ""
) -> None:
    """Print a table; numbers to the right, everything escaped."""
    from rich.markup import escape
    from rich.table import Table

    shown = Table(
        title=title or None,
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
        show_header=any(columns),
    )
    for index, name in enumerate(columns):
        cells = [row[index] for row in rows]
        numeric = bool(cells) and all(isinstance(c, int | float) or c in ("", None, "–") for c in cells)
        shown.add_column(name, justify="right" if numeric else "left", header_style="dim", overflow="fold")
    for row in rows:
        shown.add_row(*(escape(text(cell)) for cell in row))
    console.print(shown)


def pairs(console: Console, values: Mapping[str, Any], *, title: str = "") -> None:
    """Print names and values, one per line."""
    rows = [(str(name).replace("_", " "), text(value)) for name, value in values.items()]
    table(console, ("", ""), rows, title=title)


def text(value: Any) -> str:
    """A cell: whole numbers with thousands, fractions with four digits that matter, nothing as a dash."""
    return plain(value, spaced_keys=True)


def size(count: float) -> str:
    """Bytes in the unit that a person would use."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def tree(label: str, lineage: Mapping[str, Any]) -> Tree:
    """The parents of a checkpoint as a tree, from its lineage record."""
    from rich.markup import escape
    from rich.tree import Tree

    root = Tree(escape(label))
    _grow(root, lineage)
    return root


def _grow(node: Tree, lineage: Mapping[str, Any]) -> None:
    from rich.markup import escape

    data = ", ".join(lineage.get("data") or {})
    step = node.add(
        f"[bold]{escape(str(lineage.get('operation', '?')))}[/bold]" + (f" on {escape(data)}" if data else "")
    )
    for parent in lineage.get("parents") or []:
        name = parent.get("hub_id") or parent.get("name") or "?"
        role = f" [dim]({escape(parent['role'])})[/dim]" if parent.get("role") else ""
        child = step.add(
            f"{escape(str(name))} [dim]{escape(str(parent.get('fingerprint', ''))[:12])}[/dim]{role}"
        )
        if parent.get("lineage"):
            _grow(child, parent["lineage"])
