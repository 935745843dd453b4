"""From a name to a checkpoint: folder, named source, or hub id with its cache and offline mode."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from warmstart.checkpoint.handle import Checkpoint
from warmstart.checkpoint.verify import verify
from warmstart.foundation.errors import UserError

Resolver = Callable[[str], Path | None]
_resolvers: list[Resolver] = []

CHECKPOINT_SETTINGS = frozenset(
    ("source", "like", "reference", "teacher", "other", "helper", "donor", "encoder", "model", "base_model")
)
"""Settings that name a checkpoint, in any operation or method."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")
_ALLOWED = [
    "model*.safetensors",
    "*.json",
    "*.txt",
    "*.model",
    "*.jinja",
    "README.md",
    "LICENSE*",
]
# subfolders hold other formats; variants such as model.fp16.safetensors would be a second copy
_IGNORED = ["*/*", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "model.*.safetensors"]


def register_source_resolver(resolver: Resolver) -> Resolver:
    """Add a kind of named source: `resolver(name)` gives a folder, or None for a name it does not know.

    Called for names that are no existing folder, before the hub is asked. Usable as a decorator.
    """
    if resolver not in _resolvers:
        _resolvers.append(resolver)
    return resolver


def resolve(
    source: str | Path | Checkpoint,
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
    scan: bool = True,
) -> Checkpoint:
    """Find a checkpoint and check it before anything in it is used.

    An existing folder wins over every other meaning of the name, without a network call. Then named sources
    are asked, then the hub's cache and the hub (not with `HF_HUB_OFFLINE=1`).

    Args:
        source: Folder, named source, hub id, or `name@revision`; a ready `Checkpoint` is passed through.
        revision: Branch, tag or commit on the hub.
        trust_remote_code: Whether code that the checkpoint brings may run when it is opened.
        scan: Compare recorded hashes and look for NaN and infinite weights (reads every weight once; the
            outcome is remembered while the files stay). Without it only the structure is checked.

    Raises:
        UserError: When nothing is found under the name, or what is found is damaged or unsafe.
    """
    if isinstance(source, Checkpoint):
        return source
    text = str(source)
    folder = Path(text).expanduser()
    if folder.exists():
        if revision is not None:
            raise UserError(f"a folder has no revisions, and {revision!r} was asked for", where=folder)
        return _open(folder, trust_remote_code, scan)
    if isinstance(source, Path) or _looks_like_path(text):
        raise UserError(
            "the checkpoint folder does not exist", where=folder, fix="give an existing folder or a hub id"
        )
    for resolver in _resolvers:
        if (found := resolver(text)) is not None:
            return _open(found, trust_remote_code, scan)
    name, _, given = text.partition("@")
    if given and revision and given != revision:
        raise UserError(f"two revisions were given: {given!r} and {revision!r}", where=name)
    if Path(name).is_dir():
        raise UserError(f"a folder has no revisions, and {given!r} was asked for", where=name)
    if not _HUB_ID.fullmatch(name):
        raise UserError(
            f"{text!r} is neither an existing folder nor a hub id", fix="give a folder, or owner/name"
        )
    snapshot = _from_hub(name, given or revision, trust_remote_code)
    return _open(snapshot, trust_remote_code, scan, hub_id=name)


def _looks_like_path(text: str) -> bool:
    return text.startswith((".", "~", os.sep)) or text.endswith(os.sep) or text.count("/") > 1 or "\\" in text


def _open(folder: Path, trust: bool, scan: bool, hub_id: str | None = None) -> Checkpoint:
    checked = verify(folder, trust_remote_code=trust, hashes=scan, scan=scan, hub=hub_id or "")
    return Checkpoint(
        path=folder,
        config=checked.config,
        tensors=checked.tensors,
        hub_id=hub_id,
        revision=folder.name if hub_id else None,
        trust_remote_code=trust,
        warnings=checked.warnings,
    )


def _from_hub(name: str, revision: str | None, trust: bool) -> Path:
    """Snapshot folder of a hub model: safetensors, configuration and tokenizer, never pickled files."""
    import huggingface_hub
    from huggingface_hub import errors

    wanted = f"{name}@{revision}" if revision else name
    allowed = [*_ALLOWED, "*.py"] if trust else _ALLOWED
    try:
        return Path(
            huggingface_hub.snapshot_download(
                name, revision=revision, allow_patterns=allowed, ignore_patterns=_IGNORED
            )
        )
    except errors.GatedRepoError:
        raise UserError(
            f"the hub model {wanted!r} is gated",
            fix="accept its terms on its page, then log in with `hf auth login` or set HF_TOKEN",
        ) from None
    except errors.RepositoryNotFoundError:
        raise UserError(
            f"{wanted!r} is neither a folder here nor a public model on the hub",
            fix="check the spelling; for a private model log in with `hf auth login` or set HF_TOKEN",
        ) from None
    except errors.RevisionNotFoundError:
        raise UserError(f"the hub model {name!r} has no revision {revision!r}") from None
    except errors.LocalEntryNotFoundError as error:
        partly = isinstance(error, getattr(errors, "IncompleteSnapshotError", ()))
        state = "only partly in the local cache" if partly else "not in the local cache"
        if huggingface_hub.constants.HF_HUB_OFFLINE:
            raise UserError(
                f"{wanted!r} is no folder here and {state}, and the hub is switched off (HF_HUB_OFFLINE=1)",
                fix="give a folder, or fetch the model once while online",
            ) from None
        raise UserError(
            f"{wanted!r} is no folder here and {state}, and the hub cannot be reached",
            fix="check the network, give a folder, or fetch the model where there is a network",
        ) from None
    except errors.HFValidationError:
        raise UserError(f"{name!r} is neither an existing folder nor a valid hub id") from None
    except (errors.HfHubHTTPError, errors.OfflineModeIsEnabled, OSError) as error:
        reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
        raise UserError(
            f"the hub model {wanted!r} cannot be fetched ({reason})",
            fix="check the network, or give a folder",
        ) from error
