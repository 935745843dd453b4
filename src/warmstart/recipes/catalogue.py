"""The catalogue: all 184 published systems and the true state of each one here."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from warmstart.foundation.errors import UserError, nearest
from warmstart.recipes.reproduce import results_folders, system_files

State = Literal["not built", "runs", "measured"]
STATES: tuple[State, ...] = ("not built", "runs", "measured")


class System(BaseModel):
    """One row of the catalogue."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    n: int
    """Number of the system."""
    name: str
    """Short name."""
    title: str
    """Title of the publication."""
    room: str
    """Folder of `warmstart` that it belongs to."""
    state: State
    """`not built`, `runs` (its claim can be run here) or `measured` (it was, at scale small or full)."""
    verdict: str | None = None
    """`reproduced`, `partly` or `not reproduced`; None until measured."""
    scale: str | None = None
    """Scale of the measurement."""
    date: str | None = None
    """ISO date of the measurement."""
    seeds: int | None = None
    """How many seeds it was measured with."""
    sentence: str | None = None
    """The outcome in one sentence."""
    reproduction: str | None = None
    """Name to give to `warmstart reproduce`."""
    result: str | None = None
    """File with all numbers, relative to the results folder's parent."""


@cache
def _published() -> list[dict[str, Any]]:
    return json.loads((Path(__file__).parent / "systems.json").read_text(encoding="utf-8"))


@cache
def _reproductions() -> dict[int, str]:
    """System number -> reproduction name; a file name starts with its number, further ones are inside."""
    from warmstart.recipes.schema import load_recipe

    found: dict[int, str] = {}
    for name, path in system_files().items():
        for number in {int(path.stem[:3]), *load_recipe(path).systems}:
            found.setdefault(number, name)
    return found


def _results() -> dict[int, dict[str, Any]]:
    """System number -> its most telling result: full before small, then the newest."""
    found: dict[int, dict[str, Any]] = {}
    rank = {"full": 2, "small": 1}
    for path in (path for folder in results_folders() for path in sorted(folder.glob("*.json"))):
        data = json.loads(path.read_text(encoding="utf-8"))
        if data.get("scale") not in rank:
            continue
        entry = data | {"file": f"{path.parent.name}/{path.name}"}
        for number in data.get("systems", []):
            known = found.get(number)
            if known is None or (rank[data["scale"]], data["date"]) > (rank[known["scale"]], known["date"]):
                found[number] = entry
    return found


def systems(*, search: str = "", room: str = "", state: str = "") -> list[System]:
    """Rows of the catalogue in order of number.

    Args:
        search: Words that must all occur in name or title, case ignored.
        room: Keep one room.
        state: Keep one state.
    """
    rooms = {row["room"] for row in _published()}
    if room and room not in rooms:
        raise UserError(f"no room is called {room!r}", fix=nearest(room, rooms))
    if state and state not in STATES:
        raise UserError(f"no state is called {state!r}", fix=nearest(state, STATES))
    results, built = _results(), _reproductions()
    rows = []
    for row in _published():
        number = row["n"]
        result = results.get(number) if number in built else None
        found = System(
            n=number,
            name=row["name"],
            title=row["title"],
            room=row["room"],
            state="measured" if result else "runs" if number in built else "not built",
            reproduction=built.get(number),
            **(
                {
                    "verdict": result["verdict"],
                    "scale": result["scale"],
                    "date": result["date"],
                    "seeds": len(result["seeds"]),
                    "sentence": result["sentence"],
                    "result": result["file"],
                }
                if result
                else {}
            ),
        )
        text = f"{found.n} {found.name} {found.title}".lower()
        if (
            all(word in text for word in search.lower().split())
            and room in ("", found.room)
            and state in ("", found.state)
        ):
            rows.append(found)
    return rows
