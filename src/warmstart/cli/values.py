"""Values from the command line and from YAML files, put where their dotted keys say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from warmstart.foundation.errors import UserError


def apply_overrides(
    data: dict[str, Any], overrides: Sequence[str], words: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Put each `key.inner=value` of `--set` into `data`; the value is read as YAML."""
    import yaml

    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise UserError(
                f"--set needs key=value, got {text!r}", fix="write for example --set learning_rate=3e-4"
            )
        try:
            parsed = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UserError(
                f"the value of --set {key} is not YAML: {value!r}", fix="put it in quotes"
            ) from None
        put(data, tuple(key.strip().replace("-", "_").split(".")), scalar(parsed), words)
    return data


def put(
    data: dict[str, Any], path: Sequence[str], value: Any, words: Mapping[str, str] | None = None
) -> None:
    """Set `data[path[0]][path[1]]… = value`.

    A plain word on the way becomes a table: `initialiser: focus` with `initialiser.temperature=1` gives
    `{name: focus, temperature: 1}`; `words` names the key that the word fills where it is not `name`.
    """
    for key in path[:-1]:
        inner = data.get(key)
        if isinstance(inner, Mapping):
            inner = dict(inner)
        elif inner is None:
            inner = {}
        else:
            inner = {(words or {}).get(key, "name"): inner}
        data[key] = inner
        data = inner
    data[path[-1]] = value


def scalar(value: Any) -> Any:
    """`"1e6"` as a number: YAML 1.1 reads it as text because it has no dot."""
    if isinstance(value, list):
        return [scalar(v) for v in value]
    if isinstance(value, str) and value[:1] in "-+.0123456789":
        try:
            number = float(value)
        except ValueError:
            return value
        return int(number) if number.is_integer() else number
    return value


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds one table; anything else is a `UserError` with the line."""
    import yaml

    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        line = f"{path}, line {error.problem_mark.line + 1}" if error.problem_mark else path
        raise UserError(f"not valid YAML: {error.problem}", where=line, fix="mend that line") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise UserError("not a YAML text file", where=path, fix="give a file in UTF-8") from None
    except OSError as error:
        raise UserError(f"cannot read the file: {error.strerror}", where=path) from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise UserError(
            "the file does not hold a table of settings", where=path, fix="write `key: value` lines"
        )
    return {str(k): v for k, v in data.items()}
