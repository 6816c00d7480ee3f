"""Weights in and out: a name or a file becomes tensors that fit their network, tensors become a file with a card.

Tensors are used only with a card whose checksum they match, so an edited or half-copied file never runs by mistake.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from safetensors import SafetensorError
from safetensors.torch import save_file

from jcs_ct.core.errors import OutputError, UsageError, WeightsError
from jcs_ct.core.version import __version__
from jcs_ct.core.whole_files import whole_file, write_whole
from jcs_ct.models import MODELS
from jcs_ct.weights import recognition, store
from jcs_ct.weights.card import WeightsCard
from jcs_ct.weights.catalogue import CITATIONS, UNKNOWN_LICENCE, entry_of_file
from jcs_ct.weights.unpickle import RawWeights, read_tensors

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

# Key of our entry in the header of a safetensors file. The only one: several would be written in a random order, and
# the same weights should give the same file.
_HEADER = "jcs_ct"

_CLASSES: dict[str, tuple[str, ...]] = {"segmentation": ("lesion",), "classification": ("no COVID-19", "COVID-19")}
_THRESHOLDS = {
    "segmentation": "not tuned: the middle of the sigmoid (the release scores at twice the mean of each map)",
    "classification": "not tuned: where the release decides, at the larger of two class probabilities",
    "backbone": "none: a backbone decides nothing",
}


def load(name_or_file: str | Path) -> tuple[dict[str, Tensor], WeightsCard]:
    """Read weights, checked against their card and against the network they are for.

    They are named by a name in the store, a `.safetensors` file with its card beside it, or a foreign checkpoint (an
    official `.pth`), for which a card is made up. Returned are tensors by the names of the network, independent of the
    file, and the card.

    Raises:
        WeightsError: Unknown name, no such file, edited or damaged file, or tensors that do not fit.
        UsageError: The card's network is not in the table.
    """
    return read_file(store.locate(name_or_file))


def read_file(
    path: Path, *, architecture: str | None = None, bn_eps: float | None = None
) -> tuple[dict[str, Tensor], WeightsCard]:
    """Read a weight file as `load` does, with a say in how a foreign one is taken.

    `architecture`: accept this network only; `bn_eps` is added to the running variances of frozen batch norms, see
    `jcs_ct.weights.recognition`.

    Raises:
        WeightsError: As `load`.
        UsageError: Unknown `architecture`, `bn_eps` out of range, or given for weights that were imported before.
    """
    raw = read_tensors(path)
    digest = store.sha256_of(path)
    if _HEADER in raw.metadata or (raw.kind == "safetensors" and _is_card(path.with_suffix(".json"))):
        if bn_eps is not None:
            raise UsageError(
                "--bn-eps is for foreign checkpoints, these weights were imported before",
                path=path,
                hint="leave it out",
            )
        tensors, card = raw.tensors, _own_card(path, digest, raw, architecture)
    else:
        found = recognition.recognise(raw.tensors, path=path, architecture=architecture, bn_eps=bn_eps)
        tensors, card = found.tensors, _imported_card(path, digest, raw, found)
    # Copies: what is returned must neither change nor block when the file is replaced later.
    return {name: tensor.clone() for name, tensor in tensors.items()}, card


def import_file(
    path: Path,
    *,
    name: str | None = None,
    architecture: str | None = None,
    bn_eps: float | None = None,
    licence: str | None = None,
    source_url: str | None = None,
    overwrite: bool = False,
) -> WeightsCard:
    """Read a weight file as `read_file` does, and keep it in the store.

    Args:
        path: An official checkpoint, an ImageNet backbone, or weights of this package with their card.
        name: What to call it; by default its name in the catalogue, or the file's name.
        architecture: Accept this network only.
        bn_eps: As in `read_file`.
        licence: Licence of the weights, where the catalogue does not know it.
        source_url: Where the file was downloaded.
        overwrite: Replace weights of this name.

    Raises:
        WeightsError: As `load`; nothing is written.
        UsageError: As `read_file`, or a name that cannot be used.
        OutputError: The name is taken, or the folder refuses the file.
    """
    if name is not None:
        store.check_free(store.check_name(name), overwrite=overwrite)  # before the long part
    tensors, card = read_file(path, architecture=architecture, bn_eps=bn_eps)
    card = replace(
        card,
        name=store.check_name(name or card.name),
        licence=licence or card.licence,
        source_url=source_url or card.source_url,
    )
    store.check_free(card.name, overwrite=overwrite)
    kept, learned = store.weights_folder() / f"{card.name}.safetensors", store.hashes_path(path)
    content = learned.read_bytes() if learned.is_file() else None
    card = write(kept, tensors, card, overwrite=True)
    if content is not None:
        write_whole(store.hashes_path(kept), content, overwrite=True)
    elif learned != store.hashes_path(kept):
        store.hashes_path(kept).unlink(missing_ok=True)  # of the weights that were replaced
    return card


def write(path: Path, tensors: Mapping[str, Tensor], card: WeightsCard, *, overwrite: bool = False) -> WeightsCard:
    """Write tensors (by the names of the network) to a `.safetensors` file, and beside it their card: both or neither.

    The card, whose `weights_sha256` is filled in, is written last, and returned.

    Raises:
        WeightsError: The tensors do not fit the card's network.
        UsageError: The card's network is not in the table.
        OutputError: One of the files exists, or cannot be written.
    """
    recognition.check(tensors, card.architecture, path=path)
    card_path = path.with_suffix(".json")
    header = json.dumps({"architecture": card.architecture, "bn_eps_folded": card.bn_eps_folded})
    is_new = not path.exists()
    try:
        with whole_file(card_path, overwrite=overwrite) as card_part, whole_file(path, overwrite=overwrite) as part:
            save_file(dict(tensors), part, metadata={_HEADER: header})
            card = replace(card, weights_sha256=store.sha256_of(part))
            card_part.write_text(card.to_json(), encoding="utf-8")
    except SafetensorError as error:
        raise OutputError("cannot be written", path=path, hint="check the disk") from error
    except OutputError:
        if is_new and not card_path.exists():
            path.unlink(missing_ok=True)  # the tensors were in place already when their card failed
        raise
    return card


def _is_card(path: Path) -> bool:
    """Tell whether a file is a card, good or bad; other programs also put JSON beside safetensors."""
    try:
        return path.is_file() and b'"weights_sha256"' in path.read_bytes()
    except OSError:
        return False


def _own_card(path: Path, digest: str, raw: RawWeights, architecture: str | None) -> WeightsCard:
    """Read the card beside weights that this package wrote, and check that the two belong together."""
    card_path = path.with_suffix(".json")
    if not card_path.exists():
        raise WeightsError(
            f"has lost its card {card_path.name}",
            path=path,
            hint="keep both files together, or import the source again",
        )
    card = WeightsCard.read(card_path)
    if card.weights_sha256 != digest:
        raise WeightsError(
            f"does not match its card {card_path.name}: one of them was changed", path=path, hint="import it again"
        )
    if architecture not in (None, card.architecture):
        raise WeightsError(
            f"this is {card.architecture}, not {architecture}", path=path, hint=f"use {card.architecture}"
        )
    recognition.check(raw.tensors, card.architecture, path=path)
    return card


def _imported_card(path: Path, digest: str, raw: RawWeights, found: recognition.Recognised) -> WeightsCard:
    """Make up the card of a checkpoint that came without one."""
    spec = MODELS[found.architecture]
    entry = entry_of_file(path.name, digest)
    kind = "ImageNet backbone" if spec.task == "backbone" else "checkpoint with the official names"
    return WeightsCard(
        name=entry.name if entry else store.name_from_file(path),
        architecture=found.architecture,
        source_file=path.name,
        source_kind=f"{kind} ({raw.kind})",
        source_sha256=digest,
        source_url=None,
        weights_sha256=digest,
        imported_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        jcs_ct_version=__version__,
        recipe=spec.recipe,
        classes=_CLASSES.get(spec.task, ()),
        threshold=None if spec.task == "backbone" else 0.5,
        threshold_from=_THRESHOLDS[spec.task],
        licence=entry.licence if entry else UNKNOWN_LICENCE,
        citation=entry.citation if entry else CITATIONS.get(found.architecture, ""),
        bn_eps_folded=found.bn_eps,
        notes=(*raw.notes, *found.notes),
    )
