"""Small checkpoints with a given tokenizer and given rows: donors and helpers for the tests of rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from warmstart.checkpoint import Lineage, save_checkpoint


def save_donor(
    folder: Path, tokenizer: PreTrainedTokenizerFast, rows: np.ndarray, head: np.ndarray | None = None
) -> str:
    """A one-layer Llama with these input rows `(V, f)` and, untied, these head rows; returns the folder."""
    config = LlamaConfig(
        vocab_size=len(rows),
        hidden_size=rows.shape[1],
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        tie_word_embeddings=head is None,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = LlamaForCausalLM(config).to(torch.from_numpy(rows).dtype)
    with torch.no_grad():
        model.get_input_embeddings().weight.copy_(torch.from_numpy(rows))
        if head is not None:
            model.get_output_embeddings().weight.copy_(torch.from_numpy(head))
    save_checkpoint(folder, model, tokenizer, lineage=Lineage.of("test"))
    return str(folder)
