"""The model card: what a person (and the hub) reads first, written from what was measured."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from warmstart.checkpoint.architecture import AUTO_CLASS, PIPELINE, PIPELINE_OF_ENCODER
from warmstart.checkpoint.lineage import Lineage, tree_lines
from warmstart.foundation.tasks import Task

CARD_KEYS = frozenset({"title", "summary", "language", "license", "tags", "datasets", "metrics", "relation"})


def front_matter(readme: Path) -> dict[str, Any]:
    """The YAML block at the top of a card; empty when there is none or it cannot be read."""
    try:
        text = readme.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return {}
    if not text.startswith("---\n") or "\n---" not in text[4:]:
        return {}
    try:
        data = yaml.safe_load(text[4 : text.index("\n---", 4) + 1])
    except yaml.YAMLError:
        return {}
    return data if isinstance(data, dict) else {}


def render_card(
    name: str,
    task: Task,
    family: str,
    parameters: int,
    lineage: Lineage,
    card: Mapping[str, Any],
    encoder: str = "",
    form: bool = False,
) -> str:
    """Text of `README.md`.

    Args:
        name: Name of the model (its folder).
        task: What it is asked.
        family: `model_type`.
        parameters: Stored parameters, tied ones once.
        lineage: Where it comes from; its `measured` numbers become the results.
        card: What only a person knows: `title`, `summary`, `language`, `license`, `tags`, `datasets` (ids on
            the hub), `metrics` (further numbers), `relation` (`finetune`, `merge`, `adapter`, `quantized`).
        encoder: Class of an encoder without a language-model head; empty for a language model.
        form: Whether it has a form that transformers alone does not open.
    """
    pipeline = PIPELINE_OF_ENCODER.get(encoder.partition("For")[2], "feature-extraction")
    data = _metadata(name, pipeline if encoder else PIPELINE[task], family, lineage, card)
    data["library_name"] = "warmstart" if form else "transformers"
    head = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=110)
    kind = {"causal": "causal", "masked": "masked", "seq2seq": "encoder-decoder"}[task]
    what = f"An encoder ({encoder})" if encoder else f"A {kind} language model"
    body = _body(
        name,
        f"{what} of the {family} family",
        encoder or AUTO_CLASS[task],
        parameters,
        lineage,
        card,
        form,
    )
    return f"---\n{head}---\n\n" + "\n".join(body)


def _metadata(
    name: str, pipeline: str, family: str, lineage: Lineage, card: Mapping[str, Any]
) -> dict[str, Any]:
    # a local parent has no page on the hub: it is named in the lineage only
    bases = list(dict.fromkeys(_hub_sources(lineage)))
    data: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": pipeline}
    if bases:
        data["base_model"] = bases[0] if len(bases) == 1 else bases
        data["base_model_relation"] = card.get("relation") or ("finetune" if len(bases) == 1 else "merge")
    data["tags"] = list(dict.fromkeys(["warmstart", family, lineage.operation, *_texts(card.get("tags"))]))
    for key in ("language", "datasets"):
        if values := _texts(card.get(key)):
            data[key] = values
    if stated := card.get("license") or _inherited(lineage):
        data["license"] = stated
    if results := list(_numbers({**lineage.measured, **(card.get("metrics") or {})})):
        dataset = next(iter(lineage.data), "held-out text")
        data["metrics"] = [key for key, _ in results]
        data["model-index"] = [
            {
                "name": name,
                "results": [
                    {
                        "task": {"type": pipeline},
                        "dataset": {"name": dataset, "type": dataset},
                        "metrics": [{"type": key, "value": value, "name": key} for key, value in results],
                    }
                ],
            }
        ]
    return data


def _hub_sources(lineage: Lineage) -> Iterator[str]:
    """Hub ids of the nearest source along each branch; a tokenizer's or teacher's model is no base."""
    for parent in lineage.parents:
        if parent.role != "source":
            continue
        if parent.hub_id:
            yield parent.hub_id
        elif parent.lineage:
            yield from _hub_sources(parent.lineage)


def _inherited(lineage: Lineage) -> str | None:
    """The parents' licence, where all of them state the same one."""
    stated = {parent.license for parent in lineage.parents}
    return stated.pop() if len(stated) == 1 else None


def _texts(value: object) -> list[str]:
    if value is None:
        return []
    return (
        [str(v) for v in value]
        if isinstance(value, Sequence) and not isinstance(value, str)
        else [str(value)]
    )


def _numbers(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{key} ")
        elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            yield f"{prefix}{key}", value


def _body(
    name: str,
    what: str,
    opener: str,
    parameters: int,
    lineage: Lineage,
    card: Mapping[str, Any],
    form: bool,
) -> Iterator[str]:
    yield f"# {card.get('title') or name}"
    yield ""
    yield card.get("summary") or (
        f"{what} with {parameters:,} parameters, made with warmstart ({lineage.operation})."
    )
    yield from ("", "## Where it comes from", "", "```text", *tree_lines(lineage.tree(name)), "```")
    if any(parent.hub_id is None for parent in lineage.ancestors()):
        yield from ("", "Parents without a page on the hub are named by folder and fingerprint.")
    if lineage.data:
        rows = [(key, f"`{value[:16]}`") for key, value in lineage.data.items()]
        yield from ("", "## Data", "", *_table(("corpus", "fingerprint"), rows))
    numbers = [(k, _shown(v)) for k, v in _numbers({**lineage.measured, **(card.get("metrics") or {})})]
    if numbers:
        yield from ("", "## Measured", "", *_table(("what", "value"), numbers))
        if any(key.split()[-1] == "bpb" for key, _ in numbers):
            yield from ("", "`bpb`: bits per UTF-8 byte of held-out text, lower is better.")
    settings = yaml.safe_dump(lineage.settings, sort_keys=False, allow_unicode=True, width=110).rstrip()
    yield from ("", "## Settings", "", "```yaml", settings if lineage.settings else "# none", "```")
    if lineage.seeds:
        yield from ("", "Seeds: " + ", ".join(f"{k} {v}" for k, v in lineage.seeds.items()) + ".")
    if lineage.versions:
        yield from ("", "Versions: " + ", ".join(f"{k} {v}" for k, v in lineage.versions.items()) + ".")
    yield from ("", "## How to load it", "")
    if form:
        yield "transformers has no class for the parameters of this model; warmstart opens it:"
        yield from ("", "```python", "from warmstart.checkpoint import resolve", "")
        yield f'checkpoint = resolve("path/to/{name}")'
        yield from ("model, tokenizer = checkpoint.load_model(), checkpoint.load_tokenizer()", "```", "")
        yield f"`warmstart export path/to/{name} -o plain` makes a folder that transformers opens."
        yield ""
        return
    yield from ("```python", f"from transformers import {opener}, AutoTokenizer", "")
    yield f'model = {opener}.from_pretrained("path/to/{name}")'
    yield from (f'tokenizer = AutoTokenizer.from_pretrained("path/to/{name}")', "```", "")


def _shown(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"


def _table(head: tuple[str, str], rows: list[tuple[str, str]]) -> Iterator[str]:
    yield f"| {head[0]} | {head[1]} |"
    yield "|---|---:|"
    for left, right in rows:
        escaped = left.replace("|", "\\|")
        yield f"| {escaped} | {right} |"
