"""The model to make, from the sizes that a person names by their configuration keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from warmstart.anatomy import Anatomy, anatomy_of
from warmstart.anatomy.expressions import evaluate, variables
from warmstart.foundation.errors import UserError, nearest

_FARTHEST = 256


def target_anatomy(
    old: Anatomy, to: Mapping[str, int], *, follow: Mapping[str, str] | None = None
) -> Anatomy:
    """The anatomy of the same model class with other sizes.

    What is not named stays: a Llama keeps the size of its heads when its hidden size changes. Where the class
    derives the size of a head from the hidden size (GPT-2, BERT), and the number of heads is not named, heads
    keep their size if that leaves a whole number of them; otherwise their number.

    Args:
        old: The model that exists.
        to: Configuration keys, such as `hidden_size`, and their new values.
        follow: Keys that take the new value of another one where they are not named themselves.

    Raises:
        UserError: A key that says nothing about the shape, or sizes that the class cannot have; then with the
            nearest that it can.
    """
    known = [key for key in old.table.config if key != _vocabulary_key(old)]
    for key, value in to.items():
        if key == _vocabulary_key(old):
            raise UserError(
                f"{key} belongs to the tokenizer", where="shape", fix="give it another with `transplant`"
            )
        if key not in known:
            raise UserError(f"{key!r} is no size of a {old.model_type}", fix=nearest(key, known))
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UserError(f"{key} must be a positive whole number, got {value!r}")
    try:
        return _built(old, _followed(to, follow))
    except UserError as error:
        near = _neighbours(old, to, follow)
        wish = ", ".join(f"{key} = {value}" for key, value in to.items())
        raise UserError(
            f"a {old.model_type} like this cannot have {wish}" if near else error.what, fix=near or error.fix
        ) from None


def possible_anatomy(
    old: Anatomy, to: Mapping[str, int], *, follow: Mapping[str, str] | None = None
) -> Anatomy | None:
    """As [`target_anatomy`][warmstart.shape.target.target_anatomy] for known keys; None for sizes that the
    class cannot have."""
    try:
        return _built(old, _followed(to, follow))
    except UserError:
        return None


def _vocabulary_key(old: Anatomy) -> str:
    return next((key for key, size in old.table.config.items() if size == "V"), "")


def _built(old: Anatomy, to: Mapping[str, int]) -> Anatomy:
    written = old.config_updates()  # what the class derives, written out
    changed = {**_heads_for(old, to), **to}
    config = {**old.config, **written, **changed}
    for key in old.table.per_layer_keys:  # lists of one entry per layer follow the layers later
        config.pop(key, None)
    new = anatomy_of(config, tied=old.tied)
    _check_class(config)
    for key, value in changed.items():
        names = {**new.names, **new.sizes, **{f"layers_{stack}": n for stack, n in new.layers.items()}}
        if evaluate(new.table.config[key], names) != value:
            raise UserError(f"a {old.model_type} of these sizes cannot have {key} = {value}")
    return new


def _check_class(config: Mapping[str, Any]) -> None:
    """Let transformers' own configuration class refuse what its models cannot be built from."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    plain = {key: value for key, value in config.items() if key != "model_type"}
    try:
        AutoConfig.for_model(str(config["model_type"]), **plain)
    except (StrictDataclassError, ValueError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise UserError(reason.removeprefix("ValueError: ").rstrip(".")) from None


def _heads_for(old: Anatomy, to: Mapping[str, int]) -> dict[str, int]:
    """The number of heads that keeps their size, where the class derives it from the hidden size."""
    width = next((key for key, size in old.table.config.items() if size == "H"), "")
    heads = next((key for key, size in old.table.config.items() if size == "h"), "")
    derived = "e" not in old.table.config.values() and width in variables(old.table.axes["e"].size)
    if not derived or width not in to or heads in to or not heads or to[width] % old.sizes["e"]:
        return {}
    return {heads: to[width] // old.sizes["e"]}


def _followed(to: Mapping[str, int], follow: Mapping[str, str] | None) -> dict[str, int]:
    return {key: to[leader] for key, leader in (follow or {}).items() if leader in to} | dict(to)


def _neighbours(old: Anatomy, to: Mapping[str, int], follow: Mapping[str, str] | None) -> str:
    """The nearest values of each key with which the other wishes can be met."""
    found = []
    for key, value in to.items():
        near = []
        for step in (-1, 1):
            for distance in range(1, _FARTHEST):
                other = value + step * distance
                if other < 1:
                    break
                try:
                    _built(old, _followed({**to, key: other}, follow))
                except UserError:
                    continue
                near.append(str(other))
                break
        if near:
            found.append(f"{key} = {' or '.join(near)}")
    return f"possible are {', or '.join(found)}" if found else ""


def with_config(new: Anatomy, changes: dict[str, Any]) -> Anatomy:
    """The anatomy with other configuration values."""
    return anatomy_of({**new.config, **changes}, tied=new.tied) if changes else new
