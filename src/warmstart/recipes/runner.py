"""Runs recipes: each step once, kept under the hash of everything it depends on, resumed after a kill."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from warmstart.checkpoint.sources import CHECKPOINT_SETTINGS
from warmstart.foundation.errors import UserError
from warmstart.foundation.events import EventLog
from warmstart.foundation.files import (
    atomic_folder,
    cache_home,
    existing,
    forget_empty,
    lock,
    missing_folders,
    sha256,
    sweep,
    unless_refused,
    write_atomic,
)
from warmstart.foundation.progress import note
from warmstart.foundation.settings import Settings, digest
from warmstart.recipes.operations import operations
from warmstart.recipes.schema import Recipe, parse_step, substitute
from warmstart.recipes.versions import later_versions

_LABELLED = ("labelled", "transfer", "labels")
"""Settings that name labelled texts."""


class Runner:
    """Executes steps and remembers their artifacts.

    A step's folder is `<cache>/<type>-<hash>`, the hash covering the operation, its code version, those of
    the initialisers, objectives and optimizers that it uses, all its settings (but for defaults of fields
    that were added later) and the content of everything they name: artifacts of other steps, files, folders
    and corpora.
    A changed step reruns and the rest does not. `step.json` is written last; without it the step is taken
    up again in the same folder.

    Args:
        cache: Folder of all steps; shared between runs.
        events: Log that is told about each step.
    """

    def __init__(self, cache: Path | None = None, events: EventLog | None = None) -> None:
        self.cache = (cache or cache_home() / "steps").absolute()
        self.events = events
        self._fingerprints: dict[str, str] = {}

    def step(self, kind: str, settings: Mapping[str, Any] | Settings, *, name: str = "") -> Path:
        """Run one operation, or take its artifact from the cache; returns the artifact's path."""
        entry = operations.get(kind)
        plain = settings.model_dump(exclude_unset=True) if isinstance(settings, Settings) else settings
        parsed = entry.settings.parse(self.with_sources(plain), where=name or kind)
        if "pointer" in entry.tags:
            found = entry.target(parsed, self.cache, self)
            if found is None:
                raise RuntimeError(f"operation {kind!r} points at nothing")
            return found
        code = {"version": entry.version} | ({"methods": later} if (later := later_versions(parsed)) else {})
        key = digest({"operation": kind, "settings": self.fingerprint(parsed)} | code)
        folder = self.cache / f"{kind}-{key}"
        output, record = folder / "output", folder / "step.json"
        if record.is_file() and output.exists():
            self._log("step", name=name, type=kind, key=key, cached=True)
            with contextlib.suppress(OSError):  # `warmstart cache` tells by it what is still in use
                record.touch()
            return output
        label = name or kind
        note(f"[bold]{label}[/bold] ({kind})" if label != kind else f"[bold]{kind}[/bold]")
        with lock(folder, what=f"step {label!r}"):
            sweep(folder)
            started = time.perf_counter()
            try:
                entry.target(parsed, folder, self)
            except UserError:
                forget_empty(folder)
                raise
            if not output.exists():
                raise RuntimeError(f"operation {kind!r} left no output in {folder}")
            seconds = round(time.perf_counter() - started, 3)
            described = {
                "type": kind,
                "key": key,
                "settings": parsed.model_dump(mode="json"),
                "seconds": seconds,
            }
            write_atomic(record, json.dumps(described, indent=1, ensure_ascii=False))
            shutil.rmtree(folder / "run" / "checkpoints", ignore_errors=True)  # only to take up a killed step
        self._log("step", name=name, type=kind, key=key, cached=False, seconds=seconds)
        return output

    def with_sources(self, value: Any, key: str = "") -> Any:
        """`value` with each named source (where a checkpoint is asked for) replaced by its artifact."""
        from warmstart.recipes.sources import build_source, is_named_source

        if isinstance(value, Mapping):
            return {name: self.with_sources(item, str(name)) for name, item in value.items()}
        if isinstance(value, list):
            return [self.with_sources(item) for item in value]
        if key in CHECKPOINT_SETTINGS and isinstance(value, str) and is_named_source(value):
            return str(build_source(value, self))
        return value

    def fingerprint(self, value: Any, key: str = "") -> Any:
        """`value` with everything it names on disk replaced by the hash of its content."""
        from warmstart.corpus import CorpusSettings, open_corpus, open_pairs
        from warmstart.corpus.labelled import labelled_fingerprint, labelled_names

        if key in _LABELLED and isinstance(value, str) and value in labelled_names():
            if (known := f"labelled {value}") not in self._fingerprints:
                self._fingerprints[known] = labelled_fingerprint(value)
            return {"labelled": self._fingerprints[known]}
        if key in ("dictionary", "parallel") and isinstance(value, str):
            return {"pairs": open_pairs(value).fingerprint}
        if isinstance(value, CorpusSettings):
            key = value.digest()
            if key not in self._fingerprints:
                self._fingerprints[key] = open_corpus(value).fingerprint
            return {"corpus": self._fingerprints[key]}
        if isinstance(value, Settings):
            given = {name: getattr(value, name) for name in type(value).model_fields}
            unasked = {name for name, default in value.added_later().items() if given[name] == default}
            return {name: self.fingerprint(v, name) for name, v in given.items() if name not in unasked}
        if isinstance(value, Mapping):
            return {str(name): self.fingerprint(item, str(name)) for name, item in value.items()}
        if isinstance(value, list | tuple):  # a token such as "/" in a list names no folder
            plain = [isinstance(item, str) and not item.strip("./~") for item in value]
            return [item if skip else self.fingerprint(item) for item, skip in zip(value, plain)]
        if isinstance(value, str | Path):
            return self._content(str(value))
        return value

    def _content(self, text: str) -> str:
        found = None if "\n" in text or len(text) > 1024 else existing(text)
        if found is None:
            return text
        path = found.absolute()
        if self.cache in path.parents:  # another step: its folder's name is the hash of all it depends on
            return str(path.relative_to(self.cache))
        if text not in self._fingerprints:
            files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
            names = {str(p.relative_to(path)) if path.is_dir() else p.name: sha256(p) for p in files}
            self._fingerprints[text] = f"content:{digest(names)}"
        return self._fingerprints[text]

    def _log(self, event: str, **fields: Any) -> None:
        if self.events:
            self.events.append(event, **fields)


