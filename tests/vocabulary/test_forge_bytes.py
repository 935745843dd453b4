"""The vocabulary of bytes: the ids of ByT5, sentinels in either order, any UTF-8 read and written."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, ByT5Tokenizer, PreTrainedTokenizerFast
from vocab_tokenizers import sentences

from warmstart.evaluation.special import sentinels
from warmstart.foundation.errors import UserError
from warmstart.vocabulary.forge import TokenizerForge, forge, save_tokenizer
from warmstart.vocabulary.forge.extend import extend_by_text
from warmstart.vocabulary.forge.report import measure
from warmstart.vocabulary.settings import InitialiseSettings, TokenizerSettings
from warmstart.vocabulary.settings_forge import ExtendSettings


@cache
def of_bytes(order: str = "ascending", count: int = 125) -> PreTrainedTokenizerFast:
    options = {"corpus": "unused", "kind": "bytes", "sentinels": count, "sentinel_order": order}
    return TokenizerForge(TokenizerSettings.parse(options)).train([])


TEXT = st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from("\n\r\t é漢🙂")))


@given(text=TEXT)
@settings(max_examples=200, deadline=None)
def test_ids_are_bytes_and_three(text: str) -> None:
    tokenizer = of_bytes()
    if any(token in text for token in tokenizer.all_special_tokens):
        return
    ids = tokenizer(text)["input_ids"]
    assert ids == [byte + 3 for byte in text.encode()] + [1]
    assert tokenizer.decode(ids[:-1], clean_up_tokenization_spaces=False) == text


def test_ids_are_those_of_the_library() -> None:
    theirs, ours = ByT5Tokenizer(), of_bytes()
    assert len(ours) == len(theirs) == 384
    for text in ("", "a", "Füße 漢字\n\n 🙂 ", "x<extra_id_3>y<extra_id_124>", *sentences(0, 20)):
        assert ours(text)["input_ids"] == theirs(text)["input_ids"]
        assert ours.decode(ours(text)["input_ids"]) == theirs.decode(theirs(text)["input_ids"])
    for role in ("pad", "eos", "unk"):
        assert getattr(ours, f"{role}_token_id") == getattr(theirs, f"{role}_token_id")
    assert sentinels(ours) == theirs.convert_tokens_to_ids([f"<extra_id_{i}>" for i in range(125)])
    pair = ours("a", "b")["input_ids"]
    assert pair == theirs("a", "b")["input_ids"]


@pytest.mark.parametrize("order", ["ascending", "descending"])
def test_the_order_of_the_sentinels_is_stored(order: str, tmp_path: Path) -> None:
    made = of_bytes(order)
    wanted = list(range(259, 384)) if order == "ascending" else list(range(383, 258, -1))
    save_tokenizer(made, tmp_path)
    opened = AutoTokenizer.from_pretrained(tmp_path)
    assert type(opened).__name__ in ("PreTrainedTokenizerFast", "TokenizersBackend")
    for tokenizer in (made, opened):
        assert sentinels(tokenizer) == wanted
        assert set(tokenizer.all_special_ids) == {0, 1, 2, *wanted}
        assert tokenizer("<extra_id_0>é", add_special_tokens=False)["input_ids"] == [wanted[0], 198, 172]


def test_further_roles_follow_the_bytes() -> None:
    options = {"corpus": "unused", "kind": "bytes", "sentinels": 2, "template": "both"}
    options |= {"special_tokens": {"bos": "<s>", "mask": "<mask>"}, "additional_special_tokens": ["<user>"]}
    made = TokenizerForge(TokenizerSettings.parse(options)).train([])
    assert made.convert_tokens_to_ids(["<s>", "<mask>", "<extra_id_0>", "<extra_id_1>", "<user>"]) == [
        259, 260, 261, 262, 263,
    ]  # fmt: skip
    assert made("a")["input_ids"] == [259, 100, 1] and made.mask_token_id == 260 and len(made) == 264


def test_the_folder_has_its_record_and_serves_a_t5(tmp_path: Path) -> None:
    from warmstart.vocabulary.initialise import initialise

    (tmp_path / "text.txt").write_text("\n".join(sentences(0, 100)), encoding="utf-8")
    chosen = TokenizerSettings.parse(
        {"corpus": str(tmp_path / "text.txt"), "kind": "bytes", "sentinels": 125}
    )
    report = forge(chosen, tmp_path / "tokenizer")
    assert (report.vocab_size, report.bytes_per_token, report.round_trip_failures) == (384, 1.0, 0)
    assert (report.unreachable, report.unknown_rate, report.special_tokens) == (0, 0.0, 128)
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_decoder_layers": 1, "num_heads": 2}
    made = initialise(
        InitialiseSettings.parse(
            {"tokenizer": str(tmp_path / "tokenizer"), "config": {"model_type": "t5", **sizes}}
        ),
        tmp_path / "model",
    )
    assert made.rows == 384 and made.task == "seq2seq"
    assert made.load_tokenizer()("é<extra_id_7>")["input_ids"] == [198, 172, 266, 1]


def test_bytes_can_be_extended() -> None:
    """A byte vocabulary is a BPE without merges; what is added is made of bytes, and other ids stay."""
    chosen = ExtendSettings.parse({"source": "x", "corpus": "unused", "count": 20, "auxiliary_size": 600})
    made = extend_by_text(of_bytes(count=3), sentences(0, 100), chosen)
    before, after = of_bytes(count=3), made.tokenizer
    assert {piece: after.get_vocab()[piece] for piece in before.get_vocab()} == before.get_vocab()
    assert min(after.get_vocab()[piece] for piece in made.added) == 262 and len(after) == 282
    assert sentinels(after) == [259, 260, 261]
    text = sentences(0, 100)[0]
    assert len(after.tokenize(text)) < len(text.encode())
    assert after.decode(after(text)["input_ids"], skip_special_tokens=True) == text
    assert measure(after, sentences(0, 100)).unreachable == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "bytes", "vocab_size": 300}, "fixed size"),
        ({"kind": "bpe", "sentinels": 5}, "belong to kind: bytes"),
        ({"kind": "bytes", "sentinel_order": "down"}, "sentinel_order"),
        ({"kind": "bytes", "special_tokens": {"begin": "<s>"}}, "unknown role 'begin'"),
    ],
)
def test_bad_settings_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        TokenizerForge(TokenizerSettings.parse({"corpus": "unused", **options}))


def test_bytes_follow_no_other_tokenizer() -> None:
    with pytest.raises(UserError, match="`like` is a bpe tokenizer, `kind` asks for bytes"):
        TokenizerForge(TokenizerSettings(corpus="unused", kind="bytes", like="x"), of_bytes())
