"""New tokens that the settings list, or a file."""

from __future__ import annotations

from pathlib import Path

from warmstart.foundation.errors import UserError
from warmstart.vocabulary.settings_forge import ExtendSettings


def given_tokens(settings: ExtendSettings) -> list[str]:
    """The tokens of the settings, or of the file that they name.

    Raises:
        UserError: For a file that is not there, not UTF-8 or empty.
    """
    if settings.tokens_file is None:
        return settings.tokens
    path = Path(settings.tokens_file).expanduser()
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise UserError(f"the file of tokens cannot be read: {error.strerror}", where=path) from None
    except UnicodeDecodeError:
        raise UserError("the file of tokens is not UTF-8", where=path, fix="save it as UTF-8") from None
    found = [line.removesuffix("\r") for line in lines if line.strip()]
    if not found:
        raise UserError("the file of tokens is empty", where=path, fix="write one token per line")
    return found
