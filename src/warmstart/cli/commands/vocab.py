"""Train, extend or shrink a tokenizer, measure one, give a model low-rank rows or the best new ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from warmstart.cli.commands._measuring import add_to
from warmstart.cli.operation import operation_command
from warmstart.cli.output import prints
from warmstart.cli.tables import pairs

if TYPE_CHECKING:
    from rich.console import Console


@click.group()
def command() -> None:
    """Train, extend or shrink a tokenizer, measure one, give a model low-rank rows or the best new ones."""


command.add_command(
    operation_command(
        "tokenizer",
        name="train",
        arguments=("corpus",),
        help="Train a tokenizer on CORPUS (file, folder, named set or hub id), like another one if given.\n\n"
        "\b\nExample: warmstart vocab train multi30k/de --like gpt2 --vocab-size 8000 -o tok-de",
    )
)
command.add_command(
    operation_command(
        "extend",
        arguments=("source",),
        help="Give the tokenizer SOURCE new tokens, from a text or a list. Old ids stay; "
        "`warmstart transplant` then gives a model the new rows.\n\n"
        "\b\nExample: warmstart vocab extend gpt2 --corpus multi30k/de --count 500 -o tok-de",
    )
)
command.add_command(
    operation_command(
        "drop",
        arguments=("source",),
        help="Remove the tokens that a text does not use from the tokenizer SOURCE. "
        "`warmstart transplant` then takes their rows from a model.\n\n"
        "\b\nExample: warmstart vocab drop xlm-roberta-base --corpus multi30k/de -o tok-de",
    )
)
command.add_command(
    operation_command(
        "factorise",
        arguments=("source",),
        help="Factorise the vocabulary rows of the checkpoint SOURCE: fewer numbers per token. It trains and "
        "is measured like any other; plain transformers needs `export` first.\n\n"
        "\b\nExample: warmstart vocab factorise xlm-roberta-base --rank 200 -o narrow",
    )
)
add_to(command)


def _render(console: Console, result: dict[str, Any]) -> None:
    for title, values in result.items():
        pairs(console, values, title=title.capitalize())
        console.print()


@command.command("info")
@click.argument("tokenizer")
@click.option("--corpus", help="Text to measure on: file, folder, named set or hub id.")
@click.option(
    "--against",
    metavar="TOKENIZER",
    help="Another tokenizer: which tokens do they share, and how much of the text is cut alike?",
)
@click.option(
    "--max-bytes",
    type=click.IntRange(min=1),
    default=2_000_000,
    show_default=True,
    help="UTF-8 bytes of text to read.",
)
@click.option("--trust-remote-code", is_flag=True, help="Run code that the checkpoint brings along.")
@prints(_render)
def info(
    tokenizer: str, corpus: str | None, against: str | None, max_bytes: int, trust_remote_code: bool
) -> dict[str, Any]:
    """Describe TOKENIZER: a folder, a tokenizer.json, a checkpoint or a hub id."""
    from collections import Counter

    from warmstart.vocabulary.opening import open_tokenizer
    from warmstart.vocabulary.tokens import backend_state, canonical_tokens, style_of

    opened = open_tokenizer(tokenizer, trust_remote_code=trust_remote_code)
    state, tokens = backend_state(opened), canonical_tokens(opened)
    roles = {t.role: t.string for t in tokens if t.role and t.role not in ("additional", "unused")}
    result: dict[str, Any] = {
        "tokenizer": {
            "model": state["model"]["type"],
            "spaces": style_of(state),
            "tokens": len(tokens),
            "word_starts": sum(t.starts_word for t in tokens),
            "kinds": dict(Counter("special" if t.role else "text" if t.is_text else "bytes" for t in tokens)),
            "roles": roles,
        }
    }
    if corpus:
        from warmstart.corpus import open_corpus
        from warmstart.vocabulary.forge.report import measure

        texts = (document.text for document in open_corpus(corpus).documents("all"))
        result["on " + corpus] = measure(opened, texts, max_bytes=max_bytes).model_dump(mode="json")
    if against:
        from warmstart.vocabulary.map import VocabMap

        other = open_tokenizer(against, trust_remote_code=trust_remote_code)
        relation = VocabMap.build(other, opened)
        result["against " + against] = {
            "its_tokens": len(relation.source),
            "shared": len(relation.overlap),
            "share_of_this_vocabulary": len(relation.overlap) / max(1, len(relation.text_ids)),
            "new": len(relation.new),
            "special_roles_shared": len(relation.roles),
        }
        if corpus:
            from warmstart.vocabulary.forge.change import text_change

            texts = (document.text for document in open_corpus(corpus).documents("all"))
            change = text_change(other, opened, texts, max_bytes=max_bytes)
            result["against " + against] |= {
                "its_bytes_per_token": change.before.bytes_per_token,
                "its_fertility": change.before.fertility,
                "words_cut_differently": change.words_changed,
                "documents_cut_differently": change.documents_changed,
                "examples": change.examples,
            }
    return result
