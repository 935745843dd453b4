"""Errors for people: one sentence that says what is wrong, where, and how to mend it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input. The command line prints it as one sentence and exits with code 2, without a traceback.

    Args:
        what: What is wrong, with the observed value.
        where: File, key or step in which it was seen.
        fix: What the person can do about it.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: object = None, fix: str | None = None) -> None:
        self.what, self.where, self.fix = what.rstrip("."), None if where is None else str(where), fix
        super().__init__(self.sentence)

    @property
    def sentence(self) -> str:
        """The whole message on one line."""
        place = f" (in {self.where})" if self.where else ""
        mend = f"; {self.fix.rstrip('.')}" if self.fix else ""
        text = " ".join(f"{self.what}{place}{mend}".split())
        return text if text.endswith(("?", "…")) else f"{text}."

    def __reduce__(self) -> tuple[object, ...]:  # keyword-only arguments survive a process boundary
        return (_rebuild, (type(self), self.what, self.where, self.fix))


def _rebuild(cls: type[UserError], what: str, where: str | None, fix: str | None) -> UserError:
    return cls(what, where=where, fix=fix)


class MissingExtra(UserError):
    """An optional package is needed and not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}",
            fix=f"install it with: pip install 'warmstart[{extra}]'",
        )

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (UserError, self.what, self.where, self.fix))


def nearest(word: str, options: Iterable[str]) -> str:
    """A hint naming the closest option to `word`, or all options where there are few, for use in `fix`."""
    choices = sorted(set(options))
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.55)
    if close:
        return f"did you mean {close[0]!r}?"
    if len(choices) <= 24:
        return "choose one of " + ", ".join(choices)
    return f"there are {len(choices)} choices, none close to it"
