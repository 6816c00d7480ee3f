"""`jcs models`: what weights there are, and how they come in. Listing and showing load no PyTorch."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from jcs_ct.cli.common import (
    PATH,
    Group,
    aligned,
    json_option,
    overwrite_option,
    quiet_option,
    threads_option,
    verbose_option,
)
from jcs_ct.weights.catalogue import CATALOGUE, Entry
from jcs_ct.weights.store import (
    SHIPPED,
    SHIPPED_TITLE,
    Stored,
    check_name,
    find_stored,
    list_stored,
    remove,
    unknown_name,
    weights_folder,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from jcs_ct.weights.card import WeightsCard

INTERNAL = frozenset(
    {"schema_version", "bn_eps_folded", "mirror", "patient", "whole_study", "temperature", "jcs_ct_version"}
    | {"source_sha256", "name"}
)
"""Fields of a card that only programs read: `--json` prints them."""

FORMATS = ("onnx", "openvino", "torchscript", "monai-bundle")  # of `jcs_ct.inference.exported`, which loads PyTorch
replace_option = click.option("--overwrite", is_flag=True, help="Replace weights of this name.")


@click.group(cls=Group)
def models() -> None:
    """List, show, import, download, export and remove weights.

    Imported weights are kept in JCS_HOME/weights (default: the platform's cache folder), each as a safetensors file
    with a JSON card beside it: its source, checksums, licence, preprocessing and threshold.
    """


@models.command()
@click.argument("model", metavar="NAME|FILE")
@click.option("--format", "kind", type=click.Choice(FORMATS), required=True, help="Format to write.")
@click.option(
    "-o", "--out", type=PATH, help="File to write (a folder for monai-bundle); default: after the weights' name."
)
@overwrite_option
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON on standard output.")
@quiet_option
@verbose_option
@threads_option
def export(model: str, kind: str, out: Path | None, overwrite: bool, as_json: bool, quiet: bool) -> None:
    """Write the weights NAME (or FILE) as a file for other programs, and check it.

    A manifest (.json) next to it states checksums, inputs, outputs, and the deviation from the original network at
    several sizes. An ONNX, OpenVINO or TorchScript file can serve as --model.
    """
    from jcs_ct.inference import open_network
    from jcs_ct.inference.export import export as write

    network = open_network(model, "cpu", runtime="torch")
    done = write(network, kind, out, overwrite=overwrite)
    if as_json:
        click.echo(json.dumps(json.loads(done.manifest_path.read_bytes()), indent=2, ensure_ascii=False))
    if not quiet:
        for check in done.manifest.parity:
            size = f"{check['batch']}×{check['rows']}×{check['columns']}"
            differences = ", ".join(f"{name} {value:.2g}" for name, value in check["differences"].items())
            click.echo(f"jcs: checked with {check['checked_with']} at {size}: {differences}", err=True)
        click.echo(f"jcs: {done.path} is written, its manifest is {done.manifest_path}", err=True)


@models.command("list")
@json_option
@verbose_option
def list_command(as_json: bool) -> None:
    """List the weights on this machine, and those that you can get."""
    rows = _rows()
    if as_json:
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    table = [("NAME", "ARCHITECTURE", "STATE", "SIZE", "WHAT")]
    table += [(r["name"], r["architecture"] or "?", r["state"], _size(r["size"]), r["what"]) for r in rows]
    click.echo("\n".join(aligned(table)))
    click.echo(f"\nOn this machine: {weights_folder()}")
    click.echo("More about one: jcs models show NAME")


@models.command()
@click.argument("name")
@json_option
@verbose_option
def show(name: str, as_json: bool) -> None:
    """Show what is known about the weights NAME: what they were trained on, scores, licence, and how to get them."""
    stored, entry = find_stored(check_name(name)), CATALOGUE.get(name)
    if stored is None and entry is None:
        raise unknown_name(name)
    facts = _stored_facts(stored) if stored else {}
    if entry and not (stored and stored.card):
        facts |= _entry_facts(entry)
    if as_json:
        click.echo(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    known = _to_read(facts)
    facts = {"name": name, "what": _what(stored) if stored else "", "trained on": known.pop("trained on", ""), **known}
    facts = {key: value for key, value in facts.items() if value not in ("", None, [])}
    width = max(map(len, facts))
    for key, value in facts.items():
        lines = value if isinstance(value, list) else [value]
        for i, line in enumerate(lines):
            click.echo(f"{key if i == 0 else '':{width}}  {line}".rstrip())


@models.command("remove")
@click.argument("name")
@quiet_option
@verbose_option
def remove_command(name: str, quiet: bool) -> None:
    """Remove the weights NAME from this machine. Weights that come with jcs-ct stay."""
    freed = remove(name)
    if not quiet:
        click.echo(f"jcs: {name} is removed ({_size(freed)})", err=True)


@models.command("import")
@click.argument("file", type=PATH)
@click.option(
    "--name", metavar="N", help="Name to store them under (default: from the catalogue, otherwise from the file)."
)
@click.option(
    "--as", "architecture", metavar="ARCH", help="Accept only this network (default: recognised from the tensors)."
)
@click.option(
    "--bn-eps",
    type=float,
    metavar="VALUE",
    help="Added to the variances of frozen batch norms. Default: 1e-5 for ImageNet backbones (as they were trained), "
    "0 for JCS checkpoints; 0 is what the release does with every file.",
)
@click.option("--licence", "--license", metavar="TEXT", help="Licence of the weights, kept in the card.")
@replace_option
@json_option
@quiet_option
@verbose_option
def import_command(file: Path, as_json: bool, quiet: bool, **options: Any) -> None:
    """Import a checkpoint FILE (.pth, .pt, .safetensors): an official one, an ImageNet backbone, or one of jcs-ct.

    Only tensors are read. Nothing in the file is run.
    """
    from jcs_ct.weights.loading import import_file

    _report(import_file(file, **options), as_json=as_json, quiet=quiet)


@models.command()
@click.argument("name")
@click.option(
    "--from", "source", metavar="FILE|URL", help="Take a file that you downloaded, or another address (https)."
)
@click.option("--proxy", metavar="URL", help="Proxy to use (default: from HTTPS_PROXY and its relatives).")
@replace_option
@json_option
@quiet_option
@verbose_option
def download(name: str, source: str | None, proxy: str | None, overwrite: bool, as_json: bool, quiet: bool) -> None:
    """Download the weights NAME from the catalogue, check them and import them. A stopped download continues."""
    from jcs_ct.weights.obtain import obtain

    stored = find_stored(name)
    if stored and stored.card and not overwrite and not quiet:
        click.echo(f"jcs: {name} is on this machine already (--overwrite fetches it again)", err=True)
    with _progress(name, quiet=quiet) as progress:
        card = obtain(name, source=source, proxy=proxy, overwrite=overwrite, progress=progress)
    _report(card, as_json=as_json, quiet=quiet)


def _report(card: WeightsCard, *, as_json: bool, quiet: bool) -> None:
    """Say what was imported, and everything a user should know about it."""
    if as_json:
        click.echo(card.to_json(), nl=False)
    if not quiet:
        for note in card.notes:
            click.echo(f"jcs: note: {note}", err=True)
        click.echo(f"jcs: {card.name} is ready ({card.architecture}, licence: {card.licence})", err=True)


@contextmanager
def _progress(name: str, *, quiet: bool) -> Iterator[Callable[[int, int | None], None] | None]:
    """Yield a function that shows how far a download is: a bar on a terminal, a line every tenth in a log."""
    if quiet:
        yield None
        return
    from tqdm import tqdm

    on_terminal = sys.stderr.isatty()
    with tqdm(desc=name, unit="B", unit_scale=True, leave=False, disable=not on_terminal) as bar:
        shown = 0

        def advance(done: int, total: int | None) -> None:
            nonlocal shown
            bar.total = total
            bar.n = done
            bar.refresh()
            tenth = 10 * done // total if total else 0
            if not on_terminal and tenth > shown:
                click.echo(f"jcs: {name}: {10 * tenth} % of {_size(total)}", err=True)
                shown = tenth

        yield advance


def _rows() -> list[dict[str, Any]]:
    """Return a row for everything on this machine, then for the rest of the catalogue."""
    here = list_stored()
    names = {stored.name for stored in here}
    rows: list[tuple[Any, ...]] = [
        (one.name, one.card and one.card.architecture, "ready" if one.card else "damaged", one.size, _what(one))
        for one in here
    ]
    rows += [
        (entry.name, entry.architecture, "to download" if entry.url else "by hand", entry.size, entry.title)
        for entry in CATALOGUE.values()
        if entry.name not in names
    ]
    return [dict(zip(("name", "architecture", "state", "size", "what"), row, strict=True)) for row in rows]


def _what(stored: Stored) -> str:
    """Return what weights are, in a line."""
    entry, card = CATALOGUE.get(stored.name), stored.card
    if card is not None and stored.name == SHIPPED:
        return SHIPPED_TITLE
    return entry.title if entry else f"{card.source_kind}: {card.source_file}" if card else stored.problem or ""


def _to_read(facts: dict[str, Any]) -> dict[str, Any]:
    """Return what a person wants to know of weights, the numbers of fitted rules and of formats left out."""
    plain = {key.replace("_", " "): value for key, value in facts.items() if key not in INTERNAL}
    if isinstance(plain.get("size"), int):
        plain["size"] = _size(plain["size"])
    if isinstance(plain.get("download size"), int):
        plain["download size"] = _size(plain["download size"])
    if plain.get("covid threshold") is not None:
        plain["covid threshold"] = round(plain["covid threshold"], 3)
    if isinstance(plain.get("classes"), list):
        plain["classes"] = ", ".join(plain["classes"])
    return plain


def _stored_facts(stored: Stored) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "state": "ready" if stored.card else "damaged",
        "file": str(stored.path),
        "size": stored.size,
    }
    return facts | (stored.card.to_dict() if stored.card else {"problem": stored.problem})


def _entry_facts(entry: Entry) -> dict[str, Any]:
    """Return what the catalogue knows about weights that cannot be used yet."""
    return {
        "name": entry.name,
        "architecture": entry.architecture,
        "what": entry.title,
        "how": f"jcs models download {entry.name}" if entry.url else entry.by_hand(),
        "files": [" ".join(filter(None, (f.filename, f.sha256 and f"SHA-256 {f.sha256}", f.url))) for f in entry.files],
        "download_size": entry.size,
        "licence": entry.licence,
        "citation": entry.citation,
    }


def _size(size: int | None) -> str:
    """Return bytes as a person writes them."""
    if size is None:
        return "?"
    return f"{size / 1e6:.0f} MB" if size >= 10**6 else f"{size / 1e3:.1f} kB"
