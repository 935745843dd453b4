"""Exactness of the whole transplant: enciphered text under the gold map has the loss of the plain text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer
from vocab_cipher import cipher, cipher_tokenizer
from vocab_families import CASES, FAMILIES, loss, save_source
from vocab_tokenizers import sentences

from warmstart.checkpoint import Checkpoint, resolve
from warmstart.foundation.registry import Entry
from warmstart.foundation.settings import Settings
from warmstart.vocabulary.mix import RowMix
from warmstart.vocabulary.rows._base import RowContext, initialisers
from warmstart.vocabulary.settings import TransplantSettings
from warmstart.vocabulary.transplant import transplant

GOLD: dict[str, np.ndarray] = {}


def gold_rows(context: RowContext, settings: Settings) -> RowMix:
    """Each target row is the source row of the same enciphered token."""
    return RowMix.from_entries(context.shape, np.arange(len(GOLD["map"])), GOLD["map"])


@pytest.fixture
def gold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(initialisers._entries, "gold", Entry("gold", gold_rows))


def transplanted(folder: Path, family: str, tied: bool, **options: Any) -> tuple[Checkpoint, Checkpoint, Any]:
    source = save_source(folder / "source", family, tied, extra_rows=options.pop("extra_rows", 0))
    target, GOLD["map"] = cipher_tokenizer(source)
    target.save_pretrained(folder / "tokenizer")
    settings = TransplantSettings(
        source=str(folder / "source"), tokenizer=str(folder / "tokenizer"), initialiser="gold", **options
    )
    return resolve(folder / "source"), transplant(settings, folder / "out"), target


@pytest.mark.usefixtures("gold")
@pytest.mark.parametrize(
    ("family", "tied"), CASES, ids=[f"{f}-{'tied' if t else 'untied'}" for f, t in CASES]
)
def test_gold_map_reproduces_the_loss(family: str, tied: bool, tmp_path: Path) -> None:
    before, after, target = transplanted(tmp_path, family, tied)
    task, source = FAMILIES[family][1], before.load_tokenizer()
    texts = [*sentences(seed=3, count=12)]
    enciphered = [cipher(text) for text in texts]
    assert all(plain != secret for plain, secret in zip(texts, enciphered))
    model, new = before.load_model(torch.float64), after.load_model(torch.float64)
    assert (new.get_output_embeddings().weight is new.get_input_embeddings().weight) == tied
    expected = loss(model, source, texts, task)
    assert expected > 1  # a random model says nothing; equality below is not zero equals zero
    assert loss(new, target, enciphered, task) == pytest.approx(expected, abs=1e-10)
    # the saved tokenizer is the one that was asked for
    assert after.load_tokenizer()(enciphered[0])["input_ids"] == target(enciphered[0])["input_ids"]
    # a wrong map is noticed: the same weights on the plain text do not give this loss
    assert abs(loss(new, target, texts, task) - expected) > 1e-3


@pytest.mark.usefixtures("gold")
@pytest.mark.parametrize(
    ("family", "tied"), CASES, ids=[f"{f}-{'tied' if t else 'untied'}" for f, t in CASES]
)
def test_everything_else_is_bit_equal(family: str, tied: bool, tmp_path: Path) -> None:
    before, after, _ = transplanted(tmp_path, family, tied)
    old, new = before.load_model("auto").state_dict(), after.load_model("auto").state_dict()
    assert old.keys() == new.keys()
    moved = {name for name in old if not torch.equal(old[name], new[name])}
    rows = {name for name in old if old[name].shape[:1] == (len(GOLD["map"]),)}
    positions = {name for name in old if "position_embeddings" in name and "roberta" in family}
    assert moved == rows | positions
    for name in rows:
        assert torch.equal(new[name], old[name][torch.from_numpy(GOLD["map"])])


@pytest.mark.usefixtures("gold")
def test_padding_rows_of_the_source_do_not_matter(tmp_path: Path) -> None:
    before, after, _ = transplanted(tmp_path, "gpt_neox", False, extra_rows=37, pad_to_multiple_of=64)
    rows = after.load_model("auto").get_input_embeddings().weight.detach().numpy()
    used = before.load_model("auto").get_input_embeddings().weight.detach().numpy()[: len(GOLD["map"])]
    assert rows.shape[0] % 64 == 0
    assert np.allclose(rows[len(GOLD["map"]) :], used.mean(axis=0), atol=1e-12)


@pytest.mark.usefixtures("gold")
def test_ids_follow_their_roles(tmp_path: Path) -> None:
    _, after, target = transplanted(tmp_path, "t5", True)
    assert after.config["decoder_start_token_id"] == target.pad_token_id
    assert after.config["eos_token_id"] == target.eos_token_id
    assert AutoTokenizer.from_pretrained(after.path).pad_token_id == target.pad_token_id
