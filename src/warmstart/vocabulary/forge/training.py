"""Training the vocabulary itself, and putting it into a skeleton with the ids in a settled order."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from warmstart.foundation.errors import UserError
from warmstart.vocabulary.forge.byte_tokenizer import byte_model
from warmstart.vocabulary.forge.skeleton import Skeleton, fill_template
from warmstart.vocabulary.forge.supertokens import chunks
from warmstart.vocabulary.forge.unigram import count_words, train_unigram
from warmstart.vocabulary.settings import TokenizerSettings
from warmstart.vocabulary.tokens import byte_alphabet, splits_words

BYTES_PER_TOKEN = 1000
"""Memory that a vocabulary takes per token while it is made, in Python and in the library together."""
_CHUNK = 1000  # texts handed over at a time; the trainer itself keeps only word counts


def train_state(texts: Iterable[str], skeleton: Skeleton, settings: TokenizerSettings) -> dict[str, Any]:
    """A complete tokenizer.json dictionary, trained on `texts`.

    Ids run: front special tokens, byte pieces where there are any, learned tokens, back special tokens. The
    learned part is trained without special tokens, which therefore never take part in merges.

    The result depends on the texts alone. Unigram is therefore trained by
    [`train_unigram`][warmstart.vocabulary.forge.unigram.train_unigram]. WordPiece needs a first pass: the
    library's trainer numbers its `##` characters in the order of a randomly seeded hash table and breaks
    ties by these numbers, so the alphabet is settled beforehand. The texts lie in a temporary file meanwhile.

    Raises:
        UserError: When the text is empty or the vocabulary size has no room for the obligatory tokens.
    """
    from tokenizers import Tokenizer

    if skeleton.kind == "bytes":
        return assemble(skeleton, byte_model(), fallback=False)
    check_room(settings.vocab_size, "tokenizer")
    fallback = bool(skeleton.state["model"].get("byte_fallback"))
    fixed = skeleton.special_count + (256 if fallback else 0)
    room = settings.vocab_size - fixed
    least = 256 if skeleton.style == "bytes" else 1
    if room < least:
        raise UserError(
            f"vocab_size {settings.vocab_size} has no room for {fixed} fixed and {least} basic tokens",
            where="tokenizer",
            fix=f"set vocab_size to at least {fixed + least}",
        )
    bare = {**skeleton.state, "model": _empty_model(skeleton), "post_processor": None}
    if skeleton.style == "metaspace" and bare.get("pre_tokenizer") is None:
        # Llama-style BPE has no pre-tokeniser; merges across spaces are still not wanted while training
        bare["pre_tokenizer"] = {
            "type": "Split",
            "pattern": {"String": "▁"},
            "behavior": "MergedWithNext",
            "invert": False,
        }
    tokenizer = Tokenizer.from_str(json.dumps(bare))
    counted = _Counted(texts)
    if skeleton.kind == "unigram":
        words = count_words(counted, tokenizer)
        pieces = train_unigram(words, room, max_piece_length=settings.max_piece_length) if words else []
        learned: dict[str, Any] = {"vocab": [list(pair) for pair in pieces]}
    elif skeleton.kind == "wordpiece":
        repeatable = _Spooled(iter(counted))
        twin = Tokenizer.from_str(json.dumps(bare))  # the trained one is locked while it reads the texts
        alphabet = _alphabet(repeatable, twin, settings.limit_alphabet)
        trainer = _wordpiece_trainer(skeleton, settings, room, alphabet)
        tokenizer.train_from_iterator(_chunks(_within(repeatable, twin, set(alphabet))), trainer=trainer)
        learned = json.loads(tokenizer.to_str())["model"]
    else:
        trainer = _bpe_trainer(skeleton, settings, room)
        seen = chunks(counted, settings) if settings.supertokens else counted
        tokenizer.train_from_iterator(_chunks(seen), trainer=trainer)
        learned = json.loads(tokenizer.to_str())["model"]
    if not counted.characters:
        raise UserError("the corpus has no text to train a tokenizer on", where=settings.corpus.path)
    return assemble(skeleton, learned, fallback=fallback)


def assemble(skeleton: Skeleton, learned: dict[str, Any], *, fallback: bool) -> dict[str, Any]:
    """Put a learned model (the `model` table of a tokenizer.json) into the skeleton."""
    front = [token["content"] for token in skeleton.front]
    back = [token["content"] for token in skeleton.back]
    reserved = {*front, *back}
    pieces = [f"<0x{byte:02X}>" for byte in range(256)] if fallback else []
    fixed = {*reserved, *pieces}
    model = dict(skeleton.state["model"])
    if skeleton.kind == "unigram":
        scored = [(piece, score) for piece, score in learned["vocab"] if piece not in fixed]
        model["vocab"] = [[piece, 0.0] for piece in (*front, *pieces)] + [list(pair) for pair in scored]
        unk = skeleton.roles.get("unk")
        model["unk_id"] = front.index(unk) if unk in front else None
        strings = [piece for piece, _ in model["vocab"]]
    else:
        ordered = sorted(learned["vocab"], key=learned["vocab"].__getitem__)
        strings = [*front, *pieces, *(piece for piece in ordered if piece not in fixed)]
        model["vocab"] = {piece: index for index, piece in enumerate(strings)}
        if skeleton.kind in ("bpe", "bytes"):
            model["merges"] = [list(m) if not isinstance(m, str) else m for m in learned["merges"]]
            if (unk := model.get("unk_token")) is not None and unk not in reserved:
                model["unk_token"] = None
    ids = {string: index for index, string in enumerate([*strings, *back])}
    added = [{"id": ids[token["content"]], **token} for token in (*skeleton.front, *skeleton.back)]
    template = fill_template(skeleton.state.get("post_processor"), ids)
    return {**skeleton.state, "added_tokens": added, "post_processor": template, "model": model}


def check_room(tokens: int, where: str) -> None:
    """Refuse a vocabulary that does not fit into memory, before anything is made of it.

    Trainers allocate their tables for the size asked for, whatever the text supports.
    """
    import psutil

    needed, available = tokens * BYTES_PER_TOKEN, int(psutil.virtual_memory().available)
    if needed > available:
        raise UserError(
            f"a vocabulary of {tokens:,} tokens needs about {needed / 2**30:.1f} GiB of memory, "
            f"{available / 2**30:.1f} GiB are free",
            where=where,
            fix="ask for fewer tokens",
        )


def _empty_model(skeleton: Skeleton) -> dict[str, Any]:
    options = dict(skeleton.state["model"])
    if skeleton.kind == "unigram":
        return {**options, "vocab": [["<unk>", 0.0]], "unk_id": 0, "byte_fallback": False}
    if skeleton.kind == "bpe":
        return {**options, "vocab": {}, "merges": [], "unk_token": None, "byte_fallback": False}
    return {**options, "vocab": {options["unk_token"]: 0}}


def _bpe_trainer(skeleton: Skeleton, settings: TokenizerSettings, room: int) -> Any:
    from tokenizers import trainers

    byte_level = skeleton.style == "bytes"
    options: dict[str, Any] = {"limit_alphabet": settings.limit_alphabet}
    if byte_level:
        options = {"initial_alphabet": sorted(byte_alphabet())}
    if settings.supertokens:
        options["max_token_length"] = settings.max_token_length + 1  # the library stays below it
    for name in ("continuing_subword_prefix", "end_of_word_suffix"):
        if skeleton.state["model"].get(name):
            options[name] = skeleton.state["model"][name]
    return trainers.BpeTrainer(
        vocab_size=room, min_frequency=settings.min_frequency, show_progress=False, **options
    )


def _wordpiece_trainer(
    skeleton: Skeleton, settings: TokenizerSettings, room: int, alphabet: list[str]
) -> Any:
    from tokenizers import trainers

    options = skeleton.state["model"]
    prefix = options["continuing_subword_prefix"]
    inside = [prefix + character for character in alphabet if not splits_words(character)]
    return trainers.WordPieceTrainer(
        vocab_size=room + 1,  # the unknown token is among them and already counted as special
        special_tokens=[options["unk_token"], *alphabet, *inside],
        min_frequency=settings.min_frequency,
        limit_alphabet=len(alphabet),
        continuing_subword_prefix=prefix,
        show_progress=False,
    )


def _alphabet(texts: Iterable[str], tokenizer: Any, limit: int) -> list[str]:
    """The `limit` most frequent characters as the trainer will see them, in order of code point."""
    counts: Counter[str] = Counter()
    for text in texts:
        seen = tokenizer.normalizer.normalize_str(text) if tokenizer.normalizer else text
        counts.update("".join(seen.split()))
    kept = sorted(counts, key=lambda character: (-counts[character], character))[:limit]
    return sorted(kept)


def _within(texts: Iterable[str], tokenizer: Any, alphabet: set[str]) -> Iterator[str]:
    """Texts without the words that contain a character outside the alphabet; normalised where that occurs."""
    for text in texts:
        seen = tokenizer.normalizer.normalize_str(text) if tokenizer.normalizer else text
        if set("".join(seen.split())) <= alphabet:
            yield text
        else:
            yield " ".join(word for word in seen.split() if set(word) <= alphabet)


class _Spooled:
    """A one-shot iterator made repeatable: the first pass is written to a temporary file."""

    def __init__(self, texts: Iterator[str]) -> None:
        import tempfile

        self._texts: Iterator[str] | None = texts
        self._file = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 (lives as long as this)

    def __iter__(self) -> Iterator[str]:
        if self._texts is not None:
            for text in self._texts:
                self._file.write(json.dumps(text) + "\n")
            self._texts = None
        self._file.seek(0)
        for line in self._file:
            yield json.loads(line)


class _Counted:
    """Passes texts on and counts their characters."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts, self.characters = texts, 0

    def __iter__(self) -> Iterator[str]:
        for text in self._texts:
            self.characters += len(text.strip())
            yield text


def _chunks(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == _CHUNK:
            yield batch
            batch = []
    if batch:
        yield batch
