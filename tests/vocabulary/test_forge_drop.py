"""Dropping tokens: the text is cut as before, nothing becomes unknown, ids follow from the two tokenizers."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from vocab_families import save_source
from vocab_tokenizers import STYLES, llama_like, plain, sentences

from warmstart.foundation.errors import UserError
from warmstart.vocabulary.forge.drop import Reduction, drop, drop_unused, reduced
from warmstart.vocabulary.forge.extend import extend_by_tokens
from warmstart.vocabulary.forge.state import changeable
from warmstart.vocabulary.map import VocabMap
from warmstart.vocabulary.settings_forge import DropSettings, ExtendSettings
from warmstart.vocabulary.tokens import backend_state, canonical_tokens

styles = pytest.mark.parametrize("style", sorted(STYLES))
FEW = sentences(0, 400)[:25]


def dropped(tokenizer: PreTrainedTokenizerFast, texts: tuple[str, ...] = FEW, **options: object) -> Reduction:
    chosen = DropSettings.parse({"source": "x", "corpus": "unused", **options})
    return drop_unused(tokenizer, texts, chosen)


@styles
def test_the_text_is_cut_as_before(style: str) -> None:
    old = STYLES[style]()
    made = dropped(old)
    assert made.removed
    for text in FEW:
        assert made.tokenizer.tokenize(text) == old.tokenize(text)
    before, after = old.get_vocab(), made.tokenizer.get_vocab()
    assert set(before) - set(after) == set(made.removed) and not set(after) - set(before)
    assert sorted(after, key=after.__getitem__) == [
        p for p in sorted(before, key=before.__getitem__) if p in after
    ]
    assert sorted(after.values()) == list(range(len(after)))
    assert made.tokenizer.special_tokens_map == old.special_tokens_map
    assert made.tokenizer.convert_ids_to_tokens(made.tokenizer(FEW[0])["input_ids"]) == (
        old.convert_ids_to_tokens(old(FEW[0])["input_ids"])
    )


@styles
def test_the_map_between_the_tokenizers_covers_every_token(style: str) -> None:
    old, made = STYLES[style](), dropped(STYLES[style]()).tokenizer
    relation = VocabMap.build(old, made)
    before, after = old.get_vocab(), made.get_vocab()
    pairs = dict(np.concatenate([relation.overlap, relation.roles]).tolist())
    assert pairs == {index: before[piece] for piece, index in after.items()}


@styles
@given(data=st.data())
@settings(max_examples=12, deadline=None)
def test_any_text_is_cut_as_before(style: str, data: st.DataObject) -> None:
    words = sorted({word for text in sentences(0) for word in text.split()})
    text = " ".join(data.draw(st.lists(st.sampled_from(words), min_size=1, max_size=8)))
    old = STYLES[style]()
    made = dropped(old, (text,)).tokenizer
    assert made.tokenize(text) == old.tokenize(text)


@pytest.mark.parametrize("style", ["bpe", "gpt2", "qwen", "llama"])
def test_no_part_is_kept_in_vain(style: str) -> None:
    """Brute force: without any one of the unused parts, some token that stays is no longer produced."""
    old = STYLES[style]()
    made = dropped(old, sentences(0, 400)[:40])
    state = changeable(made.tokenizer)[1]
    vocab = set(state["model"]["vocab"])
    model = made.tokenizer.backend_tokenizer.model
    whole = {piece for piece in vocab if [t.value for t in model.tokenize(piece)] == [piece]}
    assert len(made.parts) > 5
    for part in random.Random(0).sample(made.parts, 6):
        without = Tokenizer.from_str(json.dumps(reduced(state, vocab - {part}))).model
        lost = {p for p in whole - {part} if [t.value for t in without.tokenize(p)] != [p]}
        assert lost, part


def test_rare_tokens_go_and_their_text_is_written_with_others() -> None:
    old = plain("unigram", 300)
    once, thrice = dropped(old), dropped(old, min_uses=3)
    assert set(once.removed) < set(thrice.removed)
    counts = {piece: sum(old.tokenize(text).count(piece) for text in FEW) for piece in thrice.removed}
    assert max(counts.values()) == 2
    for text in FEW:
        assert thrice.tokenizer.decode(thrice.tokenizer.encode(text, add_special_tokens=False)) == text


def test_kept_tokens_and_alphabets() -> None:
    old = llama_like()
    by_default, all_kept = (dropped(old, ("the end",), keep_alphabet=keep) for keep in (None, True))
    single = {piece for piece in old.get_vocab() if len(piece) == 1}
    assert single & set(by_default.removed) and not single & set(all_kept.removed)
    assert sum(piece.startswith("<0x") for piece in by_default.tokenizer.get_vocab()) == 256
    text = "Zyx éä 漢字"
    assert by_default.tokenizer.decode(by_default.tokenizer.encode(text, add_special_tokens=False)) == text
    for style in ("unigram", "wordpiece"):
        single = {p for p in STYLES[style]().get_vocab() if len(p.removeprefix("##")) == 1}
        assert not single & set(dropped(STYLES[style]()).removed)
        assert single & set(dropped(STYLES[style](), keep_alphabet=False).removed)
    name = next(piece for piece in reversed(by_default.removed) if piece.startswith("▁") and len(piece) > 4)
    kept = dropped(old, ("the end",), keep=[name]).tokenizer
    assert kept.tokenize("the" + name.replace("▁", " "))[-1] == name


def test_unknown_characters_score_as_before() -> None:
    """The piece with the lowest score stays, used or not: the library derives the unknown score from it."""
    old = plain("unigram", 300)
    state, after = backend_state(old), backend_state(dropped(old, ("the",), keep_alphabet=False).tokenizer)
    least = min(score for _, score in state["model"]["vocab"])
    assert min(score for _, score in after["model"]["vocab"]) == least
    assert after["model"]["vocab"][after["model"]["unk_id"]][0] == "<unk>"


def test_extended_tokenizers_shrink_back_to_what_is_used() -> None:
    """Added tokens lie in the model there, between old pieces and new ones."""
    old = STYLES["unigram"]()
    wide = extend_by_tokens(old, ["xqz", "zzz"], ExtendSettings(source="x", tokens=["a"])).tokenizer
    made = dropped(wide, (*FEW, "an xqz")).tokenizer
    assert made.tokenize("an xqz")[-1] == "▁xqz" and "▁zzz" not in made.get_vocab()
    text = FEW[0] + " <mask>"
    assert made.tokenize(text) == wide.tokenize(text) and wide.mask_token_id in wide(text)["input_ids"]
    assert made.mask_token_id in made(text)["input_ids"]
    roles = [token.roles for token in canonical_tokens(made) if token.role]
    assert sorted(roles) == sorted(token.roles for token in canonical_tokens(wide) if token.role)


def test_a_checkpoint_keeps_its_rows(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    from warmstart.vocabulary.settings import TransplantSettings
    from warmstart.vocabulary.transplant import transplant

    old = save_source(tmp_path / "source", "llama", tied=False)
    texts = "\n".join(FEW)
    (tmp_path / "text.txt").write_text(texts, encoding="utf-8")
    chosen = DropSettings.parse(
        {"source": str(tmp_path / "source"), "corpus": {"path": str(tmp_path / "text.txt"), "unit": "file"}}
    )
    chosen = chosen.model_copy(update={"corpus": chosen.corpus.model_copy(update={"valid_fraction": 0.0})})
    report = drop(chosen, tmp_path / "small")
    assert report.removed > 50 and report.added == 0 and report.new_text is not None
    assert report.new_text.documents_changed == 0
    record = json.loads((tmp_path / "small" / "warmstart.json").read_text())
    assert record["lineage"]["operation"] == "drop" and record["change"]["removed"] == report.removed
    assert record["lineage"]["measured"]["tokens_after"] == report.tokens_after
    small = AutoTokenizer.from_pretrained(tmp_path / "small")
    assert len(small) == report.tokens_after
    transplant(
        TransplantSettings(source=str(tmp_path / "source"), tokenizer=str(tmp_path / "small")),
        tmp_path / "made",
    )
    ids = [old.get_vocab()[piece] for piece in sorted(small.get_vocab(), key=small.get_vocab().__getitem__)]
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        before, after = (load_file(tmp_path / f / "model.safetensors")[name] for f in ("source", "made"))
        assert np.array_equal(after, before[ids])


def test_unusable_input_is_named() -> None:
    with pytest.raises(UserError, match="'Ġxqz' is no token"):
        dropped(STYLES["bpe"](), keep=["Ġxqz"])
    words = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    with pytest.raises(UserError, match="a WordLevel tokenizer cannot be changed"):
        dropped(PreTrainedTokenizerFast(tokenizer_object=words))
    with pytest.raises(UserError, match="min_uses"):
        DropSettings.parse({"source": "x", "corpus": "y", "min_uses": 0})
    with pytest.raises(UserError, match="'corpus' is required"):
        DropSettings.parse({"source": "x"})
