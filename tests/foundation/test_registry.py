from __future__ import annotations

import sys
from pathlib import Path

import pytest

from warmstart.foundation.errors import UserError
from warmstart.foundation.registry import Registry


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    package = tmp_path / "plants"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from warmstart.foundation.registry import Registry\nplants = Registry('plant', 'plants')\n"
    )
    (package / "_base.py").write_text("")
    (package / "red_rose.py").write_text(
        "from plants import plants\n@plants.register('red-rose', tags=('flower',), version=3)\n"
        "def red_rose():\n    '''A rose.\n\n    More.'''\n"
    )
    (package / "broken.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [m for m in sys.modules if m == "plants" or m.startswith("plants.")]:
        monkeypatch.delitem(sys.modules, name)
    import plants  # type: ignore[import-not-found]

    return plants.plants


def test_names_are_known_without_importing_methods(folder: Registry) -> None:
    assert folder.names() == ["broken", "red-rose"]
    assert "plants.red_rose" not in sys.modules


def test_getting_a_method_imports_only_its_file(folder: Registry) -> None:
    entry = folder.get("red-rose")
    assert (entry.summary, entry.version, entry.tags) == ("A rose.", 3, frozenset({"flower"}))
    assert "plants.broken" not in sys.modules


def test_an_unknown_name_gets_the_nearest_one(folder: Registry) -> None:
    with pytest.raises(UserError, match=r"unknown plant .red-ros.*did you mean .red-rose"):
        folder.get("red-ros")


def test_two_methods_cannot_share_a_name(folder: Registry) -> None:
    folder.get("red-rose")
    with pytest.raises(ValueError, match="registered twice"):

        @folder.register("red-rose")
        def other() -> None: ...
