"""Bits per byte against token-by-token loops, and the properties that make it comparable."""

from __future__ import annotations

import functools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_language_models import TEXT, TOKENIZERS, byte_tokenizer, model_for, tokenizer_for, unigram_tokenizer

from warmstart.evaluation import bits_per_byte
from warmstart.evaluation.bits import limited
from warmstart.evaluation.passages import Causal, belonging, continuing, runs, windows
from warmstart.evaluation.special import sentinels, start_token, surrounding
from warmstart.evaluation.words import chosen_words, word_spans
from warmstart.foundation.errors import UserError

TASK = {"llama": "causal", "gpt2": "causal", "gpt_neox": "causal", "bert": "masked", "roberta": "masked"}
TASK["t5"] = "seq2seq"


def measure(family: str, texts: list[str] = TEXT, **options: Any) -> Any:
    tokenizer = tokenizer_for(family)
    options.setdefault("context_length", 40)
    options.setdefault("model", model_for(family, len(tokenizer)))
    return bits_per_byte(options.pop("model"), tokenizer, texts, task=TASK[family], **options)


def log_prob(logits: torch.Tensor, target: int) -> float:
    return float(torch.log_softmax(logits.double(), -1)[target])


@torch.no_grad()
@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
@pytest.mark.parametrize("context", [200, 17])
def test_causal_equals_a_loop_over_tokens(family: str, context: int) -> None:
    tokenizer = tokenizer_for(family)
    model = model_for(family, len(tokenizer), positions=256)
    nats, count = 0.0, 0
    for text in TEXT:
        ids = [tokenizer.eos_token_id, *tokenizer(text)["input_ids"]]
        for i in range(1, len(ids)):
            seen = ids[max(0, i - context) : i]
            nats -= log_prob(model(torch.tensor([seen])).logits[0, -1], ids[i])
            count += 1
    found = measure(family, model=model, context_length=context, stride=1)
    assert found.tokens == count
    assert found.bytes == sum(len(text.encode()) for text in TEXT)
    assert found.nats == pytest.approx(nats, rel=1e-10)
    assert found.bpb == pytest.approx(nats / math.log(2) / found.bytes, rel=1e-10)


def _touches(text: str, begin: int, end: int, words: list[tuple[int, int]]) -> bool:
    blank = text[begin:end] == " "
    return any((begin < stop and start < end) or (blank and start == end) for start, stop in words)


def masked_by_hand(family: str, tokenizer: Any, model: Any, text: str, subset: int) -> tuple[float, int]:
    words = chosen_words(text, subset=subset)
    encoded = tokenizer(text, return_offsets_mapping=True)
    ids, places = list(encoded["input_ids"]), encoded["offset_mapping"]
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    hit = [
        i
        for i, (begin, end) in enumerate(places)
        if ids[i] not in special and _touches(text, begin, end, words)
    ]
    size = sum(len(text[start:stop].encode()) for start, stop in words)
    if TASK[family] == "masked":
        given = [tokenizer.mask_token_id if i in hit else token for i, token in enumerate(ids)]
        logits = model(torch.tensor([given])).logits[0]
        return -sum(log_prob(logits[i], ids[i]) for i in hit), size
    source, target, span = [], [], -1
    for i, token in enumerate(ids):
        if i in hit:
            if i - 1 not in hit:
                span += 1
                mark = tokenizer.convert_tokens_to_ids(f"<extra_id_{span}>")
                source.append(mark)
                target.append(mark)
            target.append(token)
        else:
            source.append(token)
    target.append(tokenizer.eos_token_id)
    nats, written = 0.0, [model.config.decoder_start_token_id]
    for token in target:
        logits = model(input_ids=torch.tensor([source]), decoder_input_ids=torch.tensor([written])).logits
        nats -= log_prob(logits[0, -1], token)
        written.append(token)
    return nats, size


@torch.no_grad()
@pytest.mark.parametrize("family", ["bert", "roberta", "t5"])
@pytest.mark.parametrize("subsets", [1, 3])
def test_masked_and_seq2seq_equal_a_loop_over_tokens(family: str, subsets: int) -> None:
    tokenizer = tokenizer_for(family)
    model = model_for(family, len(tokenizer), positions=256)
    parts = [
        masked_by_hand(family, tokenizer, model, text, subset) for text in TEXT for subset in range(subsets)
    ]
    found = measure(family, model=model, context_length=200, subsets=subsets)
    assert found.bytes == sum(size for _, size in parts)
    assert found.nats == pytest.approx(sum(nats for nats, _ in parts), rel=1e-10)


