"""Reference pages made from the code itself: commands, recipe steps, methods, systems, Python rooms."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import types
import typing
from typing import Any

import warmstart

REGISTRIES = {
    "initialiser": ("Initialisers of new rows", "warmstart.vocabulary.rows._base", "initialisers"),
    "objective": ("Training objectives", "warmstart.objectives", "objectives"),
    "schedule": ("Learning-rate schedules", "warmstart.training.schedule", "schedules"),
    "optimizer": ("Optimizers", "warmstart.training.optimizer", "optimizers"),
    "reader": ("Readers of text", "warmstart.corpus", "readers"),
    "width": ("Ways to widen a model", "warmstart.shape.width", "widths"),
    "depth": ("Ways to choose layers", "warmstart.shape.depth", "depths"),
    "growth": ("Ways to learn how a model grows", "warmstart.shape.learned", "growths"),
    "merge": ("Ways to merge models", "warmstart.shape.merge", "merges"),
    "wrap": ("Ways to remake linear maps of other parameters", "warmstart.shape.wrap", "wraps"),
    "importance": ("Importance of what may be cut", "warmstart.shape.importance", "importances"),
    "search": ("Ways to search for sub-networks", "warmstart.shape.search.ways", "searches"),
}


ROOMS = [
    module.name
    for module in pkgutil.iter_modules(warmstart.__path__)
    if module.ispkg and module.name != "cli"
]


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages to the site (called by mkdocs)."""
    from mkdocs.structure.files import File

    pages = {"tables": tables, "commands": commands, "steps": steps, "methods": methods, "systems": systems}
    for name, make in pages.items():
        files.append(File.generated(config, f"reference/{name}.md", content=make()))
    for name in ROOMS:
        files.append(File.generated(config, f"reference/python/{name}.md", content=room(name)))
    return files


def settings_table(settings: type) -> str:
    """Markdown table of a settings class: key, type, default, meaning."""
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for name, field in settings.model_fields.items():  # type: ignore[attr-defined]
        default = "required" if field.is_required() else f"`{field.get_default(call_default_factory=True)!r}`"
        meaning = " ".join((field.description or "").split()).replace("|", "\\|")
        rows.append(f"| `{name}` | {_type(field.annotation)} | {_cell(default)} | {meaning} |")
    return "\n".join(rows) if len(rows) > 2 else "No settings."


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ") if len(text) < 90 else "see the class"


def _type(annotation: Any) -> str:
    if annotation is type(None):
        return "none"
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return " or ".join(f"`{arg}`" for arg in args)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(_type(arg) for arg in args))
    if origin is typing.Annotated:
        return _type(args[0])
    if origin in (list, tuple, set):
        return f"list of {_type(args[0])}" if args else "list"
    if origin is dict:
        return "table"
    return getattr(annotation, "__name__", str(annotation)).replace("str", "text")


def commands() -> str:
    """Every command with its options, as `--help` prints them."""
    import click

    from warmstart.cli.app import app

    context = click.Context(app, info_name="warmstart")
    parts = ["# Commands\n", "Every command takes `--help`. The text below is the same.\n"]
    for name in app.list_commands(context):
        command = app.get_command(context, name)
        assert command is not None
        subcommands = {name: command}
        if isinstance(command, click.Group):
            subcommands = {f"{name} {sub}": command.commands[sub] for sub in sorted(command.commands)}
        for full, found in subcommands.items():
            text = found.get_help(click.Context(found, info_name=f"warmstart {full}"))
            parts.append(f"## warmstart {full}\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def steps() -> str:
    """Every step type of a recipe."""
    from warmstart.recipes.operations import operations

    parts = ["# Recipe steps\n", "The JSON schema for editors: `warmstart schema`.\n"]
    for entry in operations:
        parts.append(f"## `{entry.name}`\n\n{entry.summary}\n\n{settings_table(entry.settings)}\n")
    return "\n".join(parts)


def methods() -> str:
    """Every registered method of every kind."""
    parts = ["# Methods\n"]
    for heading, module, attribute in REGISTRIES.values():
        parts.append(f"## {heading}\n")
        for entry in getattr(importlib.import_module(module), attribute):
            source = f"*{entry.title}*" if entry.title else ""
            if entry.arxiv:
                source += f" ([arXiv {entry.arxiv}](https://arxiv.org/abs/{entry.arxiv}))"
            home = importlib.import_module(entry.target.__module__)
            target = f"::: {entry.target.__module__}.{entry.target.__qualname__}"
            if not hasattr(home, entry.target.__qualname__):  # made by a function: no name to look up
                target = inspect.getdoc(entry.target) or ""
            parts.append(f"### `{entry.name}`\n\n{source}\n\n{target}\n\n{settings_table(entry.settings)}\n")
    return "\n".join(parts)


def systems() -> str:
    """The catalogue with each system's true state."""
    from warmstart.recipes.catalogue import systems as rows

    lines = [
        "# Systems\n",
        "| n | system | room | state | verdict | scale | seeds | date |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows():
        measured = (row.verdict, row.scale, row.seeds, row.date)
        cells = (row.n, f"{row.name}: {row.title}", row.room, row.state, *measured)
        lines.append("| " + " | ".join("" if c is None else str(c).replace("|", "\\|") for c in cells) + " |")
    return "\n".join(lines)


def tables() -> str:
    """The filed tables of initialisers."""
    from warmstart.recipes.shipped_table import stored_tables
    from warmstart.recipes.table_result import shown

    parts = [
        "# Initialisers compared\n",
        "Made by `warmstart vocab table`; bits per byte of held-out text.\n",
    ]
    for result in stored_tables().values():
        parts.append(f"## Scale {result.scale}, {result.date}, {len(result.seeds)} seeds\n")
        for world in shown(result):
            rows = [world["columns"], ["---"] * len(world["columns"]), *world["rows"]]
            cells = [["" if cell is None else str(cell).replace("|", "\\|") for cell in row] for row in rows]
            lines = "\n".join("| " + " | ".join(row) + " |" for row in cells)
            parts.append(f"### {world['title']}\n\n{lines}\n\n" + "\n".join(f"- {n}" for n in world["note"]))
    return "\n".join(parts) + "\n"


def room(name: str) -> str:
    """Every module of one room, from its docstrings."""
    package = importlib.import_module(f"warmstart.{name}")
    modules = [f"warmstart.{name}"]
    for module in pkgutil.walk_packages(package.__path__, f"warmstart.{name}."):
        if not module.name.rpartition(".")[2].startswith("_"):
            modules.append(module.name)
    return f"# {name}\n\n" + "\n\n".join(f"::: {module}" for module in modules) + "\n"
