"""The pinned versions install on the oldest Python that the project promises."""

import importlib.metadata
import re
import tomllib
from pathlib import Path

from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]


def test_every_pinned_package_accepts_the_oldest_python_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    oldest = re.search(r">=\s*(\d+\.\d+)", project["requires-python"]).group(1) + ".0"
    pinned = [
        line.split("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    ]
    assert pinned
    refuses = {}
    for name in pinned:
        try:
            requires = importlib.metadata.metadata(name).get("Requires-Python")
        except importlib.metadata.PackageNotFoundError:  # an extra that is not installed here
            continue
        if requires and not SpecifierSet(requires).contains(oldest):
            refuses[name] = requires
    assert refuses == {}
