"""Factorised models: same outputs at full rank, shared factors where rows were, treated like any other."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast
from vocab_families import FAMILIES, save_source

from warmstart.checkpoint import Lineage, inspect, resolve, save_checkpoint
from warmstart.evaluation.head import head_of, token_losses
from warmstart.foundation.errors import UserError
from warmstart.objectives._hidden import hidden_states, next_token_nll, plain_head
from warmstart.objectives._hidden import logits as head_logits
from warmstart.objectives.multi_token import copied_head
from warmstart.training.rows import ChosenRows
from warmstart.vocabulary.factorised_model import densify_model, factorise_model, input_rows
from warmstart.vocabulary.settings import TransplantSettings
from warmstart.vocabulary.surgery import vocabulary_tensors
from warmstart.vocabulary.transplant import transplant

CASES = [
    ("gpt2", True),
    ("xlm-roberta", True),
    ("gpt2", False),
    ("llama", False),
    ("bert", True),
    ("t5", True),
    ("t5-v1.1", False),
]
cases = pytest.mark.parametrize(("family", "tied"), CASES, ids=str)


def opened(folder: Path, family: str, tied: bool) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    tokenizer = save_source(folder / "source", family, tied)
    return resolve(folder / "source").load_model("auto"), tokenizer


def given(family: str) -> dict[str, torch.Tensor]:
    ids = torch.arange(10, 30).view(2, 10)
    return {"input_ids": ids} | ({"decoder_input_ids": ids} if FAMILIES[family][1] == "seq2seq" else {})


def logits(model: PreTrainedModel, family: str) -> torch.Tensor:
    return model(**given(family)).logits


@cases
def test_full_rank_keeps_the_outputs_and_low_rank_saves_parameters(
    family: str, tied: bool, tmp_path: Path
) -> None:
    model, _ = opened(tmp_path, family, tied)
    before, size = logits(model, family).detach(), sum(p.numel() for p in model.parameters())
    whole = copy.deepcopy(model)
    assert factorise_model(whole, 16)["energy_kept"] == 1
    torch.testing.assert_close(logits(whole, family), before, rtol=0, atol=1e-10)
    measured = factorise_model(model, 4)
    rows, matrices = model.config.vocab_size, 1 if tied else 2
    after = sum(p.numel() for p in model.parameters())
    assert (measured["parameters_before"], measured["parameters"]) == (size, after)
    assert size - after == matrices * (rows * 12 - 4 * 16)
    assert (logits(model, family) - before).abs().max() > 1e-3
    assert ("energy_kept_head" in measured) is not tied and measured["energy_kept"] < 0.9


@pytest.mark.parametrize("split", ["balanced", "raw"])
def test_the_split_changes_the_factors_and_not_the_model(split: Any, tmp_path: Path) -> None:
    model, _ = opened(tmp_path, "bert", True)
    rows = input_rows(model).copy()
    factorise_model(model, 16, split=split)
    np.testing.assert_allclose(input_rows(model), rows, atol=1e-12)
    coordinates = model.get_input_embeddings().weight.detach().numpy()
    values = np.linalg.svd(rows, compute_uv=False)
    expected = values if split == "balanced" else np.ones(16)
    np.testing.assert_allclose(np.linalg.norm(coordinates, axis=0) ** 2, expected)


@cases
def test_dense_again_has_the_same_outputs_and_ties(family: str, tied: bool, tmp_path: Path) -> None:
    model, tokenizer = opened(tmp_path, family, tied)
    factorise_model(model, 4)
    before = logits(model, family)
    densify_model(model)
    torch.testing.assert_close(logits(model, family), before, rtol=0, atol=1e-10)
    rows, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    assert (rows is head) is tied and rows.shape == (model.config.vocab_size, 16)
    made = save_checkpoint(tmp_path / "dense", model, tokenizer, lineage=Lineage.of("test"), verify=True)
    assert made.form is None and "AutoModel" in (made.path / "README.md").read_text()
    torch.testing.assert_close(logits(made.load_model("auto"), family), before, rtol=0, atol=1e-10)


@cases
def test_it_is_stored_and_opened_like_any_checkpoint_and_trains(
    family: str, tied: bool, tmp_path: Path
) -> None:
    model, tokenizer = opened(tmp_path, family, tied)
    factorise_model(model, 5)
    made = save_checkpoint(
        tmp_path / "out", model, tokenizer, lineage=Lineage.of("test"), verify=True, max_shard_size="3KB"
    )
    assert len(list(made.path.glob("model-*.safetensors"))) > 1 and made.rows == len(tokenizer)
    plain, odd = resolve(tmp_path / "source").tensors, {n for n in made.tensors if n.endswith(".primitives")}
    assert made.tensors.keys() - odd == plain.keys() and len(odd) == (1 if tied else 2)
    assert inspect(made)["tied"] is tied
    state = torch.get_rng_state()
    again = resolve(tmp_path / "out").load_model("auto")
    assert torch.equal(torch.get_rng_state(), state) and not again.training
    assert torch.equal(logits(again, family), logits(model, family))
    assert len(list(again.parameters())) == len(list(model.parameters()))
    assert resolve(tmp_path / "out").load_model().dtype == torch.float32
    assert resolve(tmp_path / "out").form == {"form": "factorised", "rank": 5, "tied": tied}
    logits(again, family).square().mean().backward()
    embedding = again.get_input_embeddings()
    assert embedding.weight.grad.abs().max() > 0 and embedding.primitives.grad.abs().max() > 0


@cases
def test_the_loss_without_full_logits_and_its_gradients_are_right(
    family: str, tied: bool, tmp_path: Path
) -> None:
    """The chunked loss multiplies by the head's rows itself; here these are coordinates."""
    model, _ = opened(tmp_path, family, tied)
    factorise_model(model, 5)
    targets = torch.arange(20, 40).view(2, 10).masked_fill(torch.arange(10) % 3 == 0, -100)
    assert head_of(model, given(family)).linear is model.get_output_embeddings()
    found, _ = token_losses(model, given(family), targets)
    found.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    plain = torch.nn.functional.cross_entropy(
        logits(model, family).flatten(0, 1), targets.flatten(), reduction="sum"
    )
    torch.testing.assert_close(found, plain)
    plain.backward()
    for name, p in model.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(gradients[name], p.grad)


