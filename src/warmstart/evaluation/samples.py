"""A sample of what a model writes, for people who read a report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from warmstart.evaluation.words import word_spans

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_EVERY = 5
"""Every fifth word of the prompt is hidden from masked and encoder-decoder models."""


def generate_sample(
    model: Any, tokenizer: PreTrainedTokenizerBase, prompt: str, max_new_tokens: int = 48
) -> str:
    """Text that the model makes of `prompt`, the same on every call.

    A causal model continues the prompt, greedily but without repeating any four tokens (small models fall
    into loops otherwise). A masked model and an encoder-decoder fill every fifth word of the prompt, which is
    hidden from them; the words they write stand in brackets. A prompt that holds mask tokens has these filled
    instead.

    Args:
        model: A causal, masked or encoder-decoder model; told apart by the class name.
        tokenizer: Its tokenizer.
        prompt: Any text; an empty one lets a causal model begin a document.
        max_new_tokens: Tokens that a causal model adds at most.

    Returns:
        The prompt and its continuation, or the prompt with its filled words.
    """
    from warmstart.evaluation.bits import limited
    from warmstart.evaluation.head import unwrap
    from warmstart.evaluation.likelihood import measuring

    inner = unwrap(model)
    text = "".join(limited([prompt]))
    with measuring(inner):
        if inner.config.is_encoder_decoder:
            return _filled_by_decoder(inner, tokenizer, text)
        if "MaskedLM" in type(inner).__name__:
            return _filled_by_masks(inner, tokenizer, text)
        return _continued(inner, tokenizer, text, max_new_tokens)


def _continued(model: Any, tokenizer: PreTrainedTokenizerBase, prompt: str, max_new_tokens: int) -> str:
    import torch

    from warmstart.evaluation.likelihood import max_positions
    from warmstart.evaluation.special import start_token

    ids = [start_token(tokenizer), *tokenizer(prompt, add_special_tokens=False)["input_ids"]]
    limit = max_positions(model)
    if limit is not None:
        max_new_tokens = min(max_new_tokens, limit // 2)
        ids = ids[-(limit - max_new_tokens) :]
    given = torch.tensor([ids], device=model.device)
    written = model.generate(
        given,
        attention_mask=torch.ones_like(given),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        no_repeat_ngram_size=4,
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else ids[0],
        eos_token_id=tokenizer.eos_token_id,
    )
    return str(tokenizer.decode(written[0], skip_special_tokens=True))


def _filled_by_masks(model: Any, tokenizer: PreTrainedTokenizerBase, prompt: str) -> str:
    import torch

    from warmstart.evaluation.likelihood import max_positions
    from warmstart.evaluation.passages import belonging, runs
    from warmstart.evaluation.special import mask_token, surrounding

    mask = mask_token(tokenizer)
    before, after = surrounding(tokenizer)
    ids, hidden = _hidden(tokenizer, prompt, belonging)
    room = (max_positions(model) or len(ids) + 2**10) - len(before) - len(after)
    ids, hidden = ids[:room], hidden[:room]
    body = [mask if hit else token for token, hit in zip(ids, hidden)]
    batch = torch.tensor([[*before, *body, *after]], device=model.device)
    # The surest mask is filled first and seen by the others, so that the pieces of a word fit each other.
    while (open_ := (batch[0] == mask).nonzero()[:, 0]).numel():
        chances = model(input_ids=batch).logits[0, open_].float().softmax(-1)
        chances[:, tokenizer.all_special_ids] = 0
        best, token = chances.max(-1)
        surest = int(best.argmax())
        batch[0, open_[surest]] = token[surest]
    filled = batch[0].tolist()[len(before) : len(before) + len(ids)]
    spans = runs([token == mask for token in body])
    return _bracketed(tokenizer, filled, spans)


def _filled_by_decoder(model: Any, tokenizer: PreTrainedTokenizerBase, prompt: str) -> str:
    import torch

    from warmstart.evaluation.passages import belonging, corrupt, runs
    from warmstart.evaluation.special import sentinels, surrounding

    before, after = surrounding(tokenizer)
    marks = sentinels(tokenizer)
    ids, hidden = _hidden(tokenizer, prompt, belonging)
    spans = runs(hidden)[: len(marks)]
    body, _ = corrupt(ids, spans, marks)
    given = torch.tensor([[*before, *body, *after]], device=model.device)
    written = model.generate(
        given,
        attention_mask=torch.ones_like(given),
        max_new_tokens=4 * sum(end - begin for begin, end in spans) + 2 * len(spans) + 8,
        do_sample=False,
        num_beams=1,
    )[0].tolist()
    answers: dict[int, list[int]] = {}
    current: list[int] | None = None
    for token in written:
        if token in marks:
            current = answers.setdefault(token, [])
        elif current is not None and token not in tokenizer.all_special_ids:
            current.append(token)
    filled: list[int] = []
    places: list[tuple[int, int]] = []
    done = 0
    for (begin, end), mark in zip(spans, marks):
        filled += ids[done:begin]
        places.append((len(filled), len(filled) + len(answers.get(mark, []))))
        filled += answers.get(mark, [])
        done = end
    return _bracketed(tokenizer, [*filled, *ids[done:]], places)


def _hidden(tokenizer: PreTrainedTokenizerBase, prompt: str, belonging: Any) -> tuple[list[int], list[bool]]:
    encoded = tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=True)
    ids = list(encoded["input_ids"])
    if tokenizer.mask_token_id is not None and tokenizer.mask_token_id in ids:
        return ids, [token == tokenizer.mask_token_id for token in ids]
    words = word_spans(prompt)
    hidden, _ = belonging(prompt, encoded["offset_mapping"], words[_EVERY - 1 :: _EVERY] or words[-1:])
    return ids, hidden


def _bracketed(tokenizer: PreTrainedTokenizerBase, ids: list[int], spans: list[tuple[int, int]]) -> str:
    """Decoded ids with `[` and `]` around the given spans; leading blanks stay outside of the brackets."""
    text, shown = "", 0
    pieces = [0, *(edge for span in spans for edge in span), len(ids)]
    for k, end in enumerate(pieces[1:]):
        whole = str(tokenizer.decode(ids[:end], clean_up_tokenization_spaces=False))
        part, shown = whole[shown:], len(whole)
        if k % 2:  # odd stretches are the filled ones
            bare = part.lstrip()
            part = f"{part[: len(part) - len(bare)]}[{bare}]"
        text += part
    return text
