"""A checkpoint that was found and checked: what it is, and how to open it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warmstart.checkpoint import stamps, tokens
from warmstart.checkpoint.architecture import (
    auto_class,
    lacks_masked_head,
    own_class,
    task_of,
    vocabulary_rows,
)
from warmstart.checkpoint.forms import open_form, read_note
from warmstart.checkpoint.headers import TensorHeader, weight_files
from warmstart.checkpoint.lineage import Lineage, read_lineage
from warmstart.foundation.errors import UserError
from warmstart.foundation.progress import note
from warmstart.foundation.settings import digest
from warmstart.foundation.tasks import Task

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

# stored by older versions of transformers and recomputed today
_OBSOLETE = re.compile(r"rotary_emb\.inv_freq|masked_bias|attn\.bias$|attention\.bias$|position_ids$")


@dataclass(frozen=True)
class Checkpoint:
    """Handle on a verified folder in the Hugging Face layout. Made by `resolve` and `save_checkpoint`.

    Attributes:
        path: The folder.
        config: Its `config.json` as stored.
        tensors: Name to type, shape and place of every stored tensor, from the headers.
        hub_id: Where it came from on the hub, None for a local folder.
        revision: Commit on the hub.
        trust_remote_code: Whether the folder's own code may run.
        warnings: What is odd about it but no reason to refuse it.
    """

    path: Path
    config: dict[str, Any] = field(repr=False)
    tensors: dict[str, TensorHeader] = field(repr=False)
    hub_id: str | None = None
    revision: str | None = None
    trust_remote_code: bool = False
    warnings: tuple[str, ...] = ()

    def __hash__(self) -> int:
        return hash((self.path, self.revision))

    @property
    def name(self) -> str:
        """Hub id, or the folder's own name (never its full path)."""
        return self.hub_id or self.path.absolute().name

    @cached_property
    def task(self) -> Task:
        """What it is asked: `causal`, `masked` or `seq2seq`."""
        return task_of(self.config, where=self.path, remote=self.trust_remote_code)

    @property
    def family(self) -> str:
        """`model_type` of its configuration, such as `llama`."""
        return str(self.config["model_type"])

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Stored parameter name to shape."""
        return {name: tensor.shape for name, tensor in self.tensors.items()}

    @property
    def rows(self) -> int | None:
        """Rows of the input embedding."""
        return vocabulary_rows(self.config, self.shapes)

    @property
    def base_only(self) -> bool:
        """Whether an encoder is stored without its masked-language-model head.

        Such a checkpoint opens as a masked language model whose head is freshly drawn: its likelihoods mean
        nothing before training. What only changes the encoder opens it `as_stored`.
        """
        return lacks_masked_head(self.task, list(self.tensors))

    @cached_property
    def fingerprint(self) -> str:
        """Hash of its weight files, configuration and tokenizer files (32 hex digits).

        Same files, same fingerprint, wherever the folder lies. Remembered for as long as the files stay.
        """
        known = stamps.Stamps(self.path)
        names = [file.name for file in weight_files(self.path)]
        names += [n for n in ("config.json", *tokens.FILES) if (self.path / n).is_file()]
        hashes = {name: known.sha256(self.path / name) for name in sorted(names)}
        known.save()
        return digest(hashes) + digest({"second half": hashes})

    @cached_property
    def lineage(self) -> Lineage | None:
        """Where it came from; None when warmstart did not make it."""
        return read_lineage(self.path)

    @cached_property
    def form(self) -> dict[str, Any] | None:
        """Note of a checkpoint whose parameters are not those of its class, with its `form`; None for others.

        `load_model` opens it; transformers alone does not (see [`forms`][warmstart.checkpoint.forms]).
        """
        return read_note(self.path)

    @property
    def license(self) -> str | None:
        """Licence that its model card states."""
        from warmstart.checkpoint.card import front_matter

        stated = front_matter(self.path / "README.md").get("license")
        return str(stated) if stated else None

    def load_model(
        self,
        dtype: torch.dtype | str | None = None,
        *,
        attn_implementation: str | None = None,
        as_stored: bool = False,
    ) -> PreTrainedModel:
        """The model in evaluation mode, opened with the auto class of its task.

        Args:
            dtype: Type of the weights in memory; float32 by default, `"auto"` for the stored one.
            attn_implementation: Passed on to transformers.
            as_stored: Open an encoder without a head (see `base_only`) in its own class, so that it is saved
                as it came, instead of drawing a head.

        Raises:
            UserError: When stored weights do not fit the configuration, or some would stay random. The one
                exception is the missing head of a bare encoder (see `base_only`), which is announced.
        """
        import torch

        kwargs: dict[str, Any] = {"attn_implementation": attn_implementation} if attn_implementation else {}
        headless = as_stored and self.base_only
        opener = own_class(self.config) if headless else auto_class(self.task)
        try:
            # weights that are not stored are drawn at random: always the same, and leaving the caller's
            # generator as it was
            with torch.random.fork_rng(devices=[]), quiet_transformers():
                torch.default_generator.manual_seed(0)
                if self.form is not None:
                    return open_form(self.path, self.form, self.task, dtype=dtype, **kwargs)
                model, info = opener.from_pretrained(
                    self.path,
                    dtype=torch.float32 if dtype is None else dtype,
                    output_loading_info=True,
                    trust_remote_code=self.trust_remote_code,
                    local_files_only=True,
                    **kwargs,
                )
        except (RuntimeError, ValueError, KeyError, TypeError, OSError, ImportError, AttributeError) as error:
            raise UserError(
                f"the model cannot be opened ({_first_line(error)})",
                where=self.path,
                fix="check that config.json belongs to these weights",
            ) from error
        if headless and getattr(model, "pooler", None) is not None and not self._has_pooler:
            model.pooler = None  # drawn, not stored
            info["missing_keys"] = [name for name in info["missing_keys"] if not name.startswith("pooler.")]
        self._check_loading(model, info, headless)
        return model.eval()

    @property
    def _has_pooler(self) -> bool:
        return any("pooler." in name for name in self.tensors)

    def _check_loading(self, model: Any, info: dict[str, Any], headless: bool) -> None:
        missing = sorted(info["missing_keys"])
        prefix = f"{model.base_model_prefix}."
        head = [name for name in missing if not name.startswith(prefix)]
        if missing and (headless or not (self.base_only and head == missing)):
            raise UserError(
                f"{len(missing)} weights that the model needs are not stored, first {missing[0]}",
                where=self.path,
                fix="take a complete checkpoint of the language model, with its output head",
            )
        dropped = [n for n in sorted(info["unexpected_keys"]) if _in_layer(n) and not _OBSOLETE.search(n)]
        if dropped:
            raise UserError(
                f"{len(dropped)} stored weights have no place in the model, first {dropped[0]}",
                where=self.path,
                fix="check that config.json belongs to these weights",
            )
        if info["mismatched_keys"]:
            raise UserError(f"stored shapes differ from the configuration: {info['mismatched_keys']}")
        if missing:
            note(f"{self.name}: the checkpoint holds no masked-language-model head; a fresh one was drawn")

    def load_tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer, fast, with a padding token that has a row."""
        with quiet_transformers():
            tokenizer = tokens.load(self.path, self.config, trust_remote_code=self.trust_remote_code)
        rows = self.rows
        if rows is not None and len(tokenizer) > rows:
            raise UserError(
                f"the tokenizer has {len(tokenizer):,} ids and the model only {rows:,} embedding rows",
                where=self.path,
                fix="take the tokenizer the model was trained with",
            )
        return tokenizer


def _in_layer(name: str) -> bool:
    return bool(re.search(r"\.\d+\.", name))


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    shown = " ".join(lines[:3]) or type(error).__name__
    return shown if len(shown) <= 300 else shown[:297] + "…"


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence the library's progress bars and warnings inside the block; ours say what matters."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
