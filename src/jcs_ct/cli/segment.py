"""`jcs segment`: lesion maps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from jcs_ct.cli.common import (
    ENSEMBLE,
    Probability,
    Run,
    common_options,
    find_inputs,
    refuse_existing,
    report_slice,
    slice_options,
    worked,
)

if TYPE_CHECKING:
    from pathlib import Path

    from jcs_ct.io.files.sources import Source


@click.command()
@slice_options("Folder for the maps.", ENSEMBLE)
@click.option("--overlay", is_flag=True, help="Also write OUT/overlays/<stem>.png for viewing.")
@click.option(
    "--threshold", type=Probability(), help="Lesion threshold for overlays and areas (default: from the weights)."
)
@common_options("segment")
def segment(
    run: Run,
    inputs: tuple[str, ...],
    out: Path,
    model: tuple[str, ...],
    overlay: bool,
    threshold: float | None,
    strict: bool,
) -> None:
    """Write the lesion map of every slice: OUT/<stem>.png, 8-bit, floor(255·p), at the size of the slice.

    INPUT is a slice in a lung window (PNG, JPEG, TIFF or BMP), stage-1 features (.mat), or a folder, a list of paths
    (.txt) or a .zip of these.
    """
    from jcs_ct.app.each_slice import flags_of, read_input
    from jcs_ct.core.types import SliceImage
    from jcs_ct.core.whole_files import write_whole
    from jcs_ct.inference import apply
    from jcs_ct.outputs import figures, images

    reporter = run.reporter
    sources = find_inputs(inputs, out, reporter)
    maps = {source.name: out / f"{source.name}.png" for source in sources}
    overlays = {source.name: out / "overlays" / f"{source.name}.png" for source in sources} if overlay else {}
    refuse_existing([*maps.values(), *overlays.values()], sources, overwrite=run.overwrite)

    network = run.mean_network(model, ["lesions"], len(sources))
    cut = network.threshold if threshold is None else threshold
    reporter.result |= {"model": network.card.name, "threshold": cut}

    def work(source: Source) -> tuple[tuple[str, ...], tuple[str, ...], float]:
        item = read_input(source, network)
        flags = flags_of(item, strict=strict)
        probability = apply.segment(item, network)
        notes = item.notes
        if overlay and not isinstance(item, SliceImage):
            notes += ("stage-1 features hold no picture, so there is no overlay",)
        elif overlay and isinstance(item, SliceImage):
            picture = figures.lesion_overlay(
                item.pixels, probability, cut, title=source.name, caption=network.card.name
            )
            write_whole(overlays[source.name], picture, overwrite=run.overwrite)
        images.save_map(maps[source.name], probability, overwrite=run.overwrite)
        return notes, flags, float((probability >= cut).mean())

    for source, (notes, flags, share) in worked(sources, work, reporter):
        report_slice(
            reporter,
            source,
            f"lesion on {100 * share:.2f} % of the slice at p ≥ {cut:g}",
            notes,
            flags,
            source=source.label,
            map=str(maps[source.name]),
            lesion_share=share,
        )
