"""Which task a configuration stands for, and which auto class opens it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from warmstart.foundation.errors import UserError
from warmstart.foundation.tasks import Task

AUTO_CLASS: dict[Task, str] = {
    "causal": "AutoModelForCausalLM",
    "masked": "AutoModelForMaskedLM",
    "seq2seq": "AutoModelForSeq2SeqLM",
}
PIPELINE: dict[Task, str] = {
    "causal": "text-generation",
    "masked": "fill-mask",
    "seq2seq": "text2text-generation",
}
PIPELINE_OF_ENCODER = {
    "SequenceClassification": "text-classification",
    "TokenClassification": "token-classification",
    "QuestionAnswering": "question-answering",
    "MultipleChoice": "multiple-choice",
}
"""Head of an encoder, as its class names it behind `For`, to pipeline; others give features."""
# parameter names of the heads of masked language models: without any of them, only the encoder is stored
_MASKED_HEADS = ("predictions", "lm_head", "vocab_transform", "vocab_projector", "mlm", "decoder.bias")


def _known() -> dict[Task, Mapping[str, Any]]:
    from transformers.models.auto import modeling_auto as auto

    return {
        "causal": auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        "masked": auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        "seq2seq": auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    }


def task_of(config: Mapping[str, Any], *, where: object = None, remote: bool = False) -> Task:
    """The task of a raw `config.json`.

    The class named in `architectures` decides. A class that is no language model (the bare body, a
    classifier) is opened as what its family was pretrained as: encoder-decoder, masked, then causal.

    Args:
        config: The parsed `config.json`.
        where: Folder for the message.
        remote: Whether the folder's own code may define the model; then `auto_map` is consulted too.

    Raises:
        UserError: When no language-model class of transformers knows the architecture.
    """
    family, known = str(config.get("model_type", "")), _known()
    named = (config.get("architectures") or [""])[0]
    if remote and (task := _remote_task(config)):
        return task
    for task, classes in known.items():
        given = classes.get(family, ())
        if named and named in ((given,) if isinstance(given, str) else given):
            return task
    if named.endswith("ForPreTraining") and family in known["masked"]:
        return "masked"
    order: tuple[Task, ...] = ("causal", "masked") if config.get("is_decoder") else ("masked", "causal")
    if config.get("is_encoder_decoder") or family == "t5":
        order = ("seq2seq", *order)
    for task in order:
        if family in known[task]:
            return task
    if not family:
        raise UserError(
            "config.json names no model_type", where=where, fix="is this a checkpoint of transformers?"
        )
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    everything = {name for classes in known.values() for name in classes}
    close = difflib.get_close_matches(family, sorted(everything), n=1, cutoff=0.75)
    foreign = family in CONFIG_MAPPING_NAMES
    reason = "not as a language model" if foreign else "neither causal, masked nor encoder-decoder"
    raise UserError(
        f"unknown architecture {family!r}: transformers knows it {reason}",
        where=where,
        fix=f"did you mean {close[0]!r}?"
        if close and not foreign
        else "convert it to a language-model family that transformers knows",
    )


def _remote_task(config: Mapping[str, Any]) -> Task | None:
    mapped = config.get("auto_map") or {}
    for task, name in AUTO_CLASS.items():
        if name in mapped:
            return task
    return None


def auto_class(task: Task) -> Any:
    """The auto class of transformers that opens a checkpoint of this task."""
    import transformers

    return getattr(transformers, AUTO_CLASS[task])


def own_class(config: Mapping[str, Any]) -> Any:
    """The class that a configuration names, where it is known and no language model; else `AutoModel`.

    It opens an encoder as it is stored: the bare body, or with the head of a classifier.
    """
    import transformers

    named = str((config.get("architectures") or [""])[0])
    found = getattr(transformers, named, None)
    known = isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)
    masked = _known()["masked"].get(str(config.get("model_type", "")), ())
    speaks = named.endswith("ForPreTraining") or named in ((masked,) if isinstance(masked, str) else masked)
    return transformers.AutoModel if config.get("auto_map") or not known or speaks else found


def lacks_masked_head(task: Task, names: list[str]) -> bool:
    """Whether the stored tensors are an encoder without its masked-language-model head."""
    return task == "masked" and not any(head in name for name in names for head in _MASKED_HEADS)


def vocabulary_rows(config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """Rows of the input embedding as stored, else `vocab_size` of the configuration, else None."""
    endings = (
        "embed_tokens.weight",
        "wte.weight",
        "embed_in.weight",
        "word_embeddings.weight",
        "shared.weight",
        "tok_embeddings.weight",
    )
    found = [shape[0] for name, shape in shapes.items() if name.endswith(endings) and len(shape) == 2]
    if found:
        return max(found)
    text = config.get("text_config") or {}
    size = config.get("vocab_size", text.get("vocab_size") if isinstance(text, dict) else None)
    return int(size) if size is not None else None


def configuration(config: Mapping[str, Any]) -> dict[str, Any]:
    """What its class reads out of a `config.json`, in present spellings and with the class's own defaults.

    A file may leave out what its class assumes, and an older one names things otherwise (`rope_theta`). A
    file of a class that transformers does not know is taken as it is.
    """
    from transformers import AutoConfig, PretrainedConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    plain, family = dict(config), str(config.get("model_type", ""))
    if plain.pop("model_type", "") not in CONFIG_MAPPING_NAMES:
        return dict(config)
    full = AutoConfig.for_model(family, **plain).to_dict()
    common = PretrainedConfig().to_dict().keys() - config.keys() - {"model_type"}
    return {key: value for key, value in full.items() if key not in common}
