"""Step type `hypernetwork`: train a network that writes rows for any tokenizer (ZeTT)."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from warmstart.corpus.settings import CorpusSettings
from warmstart.foundation.files import atomic_folder
from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner
from warmstart.vocabulary.predictor.settings import HypernetworkSettings


class HypernetworkStep(HypernetworkSettings):
    """Train a hypernetwork for a source checkpoint; the initialiser `zett` applies it to any tokenizer."""

    source: str = Field(min_length=1)
    """Causal or masked checkpoint whose rows are predicted: folder, hub id, `name@revision`, named source or
    `${step}`."""
    corpus: CorpusSettings
    """Text whose substrings become tokens and which the source must predict."""


@operations.register(
    "hypernetwork", settings=HypernetworkStep, title="Zero-Shot Tokenizer Transfer", arxiv="2405.07883"
)
def hypernetwork_step(settings: HypernetworkStep, folder: Path, runner: Runner) -> None:
    """Train a network that writes the rows of any tokenizer; the artifact holds its weights and lineage."""
    from warmstart.checkpoint import Lineage, resolve
    from warmstart.checkpoint.save import write_record
    from warmstart.corpus import open_corpus
    from warmstart.evaluation.bits import limited
    from warmstart.vocabulary.predictor.hypernetwork import source_identity
    from warmstart.vocabulary.predictor.training import Trainer

    checkpoint = resolve(settings.source)
    tokenizer, model = checkpoint.load_tokenizer(), checkpoint.load_model()
    corpus = open_corpus(settings.corpus)
    texts = list(limited((document.text for document in corpus.documents("train")), settings.max_bytes))
    plain = {name: getattr(settings, name) for name in HypernetworkSettings.model_fields}
    options = HypernetworkSettings.model_validate(plain)
    trainer = Trainer(model, tokenizer, checkpoint.task, options, texts)
    identity = source_identity(tokenizer, [source.numpy() for source in trainer.frozen.sources])
    trainer.run(folder)
    measured = {
        "parameters": sum(p.numel() for p in trainer.network.parameters()),
        **{name: round(value, 4) for name, value in trainer.summary().items()},
    }
    if options.eval_tokenizers:
        held_out = limited((document.text for document in corpus.documents("valid")), settings.max_bytes)
        measured |= {name: round(value, 4) for name, value in trainer.measure(list(held_out)).items()}
    lineage = Lineage.of(
        "hypernetwork",
        settings,
        parents=[checkpoint],
        data={corpus.name: corpus.fingerprint},
        seeds={"seed": settings.seed},
        measured=measured,
    )
    with atomic_folder(folder / "output", replace=True) as output:
        trainer.network.save(output, {"source": checkpoint.name, "task": checkpoint.task, **identity})
        write_record(output, lineage)
