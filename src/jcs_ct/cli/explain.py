"""`jcs explain`: attention maps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from jcs_ct.cli.common import (
    Run,
    common_options,
    find_inputs,
    refuse_existing,
    report_slice,
    slice_options,
    worked,
)
from jcs_ct.core.errors import UsageError
from jcs_ct.core.types import METHODS

if TYPE_CHECKING:
    from pathlib import Path

    from jcs_ct.inference.apply import SliceAttention
    from jcs_ct.io.files.sources import Source


@click.command()
@slice_options("Folder for pictures and maps.", "to compare")
@click.option(
    "--method",
    type=click.Choice(METHODS),
    default=METHODS[0],
    show_default=True,
    help="Method of the attention map; described above.",
)
@click.option("--layer", help="Dotted name of the module to look at; default: the network's own.")
@click.option("--colormap", default="plasma", show_default=True, help="Matplotlib colour map.")
@common_options("explain")
def explain(
    run: Run,
    inputs: tuple[str, ...],
    out: Path,
    model: tuple[str, ...],
    method: str,
    layer: str | None,
    colormap: str,
    strict: bool,
) -> None:
    """Write OUT/<stem>.png (overlay) and OUT/<stem>.npy (float32, on the slice's grid, in [0, 1]) for every slice.

    The methods grad-cam and layer-cam explain the whole slice. grad-cam-release explains the centre crop that the
    published release shows to its classifier; the rest of the map is 0 and marked as not seen. Give --model two to four
    times to see checkpoints side by side; each then gets its own OUT/<stem>.<model>.npy. INPUT is the same as for `jcs
    segment`, but pictures only.
    """
    from jcs_ct.app.each_slice import flags_of, read_picture
    from jcs_ct.core.whole_files import write_whole
    from jcs_ct.inference import apply
    from jcs_ct.models import RESULTS
    from jcs_ct.outputs import figures, images

    reporter = run.reporter
    images.colour_table(colormap)  # an unknown name ends here, not at the first slice
    sources = find_inputs(inputs, out, reporter)

    networks = [run.torch_only().network(name, RESULTS) for name in model or (None,)]
    names = [network.card.name for network in networks]
    if len(set(names)) < len(names):
        raise UsageError(f"two models are called {names[0]}", hint="import one of them under another --name")
    reporter.result |= {"model": names, "method": method}

    def paths(source: Source) -> tuple[Path, list[Path]]:
        ends = [""] if len(names) == 1 else [f".{name}" for name in names]
        return out / f"{source.name}.png", [out / f"{source.name}{end}.npy" for end in ends]

    everything = [path for source in sources for path in (paths(source)[0], *paths(source)[1])]
    refuse_existing(everything, sources, overwrite=run.overwrite)

    def work(source: Source) -> tuple[tuple[str, ...], list[SliceAttention]]:
        image = read_picture(source)
        flags = flags_of(image, strict=strict)
        found = [apply.explain(image, network, method, layer) for network in networks]
        if len(found) == 1:
            picture = figures.attention_overlay(
                image.pixels,
                found[0].map,
                title=source.name,
                caption=f"{names[0]} · {method}, {found[0].layer}{_probability(found[0])}",
                seen=_box(found[0]),
                degenerate=found[0].degenerate,
                colormap=colormap,
            )
        else:
            picture = figures.compare_attention(
                image.pixels,
                [(name, f.map, f.probability) for name, f in zip(names, found, strict=True)],
                title=source.name,
                caption=method,
                colormap=colormap,
            )
        pictures, arrays = paths(source)
        for path, one in zip(arrays, found, strict=True):
            images.save_array(path, one.map, overwrite=run.overwrite)
        write_whole(pictures, picture, overwrite=run.overwrite)
        return flags, found

    for source, (flags, found) in worked(sources, work, reporter):
        for name, one in zip(names, found, strict=True):
            if one.degenerate:
                reporter.note(f"{source.label}: the attention map of {name} is empty: {one.degenerate}")
        picture, arrays = paths(source)
        report_slice(
            reporter,
            source,
            str(picture),
            found[0].image.notes,
            flags,
            source=source.label,
            picture=str(picture),
            maps=[str(path) for path in arrays],
            probability=[one.probability for one in found],
            degenerate=[one.degenerate for one in found],
        )


def _probability(found: SliceAttention) -> str:
    return "" if found.probability is None else f" · COVID-19 p = {found.probability:.3f}"


def _box(found: SliceAttention) -> tuple[int, int, int, int] | None:
    if found.seen is None:
        return None
    top, left, bottom, right = (round(edge) for edge in found.seen)
    return top, left, bottom, right
