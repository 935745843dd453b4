"""What every objective must do, with a small tokenizer and a small random model of its task."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from warmstart.foundation.contracts import Suite
from warmstart.foundation.registry import Entry
from warmstart.foundation.tasks import Task
from warmstart.objectives._base import Objective, objectives

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerFast

objective_checks = Suite("objective", objectives)
LENGTH = 48
_TEXT = (
    "In the beginning there was a small model that had read a little English, and it was asked to read "
    "more. Nobody knew how much of what it had learned would be of use; so they measured it, again and "
    "again, until the numbers agreed with one another and the answer was plain for everyone to see. "
)


@objective_checks.check()
def states_its_task(entry: Entry[type[Objective]]) -> None:
    """The class says which kind of model can be asked."""
    assert entry.target.task in get_args(Task), f"task {getattr(entry.target, 'task', None)!r}"


@objective_checks.check()
def collates_valid_batches(entry: Entry[type[Objective]]) -> None:
    """int64 inputs and labels of one batch size, ids in the vocabulary, at least one target, blocks kept."""
    import torch

    objective, blocks = _objective(entry), _blocks()
    before = blocks.copy()
    batch = objective.collate(blocks, np.random.default_rng(0))
    assert np.array_equal(blocks, before), "the blocks were changed in place"
    assert "labels" in batch and len(batch) >= 2, f"a batch of {sorted(batch)}"
    size = len(_tokenizer())
    for name, tensor in batch.items():
        assert tensor.shape[0] == len(blocks), f"{name} has shape {tuple(tensor.shape)}"
        assert tensor.dtype == torch.int64, f"{name} is {tensor.dtype}"
        ids = tensor[tensor != -100] if name == "labels" else tensor
        assert ((ids >= 0) & (ids < size)).all(), f"{name} holds ids outside the vocabulary"
    assert (batch["labels"] != -100).any(), "there is nothing to predict"


@objective_checks.check()
def is_deterministic(entry: Entry[type[Objective]]) -> None:
    """Equal blocks and draws give equal batches: exact resume depends on it."""
    first, second = (_objective(entry).collate(_blocks(), np.random.default_rng(5)) for _ in range(2))
    assert first.keys() == second.keys()
    assert all(first[name].equal(second[name]) for name in first), "two batches differ"


@objective_checks.check()
def predicts_the_text(entry: Entry[type[Objective]]) -> None:
    """Every label, special tokens aside, is a token of its own block, in the order of the text."""
    objective, blocks = _objective(entry), _blocks()
    labels = objective.collate(blocks, np.random.default_rng(1))["labels"]
    special = set(_tokenizer().all_special_ids)
    for block, row in zip(blocks, labels.tolist()):
        wanted = [token for token in row if token != -100 and token not in special]
        position = iter(block.tolist())
        assert all(token in position for token in wanted), "a label is not in the text, or out of order"


@objective_checks.check()
def hides_what_it_asks(entry: Entry[type[Objective]]) -> None:
    """No target can be read off the input: causal ones lie ahead, masked and removed ones are not there."""
    objective, blocks = _objective(entry), _blocks(count=32)
    batch = objective.collate(blocks, np.random.default_rng(2))
    inputs, targets = batch["input_ids"], objective.targets(batch["labels"])
    if objective.task == "causal":
        assert (targets[:, -1] == -100).all(), "the last position has a target although nothing follows it"
        asked = targets[:, :-1] != -100
        assert inputs[:, 1:][asked].equal(targets[:, :-1][asked]), "a target is not the token that follows"
    elif objective.task == "masked":
        asked = targets != -100
        seen = (inputs[asked] == targets[asked]).double().mean().item()
        assert seen < 0.25, f"{seen:.0%} of the targets stand unmasked in the input"
        assert inputs[~asked].numpy().tolist() == _text_of(inputs, blocks)[~asked.numpy()].tolist(), (
            "a token was changed that is not asked for"
        )
    else:
        special = set(_tokenizer().all_special_ids)
        for block, source, target in zip(blocks, inputs.tolist(), batch["labels"].tolist()):
            kept = [t for t in source if t not in special]
            asked_for = [t for t in target if t != -100 and t not in special]
            text = [t for t in block.tolist() if t not in special]
            assert sorted(kept + asked_for) == sorted(text), "text stands on both sides, or on neither"


@objective_checks.check()
def loss_is_that_of_transformers(entry: Entry[type[Objective]]) -> None:
    """The summed loss divided by the number of targets equals the model's own mean loss, and is finite."""
    import torch

    objective, model = _objective(entry), _model(entry.target.task)
    batch = objective.collate(_blocks(), np.random.default_rng(3))
    with torch.no_grad():
        total, count = objective.loss(model, batch)
        expected = model(**batch).loss
    assert count.item() > 0, "no targets"
    mean = (total / count).item()
    assert math.isfinite(mean), f"the loss is {mean}"
    assert abs(mean - expected.item()) < 1e-4 * max(1, abs(mean)), f"{mean} against {expected.item()}"


