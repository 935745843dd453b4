"""Factorised models: same outputs at full rank, shared factors where rows were shared, round trips."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from vocab_families import FAMILIES, save_source

from warmstart.checkpoint import resolve
from warmstart.foundation.errors import UserError
from warmstart.vocabulary.factorised_model import (
    densify_model,
    factorise_model,
    open_factorised,
    save_factorised,
)

CASES = [("gpt2", True), ("gpt2", False), ("llama", False), ("bert", True), ("t5", True), ("t5-v1.1", False)]
cases = pytest.mark.parametrize(("family", "tied"), CASES, ids=str)


def opened(folder: Path, family: str, tied: bool) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    tokenizer = save_source(folder / "source", family, tied)
    return resolve(folder / "source").load_model("auto"), tokenizer


def logits(model: PreTrainedModel, family: str) -> torch.Tensor:
    ids = torch.arange(10, 30).view(2, 10)
    extra = {"decoder_input_ids": ids} if FAMILIES[family][1] == "seq2seq" else {}
    return model(input_ids=ids, **extra).logits


@cases
def test_full_rank_keeps_the_outputs_and_low_rank_saves_parameters(
    family: str, tied: bool, tmp_path: Path
) -> None:
    model, _ = opened(tmp_path, family, tied)
    before, size = logits(model, family).detach(), sum(p.numel() for p in model.parameters())
    whole = factorise_model(copy.deepcopy(model), 16)
    torch.testing.assert_close(logits(whole, family), before, rtol=0, atol=1e-10)
    narrow = factorise_model(model, 4)
    rows, matrices = narrow.config.vocab_size, 1 if tied else 2
    assert size - sum(p.numel() for p in narrow.parameters()) == matrices * (rows * 12 - 4 * 16)
    assert (logits(narrow, family) - before).abs().max() > 1e-3


@cases
def test_dense_again_has_the_same_outputs_and_ties(family: str, tied: bool, tmp_path: Path) -> None:
    model, _ = opened(tmp_path, family, tied)
    factorise_model(model, 4)
    before = logits(model, family)
    densify_model(model)
    torch.testing.assert_close(logits(model, family), before, rtol=0, atol=1e-10)
    rows, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    assert (rows is head) is tied and rows.shape == (model.config.vocab_size, 16)


@cases
def test_it_can_be_stored_opened_and_trained(family: str, tied: bool, tmp_path: Path) -> None:
    model, tokenizer = opened(tmp_path, family, tied)
    factorise_model(model, 5)
    state = torch.get_rng_state()
    save_factorised(tmp_path / "out", model, tokenizer)
    again = open_factorised(tmp_path / "out")
    assert torch.equal(torch.get_rng_state(), state) and not again.training
    assert torch.equal(logits(again, family), logits(model, family))
    assert len(list(again.parameters())) == len(list(model.parameters()))
    logits(again, family).square().mean().backward()
    embedding = again.get_input_embeddings()
    assert embedding.weight.grad.abs().max() > 0 and embedding.primitives.grad.abs().max() > 0


def test_bad_input_ends_in_one_sentence(tmp_path: Path) -> None:
    model, tokenizer = opened(tmp_path, "gpt2", True)
    with pytest.raises(UserError, match="no factorised rows"):
        save_factorised(tmp_path / "out", model, tokenizer)
    with pytest.raises(UserError, match="choose 1 to 16"):
        factorise_model(model, 17)
    with pytest.raises(UserError, match="no factorised model"):
        open_factorised(tmp_path / "source")
    scaled = copy.deepcopy(model)
    scaled.get_input_embeddings().__class__ = type("ScaledEmbedding", (torch.nn.Embedding,), {})
    with pytest.raises(UserError, match="a ScaledEmbedding does more than to look up rows"):
        factorise_model(scaled, 3)
    save_factorised(tmp_path / "out", factorise_model(model, 3), tokenizer)
    note = tmp_path / "out" / "factorised.json"
    note.write_text(note.read_text().replace("3", "4"))
    with pytest.raises(UserError, match="do not fit"):
        open_factorised(tmp_path / "out")
