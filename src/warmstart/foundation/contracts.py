"""Contract checks: what every method of a kind must do, written once and applied to all of them.

A room declares the checks of its kinds in its `_contracts.py`:

    initialiser_checks = Suite("initialiser", initialisers)

    @initialiser_checks.check(tags=("mix",))
    def rows_sum_to_one(entry): ...

A check applies to a method that has all of the check's tags. A method may leave out a check only by naming
it in `skips` of its registration together with the reason. Methods that other packages add through entry
points get the same checks (`warmstart check PACKAGE`).
"""

from __future__ import annotations

import importlib
import pkgutil
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

import warmstart
from warmstart.foundation.errors import UserError, nearest
from warmstart.foundation.registry import Entry, Registry
from warmstart.foundation.settings import Settings

T = TypeVar("T")
CheckFunction = Callable[[Entry[T]], None]
_suites: dict[str, Suite[Any]] = {}


@dataclass(frozen=True)
class CheckOutcome:
    """What one check said about one method."""

    kind: str
    method: str
    name: str
    status: Literal["passed", "skipped", "failed"]
    reason: str = ""
    """Why it was skipped, or what failed."""


@dataclass(frozen=True)
class Check(Generic[T]):
    """One check: raises on a method that breaks the contract, returns for one that keeps it."""

    name: str
    run: CheckFunction[T]
    tags: frozenset[str] = frozenset()

    @property
    def summary(self) -> str:
        """First line of the docstring."""
        return (self.run.__doc__ or "").strip().split("\n")[0]