@objective_checks.check()
def gradient_reaches_every_layer(entry: Entry[type[Objective]]) -> None:
    """Gradients are finite, and each parameter that the task uses gets one that is not zero."""
    objective, model = _objective(entry), _model(entry.target.task)
    model.zero_grad()
    total, count = objective.loss(model, objective.collate(_blocks(), np.random.default_rng(4)))
    (total / count).backward()
    grads = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    missing = [name for name, grad in grads.items() if grad is None]
    assert not missing, f"no gradient for {missing[:3]}"
    assert all(bool(g.isfinite().all()) for g in grads.values() if g is not None), "a gradient is not finite"
    dead = [name for name, grad in grads.items() if grad is not None and not grad.any()]
    assert len(dead) <= len(grads) // 10, f"zero gradient for {dead[:3]}"


@objective_checks.check(tags=("random",))
def draws_differ(entry: Entry[type[Objective]]) -> None:
    """Two draws ask for different tokens of the same text."""
    first, second = (_objective(entry).collate(_blocks(), np.random.default_rng(s))["labels"] for s in (0, 1))
    assert first.shape != second.shape or not first.equal(second), "two seeds ask for the same"


def _text_of(inputs: Tensor, blocks: np.ndarray) -> np.ndarray:
    """The blocks inside whatever frame (`[CLS]` … `[SEP]`) the objective put around them."""
    if inputs.shape == blocks.shape:
        return blocks
    start = (inputs.shape[1] - blocks.shape[1]) // 2
    framed = inputs.numpy().copy()
    framed[:, start : start + blocks.shape[1]] = blocks
    return framed


def _objective(entry: Entry[type[Objective]]) -> Objective:
    return entry.target(entry.settings.parse({}), _tokenizer())


@functools.cache
def _tokenizer() -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    roles = {"bos": "<s>", "eos": "</s>", "pad": "<pad>", "unk": "<unk>", "mask": "<mask>"}
    sentinels = [f"<extra_id_{i}>" for i in range(100)]
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=480,
        special_tokens=[*roles.values(), *sentinels],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([_TEXT] * 4, trainer)
    options: dict[str, Any] = {f"{role}_token": token for role, token in roles.items()}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        cls_token="<s>",
        sep_token="</s>",
        additional_special_tokens=sentinels,
        **options,
    )


def _blocks(count: int = 4) -> np.ndarray:
    """`(count, LENGTH)` token ids of running text, without special tokens."""
    ids = np.array(_tokenizer()(_TEXT * 2, add_special_tokens=False)["input_ids"])
    return np.stack([np.resize(np.roll(ids, -7 * i), LENGTH) for i in range(count)])


@functools.cache
def _model(task: str) -> nn.Module:
    import torch
    import transformers

    size = len(_tokenizer())
    state = torch.get_rng_state()
    torch.manual_seed(0)
    try:
        if task == "causal":
            config: Any = transformers.LlamaConfig(
                vocab_size=size,
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=4 * LENGTH,
            )
            model: Any = transformers.LlamaForCausalLM(config)
        elif task == "masked":
            config = transformers.BertConfig(
                vocab_size=size,
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=4 * LENGTH,
                hidden_dropout_prob=0.0,
                attention_probs_dropout_prob=0.0,
            )
            model = transformers.BertForMaskedLM(config)
        else:
            config = transformers.T5Config(
                vocab_size=size,
                d_model=16,
                d_ff=32,
                d_kv=8,
                num_layers=2,
                num_heads=2,
                dropout_rate=0.0,
            )
            config.decoder_start_token_id = config.pad_token_id = 2
            model = transformers.T5ForConditionalGeneration(config)
    finally:
        torch.set_rng_state(state)
    return model.eval()
