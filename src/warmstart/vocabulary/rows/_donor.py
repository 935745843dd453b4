"""Rows of another checkpoint whose tokenizer is the new one: what donors and helpers lend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from warmstart.foundation.errors import UserError, nearest

if TYPE_CHECKING:
    from warmstart.checkpoint import Checkpoint
    from warmstart.vocabulary.rows._base import RowContext


@dataclass(frozen=True)
class DonorRows:
    """Vocabulary rows of a donor, row index = target id; rows that the donor lacks are zero.

    Attributes:
        rows: Input rows `(V_target, f)`.
        head: Head rows `(V_target, f)`; None when they are the input rows.
    """

    rows: np.ndarray
    head: np.ndarray | None


def donor_rows(context: RowContext, name: str, *, setting: str) -> DonorRows:
    """Rows of the checkpoint `name`, read without the rest of its weights, kept for all arms.

    Args:
        context: Of the initialiser; its target tokenizer must be the donor's.
        name: Folder, named source or hub id.
        setting: Name of the setting, for errors.

    Raises:
        UserError: No such checkpoint, another tokenizer, or an architecture without a table.
    """
    from warmstart.checkpoint import resolve

    checkpoint = resolve(name)
    key = ("donor", checkpoint.fingerprint)
    if key not in context.aux:
        _check_tokenizer(context, checkpoint, setting)
        context.aux[key] = _read(checkpoint, context.shape[0])
    found: DonorRows = context.aux[key]
    return found


def _check_tokenizer(context: RowContext, checkpoint: Checkpoint, setting: str) -> None:
    own, given = context.target_tokenizer.get_vocab(), checkpoint.load_tokenizer().get_vocab()
    if own == given:
        return
    differ = sorted(string for string in own.keys() | given.keys() if own.get(string) != given.get(string))
    raise UserError(
        f"the tokenizer of the {setting} is not the new tokenizer: {len(differ):,} tokens differ, "
        f"such as {differ[0]!r}",
        where=checkpoint.name,
        fix=f"give as tokenizer the one of the {setting}",
    )


def _read(checkpoint: Checkpoint, size: int) -> DonorRows:
    from safetensors import safe_open

    from warmstart.anatomy import anatomy_of
    from warmstart.vocabulary.surgery import as_rows

    if checkpoint.form is not None:
        raise UserError(
            f"its rows are {checkpoint.form['form']}, and donors need plain ones",
            where=checkpoint.name,
            fix="make it an ordinary one first, with `warmstart export`",
        )
    anatomy = anatomy_of(checkpoint.config, where=checkpoint.name)
    stored = {spec.name: name for name, spec in anatomy.recognise(checkpoint.tensors).items()}

    def matrix(parameter: str) -> np.ndarray:
        if parameter not in stored:
            raise UserError(
                f"the checkpoint stores no {parameter}",
                where=checkpoint.name,
                fix=nearest(parameter, checkpoint.tensors),
            )
        with safe_open(checkpoint.tensors[stored[parameter]].file, framework="pt") as file:
            rows = as_rows(file.get_tensor(stored[parameter]))[:size]
        return np.pad(rows, ((0, size - len(rows)), (0, 0)))

    sites: Any = anatomy.vocabulary
    own_head = sites.head_rows is not None and sites.head_rows in stored
    return DonorRows(matrix(sites.input_rows[0]), matrix(sites.head_rows) if own_head else None)
