"""Held-out loss after equal tokens: memory-lean optimizers against torch's AdamW and the released packages.

A small Llama with the same random weights learns the same blocks of the standard library's documentation
under each optimizer, at each rate of a grid; the best rate of each is shown, as bits per byte of held-out
text. All have the same schedule and clipping. `galore-torch` and `apollo-torch` are what the papers' authors
released. Peers that cannot be imported are left out, with a line that says why.

    python benchmarks/optimizer_loss.py                         # a 0.9M Llama, some minutes on one core
    python benchmarks/optimizer_loss.py --steps 20 --rates 0.01
"""

from __future__ import annotations

import argparse
import json
import math
import os
from typing import Any

from optimizer_memory import PEER_GROUPS, PEERS, importable_peers, peer_class

OURS = ("adamw", "galore", "fira", "apollo")
BLOCK, BATCH = 128, 8


def texts(vocab: int) -> tuple[Any, Any, int]:
    """Blocks to learn (N, L), blocks held out (M, L), and the UTF-8 bytes of the latter."""
    import torch

    from warmstart.corpus import open_corpus
    from warmstart.corpus.settings import CorpusSettings
    from warmstart.vocabulary.forge import TokenizerForge
    from warmstart.vocabulary.settings import TokenizerSettings

    corpus = open_corpus(CorpusSettings.parse("python-stdlib/docs"))
    parts = {split: [d.text for d in corpus.documents(split)] for split in ("train", "valid")}
    settings = TokenizerSettings.parse({"corpus": "python-stdlib/docs", "kind": "bpe", "vocab_size": vocab})
    tokenizer = TokenizerForge(settings).train(parts["train"])
    blocks = {}
    for split, most in (("train", 4000), ("valid", 64)):
        ids = [i for text in parts[split] for i in (*tokenizer(text)["input_ids"], tokenizer.eos_token_id)]
        count = min(most, len(ids) // BLOCK)
        blocks[split] = torch.tensor(ids[: count * BLOCK]).view(count, BLOCK)
    held = tokenizer.batch_decode(blocks["valid"], skip_special_tokens=True)
    return blocks["train"], blocks["valid"], sum(len(text.encode()) for text in held)


def llama(given: argparse.Namespace) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(given.seed)
    config = LlamaConfig(
        vocab_size=given.vocab,
        hidden_size=given.hidden,
        intermediate_size=given.hidden * 8 // 3,
        num_hidden_layers=given.layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=BLOCK,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config)


def optimizer_of(name: str, model: Any, rate: float, rank: int) -> Any:
    """One of ours, or a peer's, with the same matrices and the same rank."""
    from warmstart.training.optimizer import OptimizerContext, chosen_optimizer
    from warmstart.training.parameters import layer_matrices, parameter_groups

    named = dict(model.named_parameters())
    matrices = layer_matrices(model, named)
    if name in PEERS:
        lean = [named[key] for key in sorted(matrices)]
        rest = [p for key, p in named.items() if key not in matrices]
        projected = {"rank": rank, "update_proj_gap": 200, **PEER_GROUPS[name]}
        return peer_class(name)(
            [{"params": rest}, {"params": lean, **projected}],
            lr=rate,
            betas=(0.9, 0.95),
            eps=1e-8,
            no_deprecation_warning=True,
        )
    entry, _ = chosen_optimizer(name)
    options = entry.settings.parse({"rank": rank} if "rank" in entry.settings.model_fields else {})
    names = {parameter: key for key, parameter in named.items()}
    groups = parameter_groups(model, named, 0.0)
    return entry.target(OptimizerContext(groups, names, matrices, learning_rate=rate), options)


def learn(name: str, rate: float, given: argparse.Namespace, data: tuple[Any, Any, int]) -> float:
    """Bits per byte of the held-out blocks after training."""
    import torch

    train, held, num_bytes = data
    model = llama(given)
    optimizer = optimizer_of(name, model, rate, given.hidden // 4)
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(given.seed))
    for step in range(given.steps):
        scale = (
            min(1.0, (step + 1) / (0.05 * given.steps)) * 0.5 * (1 + math.cos(math.pi * step / given.steps))
        )
        for group in optimizer.param_groups:
            group["lr"] = rate * scale
        part = order[torch.arange(step * BATCH, (step + 1) * BATCH) % len(order)]
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=train[part], labels=train[part]).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        nats = sum(model(input_ids=b, labels=b).loss.item() * b.numel() for b in held.split(16))
    return nats / math.log(2) / num_bytes


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Bits per byte of every optimizer at every rate, and why peers are missing."""
    import torch

    torch.set_num_threads(given.threads)
    data, (peers, missing) = texts(given.vocab), importable_peers()
    found = {n: {rate: learn(n, rate, given, data) for rate in given.rates} for n in (*OURS, *peers)}
    return {"tokens": given.steps * BATCH * BLOCK, "missing": missing, "bits_per_byte": found}


def table(result: dict[str, Any]) -> str:
    """The figures for people, the best rate of each."""
    lines = [f"{result['tokens']:,} tokens", f"{'':14}{'bits per byte':>15}{'rate':>9}{'to AdamW':>10}"]
    best = {n: min((v, rate) for rate, v in rates.items()) for n, rates in result["bits_per_byte"].items()}
    for name, (value, rate) in best.items():
        lines.append(f"{name:14}{value:15.3f}{rate:9g}{value / best['adamw'][0]:10.3f}")
    return "\n".join([*lines, *(f"not measured: {reason}" for reason in result["missing"])])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--vocab", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.0005, 0.001, 0.002, 0.005, 0.01, 0.02])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    given = parser.parse_args()
    if min(given.layers, given.vocab, given.steps, given.threads) < 1 or given.hidden % 4 or given.hidden < 8:
        parser.error("sizes, steps and threads must be positive, and --hidden a multiple of 4, at least 8")
    os.environ["OMP_NUM_THREADS"] = str(given.threads)
    result = measure(given)
    print(json.dumps({"options": vars(given), **result}) if given.json else table(result))


if __name__ == "__main__":
    main()
