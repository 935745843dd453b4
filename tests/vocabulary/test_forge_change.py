"""The change report counts what it says, and the commands print it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from vocab_foreign import foreign
from vocab_tokenizers import gpt2_like, plain

from warmstart.vocabulary.forge.change import compare, text_change
from warmstart.vocabulary.forge.report import measure, unreachable_tokens
from warmstart.vocabulary.tokens import backend_state, canonical_tokens

sys.path.insert(0, str(Path(__file__).parents[1] / "cli"))
from cli_runner import call


def wordpiece(*pieces: str) -> PreTrainedTokenizerFast:
    vocab = {piece: index for index, piece in enumerate(["[UNK]", *pieces])}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]")


def test_counted_by_hand() -> None:
    """`ab` is cut in another way, `b` and `a` are not: 3 of 6 words, 2 of 3 documents."""
    old, new = wordpiece("a", "b", "##b"), wordpiece("a", "b", "##b", "ab", "##xyz")
    report = compare(old, new, new_text=["ab ab", "a b", "b ab"], old_text=["a b"])
    assert (report.tokens_before, report.tokens_after, report.added, report.removed) == (4, 6, 2, 0)
    found = report.new_text
    assert found is not None and report.old_text is not None
    assert (found.words_changed, found.documents_changed) == (3 / 6, 2 / 3)
    assert found.examples == ["ab: a ##b → ab"]
    assert (found.before.tokens, found.after.tokens) == (9, 6)
    assert (found.before.fertility, found.after.fertility) == (9 / 6, 1.0)
    assert (report.old_text.words_changed, report.old_text.documents_changed) == (0, 0)
    back = compare(new, old)
    assert (back.added, back.removed, back.new_text) == (0, 2, None)
    summary = report.summary()
    assert summary["fertility_before"] == 1.5 and summary["old_text_words_changed"] == 0
    assert compare(old, old, new_text=["ab"]).new_text == text_change(old, old, ["ab"])


def test_unreachable_new_tokens_are_named() -> None:
    old = plain("bpe", 420)
    state = backend_state(old)
    state["model"]["vocab"]["xqz"] = 500  # an entry without merges
    new = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state)))
    report = compare(old, new)
    assert (report.unreachable_new, report.unreachable_new_examples) == (1, ["xqz"])
    assert [t.string for t in unreachable_tokens(new, canonical_tokens(new), among={500})] == ["xqz"]
    assert unreachable_tokens(new, canonical_tokens(new), among={10, 11}) == []


def by_letters(kind: str) -> PreTrainedTokenizerFast:
    """Cuts words of a and b into letters, in the manner of one kind."""
    if kind == "wordpiece":
        return wordpiece("a", "b", "##a", "##b")
    if kind == "unigram":
        pieces = [("<unk>", 0.0), ("▁a", -1.0), ("▁b", -1.0), ("a", -1.0), ("b", -1.0)]
        tokenizer = Tokenizer(models.Unigram(pieces, 0))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")
    vocab = {piece: index for index, piece in enumerate(["Ġ", "a", "b", "Ġa", "Ġb"])}
    tokenizer = Tokenizer(models.BPE(vocab, [("Ġ", "a"), ("Ġ", "b")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@pytest.mark.parametrize("one", ["bpe", "unigram", "wordpiece"])
@pytest.mark.parametrize("other", ["bpe", "unigram", "wordpiece"])
def test_tokenizers_of_different_kinds_that_cut_alike_are_alike(one: str, other: str) -> None:
    """Spaces and insides of words are marked in other ways, at the start of a text or not; a cut is a cut."""
    alike = text_change(by_letters(one), by_letters(other), ["ab ba", "bb", "a"])
    assert alike.words_changed == alike.documents_changed == 0 and alike.examples == []
    longer = wordpiece("a", "b", "##a", "##b", "ba")
    different = text_change(by_letters(one), longer, ["ab ba", "bb", "a"])
    assert (different.words_changed, different.documents_changed) == (1 / 4, 1 / 3)


def test_only_so_much_text_is_read() -> None:
    limited = text_change(gpt2_like(), gpt2_like(), (f"text {i}" for i in range(10**9)), max_bytes=1000)
    assert 1000 <= limited.before.bytes < 3000
    assert limited.before == measure(gpt2_like(), (f"text {i}" for i in range(10**9)), max_bytes=1000)


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARMSTART_CACHE", str(tmp_path / "cache"))
    gpt2_like().save_pretrained(tmp_path / "old")
    (tmp_path / "new.txt").write_text("\n".join(foreign()), encoding="utf-8")
    old, wide, small = (str(tmp_path / name) for name in ("old", "wide", "small"))
    text = str(tmp_path / "new.txt")
    words = ["vocab", "extend", old, "--corpus", text, "--count", "12", "--auxiliary-size", "800", "-o", wide]
    found = json.loads(call(*words, "--json").out)
    assert found["operation"] == "extend"
    assert found["measured"]["asked"] == found["measured"]["added"] == 12
    assert found["measured"]["bytes_per_token"] > found["measured"]["bytes_per_token_before"]
    info = json.loads(call("vocab", "info", wide, "--against", old, "--corpus", text, "--json").out)
    assert info["tokenizer"]["tokens"] == 432 and info[f"against {old}"]["new"] == 12
    assert info[f"against {old}"]["words_cut_differently"] > 0.3
    assert info[f"against {old}"]["its_bytes_per_token"] < info[f"on {text}"]["bytes_per_token"]
    found = json.loads(call("vocab", "drop", wide, "--corpus", text, "-o", small, "--json").out)
    assert found["measured"]["removed"] > 10 and found["measured"]["documents_changed"] == 0
    refused = call("vocab", "extend", old, "--tokens", "New York", "-o", str(tmp_path / "x"))
    assert refused.code == 2 and "within 'New York'" in refused.err and "Traceback" not in refused.err
    few = call("vocab", "extend", old, "--corpus", text, "--count", "5000", "-o", str(tmp_path / "y"))
    assert few.code == 0 and "5,000 were asked for" in few.err
    listed = call(
        "vocab", "extend", old, "--tokens", "xqz,qqq", "--merges", "whole", "-o", str(tmp_path / "z")
    )
    assert listed.code == 0, listed.err


def test_training_in_the_manner_of_another_one_reports_the_change(tmp_path: Path) -> None:
    from warmstart.vocabulary.forge import forge
    from warmstart.vocabulary.settings import TokenizerSettings

    gpt2_like().save_pretrained(tmp_path / "old")
    (tmp_path / "one.txt").write_text("\n".join(foreign(20)), encoding="utf-8")
    corpus = {"path": str(tmp_path / "one.txt"), "unit": "file"}  # one document: nothing is held out
    chosen = TokenizerSettings.parse({"corpus": corpus, "like": str(tmp_path / "old"), "vocab_size": 400})
    report = forge(chosen, tmp_path / "made")
    change = json.loads((tmp_path / "made" / "warmstart.json").read_text())["change"]
    assert change["tokens_after"] == report.vocab_size and change["removed"] > 0
    assert change["new_text"]["after"]["tokens"] == report.tokens
