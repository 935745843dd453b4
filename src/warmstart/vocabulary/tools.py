"""Tools as tokens that are only written: a checkpoint gets one output row for each tool."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from warmstart.corpus.settings import CorpusSettings
from warmstart.foundation.errors import UserError, nearest
from warmstart.foundation.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from warmstart.checkpoint import Checkpoint

FILE = "tools.json"
"""File of a checkpoint: name of each tool -> its id."""


class AddToolsSettings(Settings):
    """Give a causal model one token for each tool, with output rows to begin from; nothing is trained."""

    source: str = Field(min_length=1)
    """Checkpoint of a causal model: folder, hub id, `name@revision`, named source or `${step}`."""
    tools: dict[str, str] | list[str] = []
    """Names of the tools, or name -> description; the description makes the row instead of the name."""
    corpus: CorpusSettings | None = None
    """Texts with calls, instead of `tools`: all tools that are called in them, in any part."""
    rows: Literal["prior", "mean", "random"] = "prior"
    """Output rows to begin from. `prior`: the model's own states for the name (see
    [`tool_prior`][warmstart.objectives.tool_rows.tool_prior]). `mean`: the mean of the input rows of the
    name's tokens, which lie in another space than output rows unless the model ties the two. `random`:
    uniform between -1 / sqrt(H) and 1 / sqrt(H), as in ToolkenGPT."""
    bos: bool = False
    """Whether `prior` reads the beginning-of-text token first (its state is left out)."""
    scale: float | None = Field(default=None, gt=0)
    """Divisor of the unit vectors of `prior`; sqrt(H) where not given. The released code has sqrt(5120)."""
    seed: int = Field(default=0, ge=0)
    """Seed of `random`."""
    trust_remote_code: bool = False
    """Run code that the source checkpoint brings along."""


def add_tools(settings: AddToolsSettings, out: Path, *, replace: bool = False) -> Checkpoint:
    """Extend a checkpoint by tools: an added token `<name>`, an output row and an entry in `tools.json` each.

    All old rows and all other weights stay bit for bit. Tools are written, never read: text with the result
    of a call stands in the input. Their input rows, where the model has separate ones, are the means of the
    names' input rows; a bias of the head is 0 for them. In a tied model input and output rows are one.

    A name is read as a word of running text, with a space before it where the tokenizer makes one part of
    its tokens; the released code leaves this to LLaMA's tokenizer, which always puts one.

    Args:
        settings: Source, tools and how their rows begin.
        out: Folder to create.
        replace: Whether an existing folder may be replaced.

    Raises:
        UserError: Not a causal model; no tools, an empty name, a name twice, or a tool that is a token.
    """
    import torch

    from warmstart.checkpoint import Lineage, resolve, save_checkpoint

    source = resolve(settings.source, trust_remote_code=settings.trust_remote_code)
    if source.task != "causal":
        raise UserError(
            f"tools are output rows of causal models, and this is a {source.task} one", where=settings.source
        )
    tokenizer = source.load_tokenizer()
    known = read_tools(source.path) if (source.path / FILE).is_file() else {}
    texts, data = _texts(settings)
    added = add_tokens(tokenizer, list(texts))
    model = source.load_model()
    bare = source.load_tokenizer()
    ids, rows = np.array(list(added.values())), initial_rows(model, bare, list(texts.values()), settings)
    means = initial_rows(model, bare, list(texts.values()), settings.model_copy(update={"rows": "mean"}))
    write_rows(model, torch.from_numpy(ids), rows, means)
    lineage = Lineage.of(
        "add-tools",
        settings.model_dump(mode="json", exclude_unset=True),
        parents=[source],
        data=data,
        seeds={"rows": settings.seed},
        measured={"tools": len(ids), "mean length of their rows": float(rows.norm(dim=1).mean())},
    )
    made = save_checkpoint(out, model, tokenizer, lineage=lineage, replace=replace)
    write_tools(out, known | added)
    return made


def _texts(settings: AddToolsSettings) -> tuple[dict[str, str], dict[str, str]]:
    """Name of each tool -> text of its row, and fingerprints of what named them."""
    from warmstart.corpus.calls import open_calls, tools_in

    if (settings.corpus is None) == (not settings.tools):
        raise UserError(
            "tools come either from `tools` or from the calls of a `corpus`",
            where="add-tools",
            fix="give exactly one of the two",
        )
    if settings.corpus is not None:
        corpus = open_calls(settings.corpus)
        return {name: name for name in sorted(tools_in(corpus))}, {corpus.name: corpus.fingerprint}
    if isinstance(settings.tools, dict):
        return dict(settings.tools), {}
    for name in settings.tools:
        if settings.tools.count(name) > 1:
            raise UserError(f"the tool {name!r} is named twice", where="tools", fix="name it once")
    return {name: name for name in settings.tools}, {}


def tool_token(name: str) -> str:
    """The token of a tool: its name in angle brackets.

    >>> tool_token("add"), tool_token("<add>")
    ('<add>', '<add>')
    """
    plain = name.strip()
    return plain if plain.startswith("<") and plain.endswith(">") and len(plain) > 2 else f"<{plain}>"


def add_tokens(tokenizer: PreTrainedTokenizerFast, names: list[str]) -> dict[str, int]:
    """Add the tokens of tools to a tokenizer; name -> id.

    Raises:
        UserError: A name is empty, two names mean the same token, or a token exists.
    """
    from tokenizers import AddedToken

    taken = {name: tool_token(name) for name in names}
    vocabulary, owner = tokenizer.get_vocab(), dict[str, str]()
    for name, token in taken.items():
        if not name.strip().strip("<>").strip():
            raise UserError(f"the name {name!r} of a tool is empty", where="tools", fix="give it a name")
        if token in owner:
            raise UserError(
                f"the tool {name!r} is named twice: {owner[token]!r} is the same token",
                where="tools",
                fix="name it once",
            )
        if token in vocabulary:
            raise UserError(
                f"the tool {name!r} cannot be added: {token!r} is a token already",
                where="tools",
                fix="choose another name",
            )
        owner[token] = name
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in taken.values()])
    return {name: int(tokenizer.convert_tokens_to_ids(token)) for name, token in taken.items()}  # type: ignore[arg-type]


def initial_rows(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, texts: list[str], settings: AddToolsSettings
) -> Tensor:
    """Rows of tools before training, (K, H).

    Args:
        model: Without the tools.
        tokenizer: Without the tools.
        texts: Name or description of each tool.
        settings: How rows are made.
    """
    import torch

    from warmstart.objectives.tool_rows import name_ids, tool_prior

    space = joins_space(tokenizer)
    inputs: Any = model.get_input_embeddings().weight
    ids = [name_ids(tokenizer, text, space=space) for text in texts]
    if settings.rows == "mean":
        return torch.stack([inputs.detach()[row].mean(0) for row in ids])
    if settings.rows == "random":
        width = inputs.shape[1]
        draw = np.random.default_rng(settings.seed).uniform(-1, 1, (len(texts), width)) / np.sqrt(width)
        return torch.from_numpy(draw).to(inputs)
    return tool_prior(model, tokenizer, texts, bos=settings.bos, space=space, scale=settings.scale).detach()


def joins_space(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether words of running text are cut with the space before them, and only if it is written."""
    from warmstart.vocabulary.tokens import backend_state, style_of

    if style_of(backend_state(tokenizer)) != "bytes":
        return False
    return any(string.startswith("Ġ") and len(string) > 1 for string in tokenizer.get_vocab())


