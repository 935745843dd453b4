from __future__ import annotations

import ast
import typing
from pathlib import Path

import warmstart
from warmstart.foundation.tasks import Task

SOURCES = Path(warmstart.__file__).parent


def test_the_tasks_are_spelt_out_in_one_place() -> None:
    names = set(typing.get_args(Task))
    found = []
    for file in sorted(SOURCES.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Literal":
                parts = {part.value for part in ast.walk(node.slice) if isinstance(part, ast.Constant)}
                if parts == names:
                    found.append(file.relative_to(SOURCES).as_posix())
    assert found == ["foundation/tasks.py"]