def run_folder(recipe: Recipe, parent: Path) -> Path:
    """`<parent>/<name>-<hash of the resolved recipe>`."""
    return parent / f"{recipe.name}-{recipe.digest()[:8]}"


def run_recipe(
    recipe: Recipe, folder: Path, *, only: str | None = None, cache: Path | None = None
) -> dict[str, Path]:
    """Run a recipe's steps in order inside a run folder.

    The folder receives `recipe.yaml` as resolved, `events.jsonl`, every artifact under `checkpoints/<step>`
    (hard links where the file system allows), and `result.json` and `report.html` of the step that compares.

    Args:
        recipe: Already scaled and overridden.
        folder: Run folder; a second process on the same folder is refused. A new one goes again where the
            input is refused before any step is done.
        only: Run just this step and what it needs.
        cache: Where step artifacts live; the user's cache by default.

    Returns:
        Step name -> path of its artifact.
    """
    recipe.validate_steps()
    if only is not None and only not in recipe.steps:
        raise UserError(
            f"no step {only!r}", where=recipe.name, fix="choose one of " + ", ".join(recipe.steps)
        )
    made = missing_folders(folder)
    with lock(folder), unless_refused(made) as kept:
        sweep(folder)
        plain = yaml.safe_dump(
            recipe.model_dump(mode="json", exclude_defaults=True), sort_keys=False, allow_unicode=True
        )
        write_atomic(folder / "recipe.yaml", plain)
        events = EventLog(folder / "events.jsonl")
        runner = Runner(cache, events)
        done: dict[str, Path] = {}
        for name in recipe.order(only):
            step = substitute(recipe.steps[name], {key: str(path) for key, path in done.items()})
            kind, settings = parse_step(step, where=f"{recipe.name}: {name}")
            done[name] = runner.step(kind, settings, name=name)
            publish(done[name], folder / "checkpoints" / name)
            kept.set()
        outcome = done[only or recipe.outcome]
        for file in ("result.json", "report.html"):
            if (outcome / file).is_file():
                write_atomic(folder / file, (outcome / file).read_bytes())
        return done


def publish(artifact: Path, target: Path) -> None:
    """Make `artifact` appear as `target` without a second copy of its bytes where the disk allows."""
    if target.is_symlink() or target.exists():
        if (target / ".artifact").is_file() and (target / ".artifact").read_text() == str(artifact):
            return
        shutil.rmtree(target)
    with atomic_folder(target) as temporary:
        for file in artifact.rglob("*"):
            place = temporary / file.relative_to(artifact)
            if file.is_dir():
                place.mkdir(parents=True, exist_ok=True)
            elif file.is_file():
                place.parent.mkdir(parents=True, exist_ok=True)
                _link(file, place)
        (temporary / ".artifact").write_text(str(artifact))


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def describe_steps(recipe: Recipe) -> Sequence[dict[str, str]]:
    """What a run would do, without doing it: one row per step in order."""
    recipe.validate_steps()
    return [
        {
            "step": name,
            "type": recipe.steps[name]["type"],
            "summary": operations.get(recipe.steps[name]["type"]).summary,
        }
        for name in recipe.order()
    ]