@pytest.mark.parametrize(("family", "tied"), [("llama", True), ("llama", False), ("bert", True)], ids=str)
def test_transplanting_coordinates_is_transplanting_rows(family: str, tied: bool, tmp_path: Path) -> None:
    """At full rank the two orders agree, and a target fills the same factors at a lower one."""
    model, tokenizer = opened(tmp_path, family, tied)
    target = tokenizer.train_new_from_iterator(["a small world of other words"] * 20, 120)
    target.save_pretrained(tmp_path / "target")
    for rank in (16, 5):
        narrow = copy.deepcopy(model)
        factorise_model(narrow, rank)
        save_checkpoint(tmp_path / f"narrow-{rank}", narrow, tokenizer, lineage=Lineage.of("test"))
        settings = {"tokenizer": str(tmp_path / "target"), "initialiser": "mean-of-pieces"}
        made = transplant(
            TransplantSettings.parse(settings | {"source": str(tmp_path / f"narrow-{rank}")}),
            tmp_path / f"made-{rank}",
        )
        assert made.form == {"form": "factorised", "rank": rank, "tied": tied}
        moved = made.load_model("auto")
        dense = densify_model(copy.deepcopy(narrow))
        save_checkpoint(tmp_path / f"dense-{rank}", dense, tokenizer, lineage=Lineage.of("test"))
        expected = transplant(
            TransplantSettings.parse(settings | {"source": str(tmp_path / f"dense-{rank}")}),
            tmp_path / f"expected-{rank}",
        ).load_model("auto")
        drawn = ~np.isclose(input_rows(moved), input_rows(expected), rtol=0, atol=1e-10).all(axis=1)
        assert made.lineage is not None
        assert drawn.sum() == made.lineage.measured["new_without_pieces"]  # from N(mu, sd) of either's rows
        if not drawn.any():
            torch.testing.assert_close(logits(moved, family), logits(expected, family), rtol=0, atol=1e-10)
        assert vocabulary_tensors(moved).rows.shape == (len(target), rank)
        assert moved.get_input_embeddings().padding_idx == expected.get_input_embeddings().padding_idx


