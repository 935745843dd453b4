"""Run the contract checks on the methods of a package, or on all methods here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from warmstart.cli.output import prints
from warmstart.cli.tables import table

if TYPE_CHECKING:
    from rich.console import Console


def _render(console: Console, result: dict[str, Any]) -> None:
    rows = [(m["kind"], m["method"], m["passed"], m["skipped"], m["failed"]) for m in result["methods"]]
    table(console, ("kind", "method", "passed", "skipped", "failed"), rows)
    for outcome in result["outcomes"]:
        if outcome["status"] != "passed":
            where = f"{outcome['kind']} {outcome['method']}: {outcome['name']}"
            console.print(f"{outcome['status']}: {where}: {outcome['reason']}", markup=False, soft_wrap=True)
    bad = sum(m["failed"] for m in result["methods"])
    console.print(f"{bad} checks failed." if bad else "All checks passed.")


@click.command()
@click.argument("package", required=False)
@click.option("--kind", help="Only methods of this kind, such as `initialiser`.")
@prints(_render, fails=lambda result: any(m["failed"] for m in result["methods"]))
def command(package: str | None, kind: str | None) -> dict[str, Any]:
    """Apply the contract checks to every method that the installed PACKAGE adds, or to all methods.

    Packages add methods through entry points in the groups `warmstart.<kind>`. Exit code 1: a check failed.
    """
    from dataclasses import asdict

    from warmstart.foundation.contracts import from_distribution, load_entry, run_checks, suites
    from warmstart.foundation.errors import UserError, nearest

    known = suites()
    if kind and kind not in known:
        raise UserError(f"there is no kind of method {kind!r}", fix=nearest(kind, known))
    if package:
        chosen = from_distribution(package)
    else:
        chosen = [(name, method) for name, suite in known.items() for method in suite.registry.names()]
    methods, outcomes = [], []
    for name, method in chosen:
        if kind and name != kind:
            continue
        entry, broken = load_entry(name, method)
        found = [broken] if broken else run_checks(name, entry) if entry else []
        counts = {s: sum(o.status == s for o in found) for s in ("passed", "skipped", "failed")}
        methods.append({"kind": name, "method": method, **counts})
        outcomes += [asdict(outcome) for outcome in found]
    return {"methods": methods, "outcomes": outcomes}