@dataclass
class Suite(Generic[T]):
    """All checks of one kind of method; making one files it under its kind.

    Attributes:
        kind: Singular noun, as in the registry.
        registry: The methods.
        checks: The kind's own checks, after the ones that every kind has.
    """

    kind: str
    registry: Registry[T]
    checks: list[Check[T]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.checks = [Check(name, run) for name, run in _COMMON.items()]
        _suites[self.kind] = self

    def check(
        self, *, tags: Iterable[str] = (), name: str | None = None
    ) -> Callable[[CheckFunction[T]], CheckFunction[T]]:
        """Decorator that adds a check.

        Args:
            tags: A method has the check when it has all of these tags; every method when empty.
            name: Name in reports and in `skips`; the function's name with dashes by default.
        """

        def decorate(function: CheckFunction[T]) -> CheckFunction[T]:
            label = name or function.__name__.replace("_", "-")
            if any(known.name == label for known in self.checks):
                raise ValueError(f"there are two checks {label!r} for the kind {self.kind!r}")
            self.checks.append(Check(label, function, frozenset(tags)))
            return function

        return decorate

    def applicable(self, entry: Entry[T]) -> list[Check[T]]:
        """The checks that the method's tags call for, in order."""
        return [check for check in self.checks if check.tags <= entry.tags]

    def run(self, entry: Entry[T]) -> list[CheckOutcome]:
        """Apply every applicable check; a check that raises anything has failed."""
        outcomes = [self._one(check, entry) for check in self.applicable(entry)]
        known = {check.name for check in self.checks}
        for name in sorted(entry.skips.keys() - known):
            reason = f"`skips` names a check that does not exist; {nearest(name, known)}"
            outcomes.append(CheckOutcome(self.kind, entry.name, name, "failed", reason))
        return outcomes

    def _one(self, check: Check[T], entry: Entry[T]) -> CheckOutcome:
        if check.name in entry.skips:
            reason = entry.skips[check.name].strip()
            if len(reason.split()) < 3:
                return self._outcome(check, entry, "failed", "it is skipped without a written reason")
            return self._outcome(check, entry, "skipped", reason)
        try:
            check.run(entry)
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            text = (
                " ".join(f"{type(error).__name__}: {error}".split()) if str(error) else type(error).__name__
            )
            where = f"{place.filename.rsplit('/', 1)[-1]}:{place.lineno}"
            return self._outcome(check, entry, "failed", f"{text} ({where})")
        return self._outcome(check, entry, "passed", "")

    def _outcome(
        self, check: Check[T], entry: Entry[T], status: Literal["passed", "skipped", "failed"], reason: str
    ) -> CheckOutcome:
        return CheckOutcome(self.kind, entry.name, check.name, status, reason)


def suites() -> dict[str, Suite[Any]]:
    """Kind -> suite, from the `_contracts.py` of every room."""
    for room in pkgutil.iter_modules(warmstart.__path__, "warmstart."):
        if room.ispkg:
            package = importlib.import_module(room.name)
            if any(m.name == "_contracts" for m in pkgutil.iter_modules(package.__path__)):
                importlib.import_module(f"{room.name}._contracts")
    return dict(sorted(_suites.items()))


def run_checks(kind: str, entry: Entry[Any]) -> list[CheckOutcome]:
    """Apply the checks of `kind` to one method."""
    known = suites()
    if kind not in known:
        raise UserError(f"there are no checks for the kind {kind!r}", fix=nearest(kind, known))
    return known[kind].run(entry)


def from_distribution(distribution: str) -> list[tuple[str, str]]:
    """Kind and name of every method that an installed package adds; one without any is a `UserError`."""
    from importlib import metadata

    try:
        wanted = metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        names = {str(d.name) for d in metadata.distributions()}
        raise UserError(
            f"the package {distribution!r} is not installed", fix=nearest(distribution, names)
        ) from None
    known = suites()
    found: list[tuple[str, str]] = []
    for point in wanted.entry_points:
        if point.group.startswith("warmstart."):
            kind = point.group.removeprefix("warmstart.")
            if kind not in known:
                raise UserError(
                    f"the entry-point group {point.group!r} names no kind of method",
                    where=wanted.name,
                    fix=nearest(kind, known),
                )
            found.append((kind, point.name))
    if not found:
        raise UserError(
            f"the package {distribution!r} adds no methods",
            fix="declare entry points in a group such as 'warmstart.initialiser'",
        )
    return sorted(found)


def load_entry(kind: str, name: str) -> tuple[Entry[Any] | None, CheckOutcome | None]:
    """Load one method; a file that cannot be imported, or registers another name, is a failed outcome."""
    try:
        return suites()[kind].registry.get(name), None
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        return None, CheckOutcome(kind, name, "loads", "failed", text)


def _has_a_docstring(entry: Entry[Any]) -> None:
    """A docstring that stands alone: what it does in the first sentence."""
    text = (entry.target.__doc__ or "").strip()
    assert text, "there is no docstring"
    first = text.split("\n\n")[0]
    assert len(first.split()) >= 3, f"the first sentence says too little: {first!r}"
    assert text.split("\n")[0] == text.split("\n")[0].strip(), "the first line is empty"


def _names_its_source(entry: Entry[Any]) -> None:
    """A title, and an arXiv identifier of the right form where there is one."""
    import re

    assert entry.title or entry.arxiv, "neither `title` nor `arxiv` says where the method comes from"
    if entry.arxiv:
        assert re.fullmatch(r"\d{4}\.\d{4,5}|[a-z-]+/\d{7}", entry.arxiv), f"not an arXiv id: {entry.arxiv!r}"


def _has_a_plain_name(entry: Entry[Any]) -> None:
    """Lower case with dashes, so that one word serves YAML, command line, headings and test ids."""
    import re

    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", entry.name), (
        f"{entry.name!r} is not lower-case-with-dashes"
    )


def _documents_its_settings(entry: Entry[Any]) -> None:
    """Each option has a description and there are defaults that work, or the option is required."""
    for name, option in entry.settings.model_fields.items():
        assert option.description, f"the option {name!r} has no description"
    if all(not option.is_required() for option in entry.settings.model_fields.values()):
        default = entry.settings.parse({})
        assert entry.settings.parse(default.model_dump(mode="json")) == default, (
            "defaults do not survive YAML"
        )
    entry.settings.model_json_schema()


def _refuses_unknown_settings(entry: Entry[Any]) -> None:
    """An unknown key is a `UserError` that names it."""
    assert issubclass(entry.settings, Settings), "the settings class is not a warmstart Settings"
    try:
        entry.settings.parse({"no_such_option_anywhere": 1})
    except UserError as error:
        assert "no_such_option_anywhere" in error.sentence or "required" in error.sentence, error.sentence
    else:
        raise AssertionError("an unknown option was accepted")


_COMMON: dict[str, CheckFunction[Any]] = {
    "has-a-docstring": _has_a_docstring,
    "names-its-source": _names_its_source,
    "has-a-plain-name": _has_a_plain_name,
    "documents-its-settings": _documents_its_settings,
    "refuses-unknown-settings": _refuses_unknown_settings,
}