def test_people_are_told_how_to_open_it(tmp_path: Path) -> None:
    model, tokenizer = opened(tmp_path, "llama", True)
    factorise_model(model, 4)
    made = save_checkpoint(tmp_path / "narrow", model, tokenizer, lineage=Lineage.of("test"))
    card = (made.path / "README.md").read_text()
    assert "load_model()" in card and "from_pretrained" not in card
    assert "`warmstart export path/to/narrow -o plain`" in card and "library_name: warmstart" in card
    said = inspect(made)
    assert said["parameters"]["total"] == sum(p.numel() for p in model.parameters())
    assert any("warmstart export" in risk for risk in said["risks"])
    with pytest.raises(RuntimeError, match="mismatch"):  # never opened as something else
        AutoModelForCausalLM.from_pretrained(made.path)


@pytest.mark.parametrize("tied", [True, False])
def test_objectives_that_multiply_hidden_states_themselves_are_right(tied: bool, tmp_path: Path) -> None:
    model, _ = opened(tmp_path, "llama", tied)
    factorise_model(model, 5)
    ids = given("llama")["input_ids"]
    dense = densify_model(copy.deepcopy(model))
    found = []
    for each in (model, dense):
        head = plain_head(each, ids)
        (hidden,) = hidden_states(each, ids)
        second = copied_head(each)
        losses = [next_token_nll(head, hidden, ids.roll(3))[0], next_token_nll(head, hidden, ids, second)[0]]
        found.append((head_logits(head, hidden[0]), torch.stack(losses)))
        own = {id(p) for p in each.parameters()}
        assert own.isdisjoint(id(p) for p in second.parameters()) and any(True for _ in second.parameters())
    for narrow, wide in zip(*found, strict=True):
        torch.testing.assert_close(narrow, wide, rtol=0, atol=1e-9)


def test_chosen_rows_are_those_of_the_coordinates_and_primitives_rest(tmp_path: Path) -> None:
    model, _ = opened(tmp_path, "bert", True)
    factorise_model(model, 4)
    rows = ChosenRows(model, np.array([3, 7]))
    logits(model, "bert").square().sum().backward()
    embedding: Any = model.get_input_embeddings()
    assert embedding.primitives.grad.any() and embedding.weight.grad[12].any()
    rows.keep(model.parameters())
    assert not embedding.primitives.grad.any()
    assert embedding.weight.grad.any(dim=1).nonzero()[:, 0].tolist() == [3, 7]


def test_it_generates(tmp_path: Path) -> None:
    model, _ = opened(tmp_path, "llama", True)
    whole = copy.deepcopy(model)
    factorise_model(whole, 16)
    ids = torch.arange(10, 14)[None]
    texts = [m.generate(ids, max_new_tokens=6, do_sample=False) for m in (model, whole)]
    assert torch.equal(*texts) and texts[0].shape[1] > 4


def test_bad_input_ends_in_one_sentence(tmp_path: Path) -> None:
    model, tokenizer = opened(tmp_path, "gpt2", True)
    with pytest.raises(UserError, match="no factorised rows"):
        densify_model(model)
    with pytest.raises(UserError, match="choose 1 to 16"):
        factorise_model(model, 17)
    scaled = copy.deepcopy(model)
    scaled.get_input_embeddings().__class__ = type("ScaledEmbedding", (torch.nn.Embedding,), {})
    with pytest.raises(UserError, match="a ScaledEmbedding does more than to look up rows"):
        factorise_model(scaled, 3)
    factorise_model(model, 3)
    with pytest.raises(UserError, match="factorised already"):
        factorise_model(model, 3)
    save_checkpoint(tmp_path / "out", model, tokenizer, lineage=Lineage.of("test"))
    settings = {"source": str(tmp_path / "source"), "tokenizer": str(tmp_path / "source")}
    donor = {"initialiser": {"name": "omp", "donor": str(tmp_path / "out")}}
    with pytest.raises(UserError, match="donors need plain ones"):
        transplant(TransplantSettings.parse(settings | donor), tmp_path / "given")
    note = tmp_path / "out" / "form.json"
    text = note.read_text()
    note.write_text(text.replace("3", "4"))
    with pytest.raises(UserError, match="do not fit"):
        resolve(tmp_path / "out").load_model()
    note.write_text(text.replace("factorised", "factorized"))
    with pytest.raises(UserError, match="did you mean 'factorised'"):
        resolve(tmp_path / "out").load_model()
