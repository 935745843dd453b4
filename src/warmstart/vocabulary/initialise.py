"""A model with random weights: what training from scratch starts from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warmstart.foundation.errors import UserError, nearest
from warmstart.vocabulary.settings import InitialiseSettings

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

    from warmstart.checkpoint import Checkpoint


def initialise(settings: InitialiseSettings, out: Path, *, replace: bool = False) -> Checkpoint:
    """Make a model of given sizes, or of those of another checkpoint, with the family's standard start.

    The weights are those that the transformers class draws for the config, from the given seed alone; the
    vocabulary size and all special ids come from the tokenizer.

    Args:
        settings: Architecture, tokenizer and seed.
        out: Folder to create.
        replace: Whether an existing folder may be replaced.

    Raises:
        UserError: For an unknown architecture, a key that the architecture does not have (with the nearest
            one), sizes that contradict each other, or too little memory.
    """
    import torch

    from warmstart.checkpoint import Lineage, resolve, save_checkpoint
    from warmstart.checkpoint.architecture import auto_class, task_of
    from warmstart.vocabulary.opening import check_opening, open_tokenizer
    from warmstart.vocabulary.transplant import padded_size, tokenizer_digest

    tokenizer = open_tokenizer(settings.tokenizer, trust_remote_code=settings.trust_remote_code)
    parent = None
    if settings.like is not None:
        parent = resolve(settings.like, trust_remote_code=settings.trust_remote_code)
    config = _config(settings, parent, tokenizer, padded_size(tokenizer, settings.pad_to_multiple_of))
    task = settings.task or (parent.task if parent else task_of(config.to_dict(), where="initialise"))
    check_opening(config, tokenizer, settings.tokenizer)
    _check_memory(config)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(settings.seed)
        with _sizes_agree(config.model_type):
            model = auto_class(task).from_config(config, dtype=torch.float32).eval()
        if getattr(config, "scale_decoder_outputs", True) is False:
            untie(model)
    lineage = Lineage.of(
        "initialise",
        settings,
        parents=[("architecture", parent)] if parent else [],
        data={"tokenizer": tokenizer_digest(tokenizer)},
        seeds={"weights": settings.seed},
        measured={"parameters": sum(p.numel() for p in model.parameters())},
    )
    return save_checkpoint(out, model, tokenizer, lineage=lineage, replace=replace)


@contextmanager
def _sizes_agree(kind: str) -> Iterator[None]:
    """Turn what the classes say about contradictory sizes into one sentence."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:  # the validators of the library raise types of their own
        reason = str(error).strip().splitlines()[-1].strip()
        raise UserError(
            f"{kind} cannot be made with these sizes: {reason}",
            where="initialise",
            fix="choose sizes that agree, such as a hidden_size that the number of heads divides",
        ) from error


def untie(model: PreTrainedModel) -> None:
    """Give a T5 v1.1 its own head rows, drawn as the family does: N(0, `initializer_factor`²).

    The configuration class of transformers 5 always says tied (v1.1 is told by `scale_decoder_outputs`), and
    a fresh model is; only a stored second matrix keeps a loaded one untied.
    """
    import torch

    head = model.get_output_embeddings()
    fresh = torch.empty_like(head.weight).normal_(0.0, float(model.config.initializer_factor))
    head.weight = torch.nn.Parameter(fresh)
    getattr(model, "all_tied_weights_keys", {}).pop("lm_head.weight", None)


def _config(
    settings: InitialiseSettings, parent: Checkpoint | None, tokenizer: PreTrainedTokenizerFast, size: int
) -> PretrainedConfig:
    from transformers import AutoConfig

    from warmstart.checkpoint.architecture import task_of
    from warmstart.vocabulary.transplant import own_pad

    wanted = dict(settings.config)
    kind = wanted.pop("model_type", None)
    if parent is not None:
        if kind not in (None, parent.family):
            raise UserError(
                f"`like` is a {parent.family}, `config.model_type` asks for {kind}",
                where="initialise",
                fix="remove one of the two",
            )
        config = AutoConfig.from_pretrained(parent.path, trust_remote_code=settings.trust_remote_code)
    else:
        task_of({"model_type": kind}, where="config.model_type")  # names the nearest known architecture
        config = AutoConfig.for_model(str(kind))
    known = {*config.to_dict(), *config.attribute_map}
    for key in wanted:
        if key not in known:
            raise UserError(
                f"{config.model_type} has no setting {key!r}", where="config", fix=nearest(key, known)
            )
    # rebuilt rather than changed in place, so that what the class derives (head_dim, layer types) follows
    base = config.to_diff_dict() if parent is not None else {}
    derived = {"layer_types", "head_dim"} if wanted else set()
    kept = {
        key: value
        for key, value in base.items()
        if key not in ("model_type", "transformers_version", "dtype", "architectures", "_name_or_path")
        and not (key in derived and key not in wanted)
    }
    old_pad = config.pad_token_id
    ids = {f"{role}_token_id": getattr(tokenizer, f"{role}_token_id") for role in ("bos", "eos", "pad")}
    with _sizes_agree(config.model_type):
        made = AutoConfig.for_model(config.model_type, **{**kept, **wanted, **ids, "vocab_size": size})
    if made.model_type in ("t5", "mt5", "umt5"):
        made.decoder_start_token_id = ids["pad_token_id"]
    if made.model_type in _FROM_PADDING:
        keep = parent is not None and "max_position_embeddings" not in wanted
        _fit_positions(made, old_pad if keep else None, own_pad(tokenizer))
    return made


_FROM_PADDING = ("roberta", "xlm-roberta", "camembert", "xlm-roberta-xl", "roberta-prelayernorm")


def _fit_positions(config: Any, old: int | None, new: int | None) -> None:
    """RoBERTa counts positions from the padding id: keep as many usable ones, and refuse a table without."""
    if new is None:
        raise UserError(
            f"{config.model_type} counts positions from the padding token and the tokenizer has none",
            where="tokenizer",
            fix="add a pad token to the tokenizer",
        )
    if old is not None:
        config.max_position_embeddings += new - old
    if config.max_position_embeddings <= new + 1:
        raise UserError(
            f"max_position_embeddings {config.max_position_embeddings} leaves no position behind "
            f"padding id {new}",
            where="config",
            fix="use a tokenizer whose pad token has a small id",
        )


def _check_memory(config: PretrainedConfig) -> None:
    """Refuse a model that does not fit into memory, before it is made."""
    import psutil

    from warmstart.anatomy import anatomy_of

    parameters = anatomy_of(config).parameters().total
    needed, available = 4 * parameters, int(psutil.virtual_memory().available)
    if needed > available:
        raise UserError(
            f"a model of {parameters:,} parameters needs about {needed / 2**30:.1f} GiB of memory, "
            f"{available / 2**30:.1f} GiB are free",
            where="initialise",
            fix="choose smaller sizes or a smaller vocabulary",
        )
