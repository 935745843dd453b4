"""Step type `synthetic-speech`: codes of made-up utterances, their features and a tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from warmstart.corpus.synthetic_speech import SpeechWorldSettings
from warmstart.foundation.errors import UserError
from warmstart.foundation.files import atomic_folder
from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class SyntheticSpeechSettings(SpeechWorldSettings):
    """Speech codes without sound, in which content and speaker are known, for a text model to read."""

    source: str = Field(min_length=1)
    """Checkpoint, or tokenizer folder, of the text model whose vocabulary gets the codes."""


@operations.register(
    "synthetic-speech",
    settings=SyntheticSpeechSettings,
    title="Optimizing Speech Language Models for Acoustic Consistency",
    arxiv="2509.26276",
)
def synthetic_speech_step(settings: SyntheticSpeechSettings, folder: Path, runner: Runner) -> None:
    """Make utterances of speech codes with known content and speaker.

    The artifact holds `tokenizer/` (that of the source with one ordinary added token per code, all spelled
    with equally many characters), `text/` (`train.jsonl`, `valid.jsonl`, `test.jsonl` with the fields text,
    content: one symbol per code, and speaker), `pairs.tsv` (an utterance, and the same with another speaker
    from the middle on), `features.npz` (mean self-supervised feature of each code that occurs) and
    `codebook.npz` (centre of each code).
    """
    import warmstart.recipes.sources  # noqa: F401  named sources become known to `resolve`
    from warmstart.corpus.synthetic_speech import SpeechWorld
    from warmstart.vocabulary.opening import open_tokenizer

    plain = {name: getattr(settings, name) for name in SpeechWorldSettings.model_fields}
    world = SpeechWorld(SpeechWorldSettings.model_validate(plain))
    names = np.array(code_names(settings.codes))
    tokenizer = open_tokenizer(settings.source)
    add_codes(tokenizer, names.tolist(), settings.source)
    with atomic_folder(folder / "output", replace=True) as output:
        tokenizer.save_pretrained(output / "tokenizer")
        (output / "text").mkdir()
        for split in ("train", "valid", "test"):
            found = world.utterances(split)
            lines = [
                json.dumps(
                    {"text": "".join(names[codes]), "content": content.tolist(), "speaker": int(speaker)}
                )
                for codes, content, speaker in zip(found.codes, found.content, found.speaker)
            ]
            (output / "text" / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        pairs = ("".join(names[kept]) + "\t" + "".join(names[other]) for kept, other in zip(*world.pairs()))
        (output / "pairs.tsv").write_text("\n".join(pairs) + "\n", encoding="utf-8")
        features = world.features()
        heard = np.isfinite(features).all(axis=1)
        np.savez(output / "features.npz", words=names[heard], vectors=features[heard].astype(np.float32))
        np.savez(output / "codebook.npz", words=names, vectors=world.codebook.astype(np.float32))


def code_names(count: int) -> list[str]:
    """Tokens of codes, equally long, so that bits per byte are bits per code in another unit.

    >>> code_names(2), code_names(1001)[7]
    (['<s0>', '<s1>'], '<s0007>')
    """
    width = len(str(count - 1))
    return [f"<s{number:0{width}}>" for number in range(count)]


def add_codes(tokenizer: PreTrainedTokenizerFast, names: list[str], where: object) -> None:
    """Add codes to a tokenizer as ordinary tokens, and a mask token where it has none.

    Raises:
        UserError: A code is a token already.
    """
    from tokenizers import AddedToken

    known = set(tokenizer.get_vocab())
    for name in names:
        if name in known:
            raise UserError(f"the code {name!r} is a token of the source already", where=where)
    if tokenizer.mask_token is None:
        tokenizer.add_special_tokens({"mask_token": "<mask>"})
    tokenizer.add_tokens([AddedToken(name, normalized=False) for name in names])
