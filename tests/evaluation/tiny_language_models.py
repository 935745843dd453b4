"""Small tokenizers of every kind and small random models of every family, made without any download."""

from __future__ import annotations

import functools
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

TEXT = [
    "The little river ran past the old mill, and nobody had asked it why.",
    "Größe, naïve cafés and 東京の川 are words that need more than one byte each.",
    "def under_score(value): return value + 1  # 12345 comments, don't count",
    "Another sentence follows; it is longer than the first one and it says less than the second.",
    "🙂 smiles — and dashes… at the end of it all",
]
FAMILIES = {
    "causal": ["llama", "gpt2", "gpt_neox", "gemma2", "cohere", "granite"],
    "masked": ["bert", "roberta"],
    "seq2seq": ["t5", "bart"],
}


def byte_tokenizer(*, vocab: int = 300, special: tuple[str, ...] = ("<|endoftext|>",)) -> Any:
    """Byte-level BPE as GPT-2 has it."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    size = vocab + len(special)
    made.train_from_iterator(
        TEXT, trainers.BpeTrainer(vocab_size=size, special_tokens=list(special), initial_alphabet=alphabet)
    )
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token=special[0])


def roberta_tokenizer() -> Any:
    """Byte-level BPE with `<s> … </s>` around a text."""
    made = byte_tokenizer(special=("<pad>", "<s>", "</s>", "<mask>"))
    ids = {token: made.convert_tokens_to_ids(token) for token in ("<s>", "</s>")}
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=list(ids.items())
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made.backend_tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        mask_token="<mask>",
    )


def wordpiece_tokenizer() -> Any:
    """WordPiece as BERT has it, with `[CLS] … [SEP]` around a text."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.train_from_iterator(TEXT, trainers.WordPieceTrainer(vocab_size=200, special_tokens=special))
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def unigram_tokenizer(*, sentinels: int = 20) -> Any:
    """SentencePiece Unigram as T5 has it: `▁`, byte pieces, `</s>` at the end, sentinels with falling ids."""
    special = ["<pad>", "</s>", "<unk>", "<mask>"]
    marks = [f"<extra_id_{i}>" for i in reversed(range(sentinels))]
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    made.train_from_iterator(
        TEXT, trainers.UnigramTrainer(vocab_size=150, special_tokens=special, unk_token="<unk>")
    )
    made.add_special_tokens(marks)
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
        additional_special_tokens=marks,
    )


TOKENIZERS = {
    "byte": roberta_tokenizer,
    "wordpiece": wordpiece_tokenizer,
    "unigram": unigram_tokenizer,
}


@functools.cache
def tokenizer_for(family: str) -> Any:
    """A tokenizer of the kind that the family has."""
    if family == "bert":
        return wordpiece_tokenizer()
    if family == "roberta":
        return roberta_tokenizer()
    return unigram_tokenizer() if family in ("t5", "bart") else byte_tokenizer()


def model_for(family: str, vocab: int, *, tied: bool = True, positions: int = 64) -> Any:
    """A random float64 model in evaluation mode, with weights large enough for telling losses."""
    import transformers as hf

    shape: dict[str, Any] = {
        "vocab_size": vocab,
        "hidden_size": 32,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "tie_word_embeddings": tied,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 1,
        "max_position_embeddings": positions,
    }
    made: Any
    if family == "llama":
        made = hf.LlamaForCausalLM(hf.LlamaConfig(**shape))
    elif family == "gpt2":
        made = hf.GPT2LMHeadModel(hf.GPT2Config(**shape))
    elif family == "gpt_neox":
        made = hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**shape))
    elif family == "gemma2":
        made = hf.Gemma2ForCausalLM(hf.Gemma2Config(**shape, head_dim=8, final_logit_softcapping=5.0))
    elif family == "cohere":
        made = hf.CohereForCausalLM(hf.CohereConfig(**shape, logit_scale=0.3))
    elif family == "granite":
        made = hf.GraniteForCausalLM(hf.GraniteConfig(**shape, logits_scaling=4.0))
    elif family == "bert":
        made = hf.BertForMaskedLM(hf.BertConfig(**shape))
    elif family == "roberta":
        made = hf.RobertaForMaskedLM(hf.RobertaConfig(**shape))
    elif family == "t5":
        made = hf.T5ForConditionalGeneration(
            hf.T5Config(
                **{k: v for k, v in shape.items() if k in ("vocab_size", "tie_word_embeddings")},
                d_model=32,
                d_kv=8,
                d_ff=40,
                num_layers=2,
                num_heads=4,
                decoder_start_token_id=0,
            )
        )
    else:
        made = hf.BartForConditionalGeneration(
            hf.BartConfig(
                vocab_size=vocab,
                d_model=32,
                encoder_layers=1,
                decoder_layers=1,
                encoder_attention_heads=4,
                decoder_attention_heads=4,
                encoder_ffn_dim=40,
                decoder_ffn_dim=40,
                max_position_embeddings=positions,
                tie_word_embeddings=tied,
                pad_token_id=0,
                bos_token_id=1,
                eos_token_id=1,
                decoder_start_token_id=1,
            )
        )
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(0.25 * torch.randn(parameter.shape, generator=generator))
    return made.double().eval()