def write_rows(model: PreTrainedModel, ids: Tensor, rows: Tensor, inputs: Tensor) -> None:
    """Put output rows `rows` (K, H) and, where the model has separate ones, input rows `inputs` at `ids`.

    The matrices grow where they have no such rows yet; padding rows that are there are used.
    """
    import torch

    before: Any = model.get_input_embeddings().weight
    if (size := int(ids.max()) + 1) > before.shape[0]:
        with torch.random.fork_rng(devices=[]):  # the library draws the new rows
            model.resize_token_embeddings(size, mean_resizing=False)
    table: Any = model.get_input_embeddings().weight
    head: Any = model.get_output_embeddings()
    with torch.no_grad():
        table[ids] = inputs.to(table)
        head.weight[ids] = rows.to(head.weight)
        if getattr(head, "bias", None) is not None:
            head.bias[ids] = 0.0


def read_tools(folder: Path) -> dict[str, int]:
    """Name of each tool of a checkpoint -> its id.

    Raises:
        UserError: It has none, or the list cannot be read.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        raise UserError(
            "this checkpoint has no tools", where=folder, fix="add them first, with a step of type add-tools"
        )
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(type(index) is int for index in found.values()):
        raise UserError("this is no list of tools", where=path, fix='write {"name": id, …}')
    return found


def write_tools(folder: Path, tools: Mapping[str, int]) -> None:
    """Write the file that `read_tools` reads."""
    text = json.dumps(dict(tools), indent=1, ensure_ascii=False) + "\n"
    (Path(folder) / FILE).write_text(text, encoding="utf-8")


def id_of(tools: Mapping[str, int], name: str, where: object) -> int:
    """Id of a tool; one that the checkpoint lacks is a `UserError` with the nearest."""
    if name not in tools:
        raise UserError(f"the checkpoint has no tool {name!r}", where=where, fix=nearest(name, tools))
    return tools[name]