@pytest.mark.parametrize("family", TASK)
def test_batch_size_and_order_do_not_matter(family: str) -> None:
    texts = [*TEXT, "", TEXT[0] * 4, "x"]
    results = [
        measure(family, texts, batch_tokens=1),
        measure(family, texts, batch_tokens=10_000),
        measure(family, texts[::-1], batch_tokens=90),
    ]
    assert len({r.bytes for r in results}) == len({r.tokens for r in results}) == 1
    for result in results[1:]:
        assert result.nats == pytest.approx(results[0].nats, rel=1e-11)


@pytest.mark.parametrize("family", TASK)
def test_parts_add_up(family: str) -> None:
    model = model_for(family, len(tokenizer_for(family)))
    whole = measure(family, model=model, per_document=True)
    assert whole.documents == len(whole.per_document) == len(TEXT)
    for text, (nats, size) in zip(TEXT, whole.per_document, strict=True):
        alone = measure(family, [text], model=model)
        assert (alone.nats, alone.bytes) == (pytest.approx(nats, rel=1e-11), size)
    assert math.fsum(nats for nats, _ in whole.per_document) == pytest.approx(whole.nats)


def byte_model() -> tuple[Any, Any]:
    """256 tokens, one per byte (byte 0 also ends a text), and a head of zeros: every byte costs 8 bits."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    model = model_for("llama", 256, tied=False)
    model.lm_head.weight.data.zero_()
    return model, PreTrainedTokenizerFast(tokenizer_object=made, eos_token="Ā")


@pytest.mark.parametrize(("context", "stride"), [(7, 3), (64, None), (2, 2), (9, 9)])
def test_uniform_bytes_cost_eight_bits(context: int, stride: int | None) -> None:
    model, tokenizer = byte_model()
    text = [*TEXT, "broken \udce4 \ud83d half", "\ud83d\ude42 a pair"]
    found = bits_per_byte(model, tokenizer, text, task="causal", context_length=context, stride=stride)
    assert found.bpb == pytest.approx(8, abs=1e-12)
    assert found.tokens == found.bytes
    assert found.unknown == 0


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_the_same_words_for_every_tokenizer(family: str) -> None:
    assert measure(family, seed=4).bytes == measure("t5", seed=4).bytes
    assert measure(family, seed=4).bytes != measure(family, seed=5).bytes


def test_windows_count_each_word_once_whatever_the_context() -> None:
    for family in ("bert", "roberta", "t5"):
        sizes = {measure(family, context_length=context, subsets=7).bytes for context in (6, 11, 40)}
        assert sizes == {sum(len(text[a:b].encode()) for text in TEXT for a, b in word_spans(text))}
    assert measure("bert", context_length=6).tokens == measure("bert", context_length=40).tokens


def test_more_spans_than_sentinels_are_passed_again() -> None:
    """With 5 sentinels instead of 60 the same words are measured, with one more end per further pass."""
    text = "a b c d e f g h i j k l m n o p q r s t u v w x y z " * 3
    found = {}
    for count in (5, 60):
        tokenizer = unigram_tokenizer(sentinels=count)
        found[count] = bits_per_byte(
            model_for("t5", len(tokenizer)),
            tokenizer,
            [text],
            task="seq2seq",
            context_length=400,
            mask_fraction=0.3,
        )
    assert found[5].bytes == found[60].bytes == math.ceil(0.3 * 78)
    places = unigram_tokenizer()(text, add_special_tokens=False, return_offsets_mapping=True)[
        "offset_mapping"
    ]
    spans = runs(belonging(text, places, chosen_words(text, fraction=0.3))[0])
    assert len(spans) > 10
    assert found[5].tokens - found[60].tokens == math.ceil(len(spans) / 5) - 1


def test_the_draw_depends_on_the_text() -> None:
    """Otherwise every document of ten words would be asked for the same places."""
    texts = [" ".join(f"word{i}" for i in range(k, k + 10)) for k in range(30)]
    drawn = {tuple((a // 6) for a, _ in chosen_words(text, fraction=0.3)) for text in texts}
    assert len(drawn) > 15


def test_context_is_limited_by_the_model() -> None:
    for family in ("gpt2", "bert", "roberta"):
        model = model_for(family, len(tokenizer_for(family)), positions=24)
        long = [" ".join(TEXT)]
        limit = 23 if family == "roberta" else 24  # its positions start after the padding index 0
        assert measure(family, long, model=model, context_length=500).nats == pytest.approx(
            measure(family, long, model=model, context_length=limit).nats
        )


def test_bf16_is_close_and_mode_is_kept() -> None:
    model = model_for("llama", len(tokenizer_for("llama"))).float().train()
    exact, rounded = measure("llama", model=model), measure("llama", model=model, bf16=True)
    assert exact.bpb != rounded.bpb == pytest.approx(exact.bpb, rel=1e-2)
    assert model.training


def test_unknown_text_is_counted() -> None:
    assert measure("bert", ["ordinary 🜚🜛 text with signs"]).unknown > 0
    assert measure("roberta", ["ordinary 🜚🜛 text with signs"]).unknown == 0


def test_nothing_to_measure() -> None:
    for texts in ([], ["", ""]):
        with pytest.raises(UserError, match="no text"):
            measure("llama", texts)
    with pytest.raises(UserError, match="no word"):
        measure("bert", ["?! …"])
    with pytest.raises(UserError, match="mask token"):
        bits_per_byte(model_for("bert", 300), byte_tokenizer(), TEXT, task="masked", context_length=9)
    with pytest.raises(UserError, match="stride"):
        measure("llama", stride=0)


def test_special_tokens() -> None:
    assert surrounding(tokenizer_for("bert")) == ([2], [3])
    assert surrounding(byte_tokenizer()) == ([], [])
    assert start_token(byte_tokenizer()) == 0
    assert start_token(tokenizer_for("roberta")) == tokenizer_for("roberta").bos_token_id
    assert start_token(tokenizer_for("bert")) == 3
    marks = sentinels(tokenizer_for("t5"))
    assert marks == sorted(marks, reverse=True) and len(marks) == 20
    with pytest.raises(UserError, match="sentinel"):
        sentinels(byte_tokenizer())


@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 20))
def test_causal_windows_predict_each_token_once(length: int, context: int, stride: int) -> None:
    ids = list(range(1000, 1000 + length))
    cutter = Causal(_byte_tokenizer(), context, min(stride, context))
    predicted: list[int] = []
    for passage in cutter.cut(0, ids):
        assert len(passage.ids) == len(passage.targets) <= context
        for position, target in enumerate(passage.targets):
            if target != -100:
                predicted.append(target)
                assert passage.ids[position] == (target - 1 if target > 1000 else 0)
                if len(predicted) > context:
                    assert position + 1 > context - min(stride, context)
    assert predicted == ids


_byte_tokenizer = functools.cache(byte_tokenizer)


@given(st.lists(st.booleans(), max_size=50), st.integers(2, 12))
def test_word_windows_cover_everything(inside: list[bool], room: int) -> None:
    found = list(windows(inside, room))
    assert [i for begin, end in found for i in range(begin, end)] == list(range(len(inside)))
    assert all(0 < end - begin <= room for begin, end in found)


@given(st.lists(st.text(max_size=20), max_size=5), st.integers(0, 60))
def test_limit_cuts_between_characters(texts: list[str], limit: int) -> None:
    found = "".join(limited(texts, limit))
    assert "".join(texts).startswith(found)
    rest = len("".join(texts).encode()) - len(found.encode())
    assert limit - 3 <= len(found.encode()) <= limit or rest == 0


@given(st.text(max_size=60), st.integers(0, 3))
def test_subsets_hold_each_word_once(text: str, seed: int) -> None:
    drawn = [span for k in range(7) for span in chosen_words(text, subset=k, seed=seed)]
    assert sorted(drawn) == word_spans(text)
    assert chosen_words(text, subset=7, seed=seed) == []


def test_words() -> None:
    text = "Größe, don't_x 3.5 東京の川 กำ"
    found = [text[a:b] for a, b in word_spans(text)]
    assert found == ["Größe", "don", "t_x", "3", "5", "東", "京", "の", "川", "ก", "ำ"]


@pytest.mark.parametrize("kind", TOKENIZERS)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_tokens_of_words(kind: str, data: Any) -> None:
    """Every token of a chosen word is hit, no token outside of the chosen words is."""
    tokenizer = _CACHE.setdefault(kind, TOKENIZERS[kind]())
    text = " ".join(data.draw(st.lists(st.sampled_from(" ".join(TEXT).split()), min_size=1, max_size=12)))
    words = chosen_words(text, fraction=0.4)
    places = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    hits, lost = belonging(text, places, words)
    for (begin, end), hit in zip(places, hits, strict=True):
        assert hit == _touches(text, begin, end, words)
    assert lost == 0
    inside = continuing(places, word_spans(text))
    for i, (begin, _) in enumerate(places):
        same_character = i > 0 and places[i - 1][0] == begin
        assert inside[i] == (same_character or any(a < begin < b for a, b in word_spans(text)))


_CACHE: dict[str, Any] = {}
