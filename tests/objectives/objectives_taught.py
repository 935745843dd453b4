"""A tiny model whose vocabulary is extended by merged tokens, in float64, and snippets of its text."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

OLD, PHRASES, PADDING = 20, {20: (3, 4), 21: (5, 6, 7), 22: (3, 4, 8)}, -1
SIZE = OLD + len(PHRASES) + 1  # one row of padding at the end


class Vocabulary:
    """What objectives ask a tokenizer for: 23 tokens, of which the first is special."""

    all_special_ids = (0,)

    def __len__(self) -> int:
        return OLD + len(PHRASES)


def model(*, tied: bool = False, seed: int = 0, size: int = SIZE, **changes: Any) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    sizes = {
        "hidden_size": 12,
        "intermediate_size": 16,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
        "attention_dropout": 0.5,
    }
    config = LlamaConfig(
        vocab_size=size,
        tie_word_embeddings=tied,
        bos_token_id=None,
        eos_token_id=None,
        **{**sizes, **changes},
    )
    made = LlamaForCausalLM(config).double().train()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(1.0 if parameter.dim() == 1 else 0.0, 0.3)
    return made


def merged(ids: list[int]) -> tuple[list[int], list[int]]:
    """The new cut of old ids (longest phrase first) and the end of each token."""
    out, ends, place = [], [], 0
    while place < len(ids):
        hits = [(len(p), n) for n, p in PHRASES.items() if tuple(ids[place : place + len(p)]) == p]
        length, token = max(hits, default=(1, ids[place]))
        place += length
        out.append(token)
        ends.append(place)
    return out, ends


TEXTS = [
    [9, 3, 4, 11, 5, 6, 7, 10, 3, 12],
    [5, 6, 7, 3, 4, 8, 13],
    [14, 15, 3, 16],  # nothing new
    [17, 0, 3, 4, 0, 3, 4, 8, 18, 19, 3, 4],
]


def blocks(texts: list[list[int]] = TEXTS, length: int = 14) -> np.ndarray:
    rows = np.full((len(texts), 3, length), PADDING)
    for row, text in zip(rows, texts, strict=True):
        new, ends = merged(text)
        for line, values in zip(row, (text, new, ends), strict=True):
            line[: len(values)] = values
    return rows


FOLD = np.array([-1, *range(1, OLD), *(pieces[0] for pieces in PHRASES.values())])


def objective(name: str, *, teacher: Any = None, fold: Any = None, **settings: Any) -> Any:
    from warmstart.objectives import objectives

    entry = objectives.get(name)
    parts = {"teacher": teacher, "fold": fold}
    wanted = {key: value for key, value in parts.items() if key in entry.target.parts and value is not None}
    return entry.target(entry.settings.parse(settings), Vocabulary(), **wanted)


def batch(made: Any, texts: list[list[int]] = TEXTS) -> dict[str, torch.Tensor]:
    return made.collate(blocks(texts), np.random.default_rng(0))


def states(reader: Any, ids: list[int], layer: int) -> torch.Tensor:
    """Hidden states of one unpadded text, in evaluation mode."""
    training = reader.training
    reader.eval()
    try:
        return reader(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states[layer][0]
    finally:
        reader.train(training)


def distribution(reader: Any, ids: list[int], place: int, known: list[int]) -> dict[int, float]:
    """Next-token probabilities over `known` after `ids[: place + 1]`, renormalised."""
    hidden = states(reader, ids[: place + 1], -1)[-1]
    raw = reader.get_output_embeddings()(hidden).detach()
    chosen = raw[known].softmax(-1)
    return dict(zip(known, chosen.tolist(), strict=True))
