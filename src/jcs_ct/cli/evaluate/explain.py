"""`jcs evaluate explain`: attention maps against masks, and against the network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from jcs_ct.cli.common import PATH, Run, common_options, model_option, strict_option
from jcs_ct.cli.evaluate.common import (
    data_option,
    map_values_option,
    masked_cases,
    masks_option,
    open_reader,
    out_option,
    refuse_scores,
    report_storage,
    report_unmatched,
    score_each,
    selection_options,
    write_scores,
)

if TYPE_CHECKING:
    from pathlib import Path

    from jcs_ct.evaluate.inputs import Case


@click.command()
@data_option
@masks_option
@click.option("--maps", type=PATH, required=True, help="Folder of .npy maps, as `jcs explain` writes, or 8-bit maps.")
@map_values_option
@model_option()
@out_option
@click.option(
    "--tolerance",
    type=click.FloatRange(0),
    default=0,
    show_default=True,
    help="Tolerance of the pointing game, in pixels.",
)
@click.option(
    "--steps", type=click.IntRange(1), default=20, show_default=True, help="Number of steps of deletion and insertion."
)
@selection_options
@strict_option
@common_options("evaluate explain")
def explain(
    run: Run,
    data: Path | None,
    masks: Path | None,
    maps: Path,
    map_values: Any,
    model: str | None,
    out: Path,
    tolerance: float,
    steps: int,
    resamples: int,
    seed: int,
    strict: bool,
    **chosen: Any,
) -> None:
    """Score attention maps against lesion masks: pointing game, energy inside the lesion, Dice of the map.

    With --model (a classifier) and --data, deletion and insertion are scored too. This also writes per_image.csv, and
    with a model perturbation.png.
    """
    from jcs_ct.evaluate import explain as scoring
    from jcs_ct.evaluate import inputs, tables
    from jcs_ct.evaluate.record import record_of
    from jcs_ct.evaluate.slice_reader import with_flags
    from jcs_ct.outputs import plots

    names = ["scores.json", "scores.md", "per_image.csv"] + ["perturbation.png"] * (model is not None)
    refuse_scores(run, out, names)
    named = (model,) if model else ()
    cases = masked_cases(data, masks, named, chosen)
    reader = open_reader(run, cases, named, "probability", strict=strict)
    answer = None if reader is None else reader.classify
    found = report_unmatched(run.reporter, inputs.match_maps(cases, maps, map_values))
    report_storage(run.reporter, [found])
    collector = scoring.Collector(str(maps), tolerance=tolerance, steps=steps, resamples=resamples, seed=seed)

    def work(case: Case) -> None:
        attention = found.read(case)
        mask = inputs.mask_for(case, attention.shape, str(found.files[case.key]))
        pixels = None if reader is None else reader.read_picture(case).pixels
        collector.add(case.name, case.group, attention, mask, pixels, answer)

    done = score_each([case for case in cases.cases if case.key in found.files], work, run.reporter)
    if not done:
        return
    content = collector.report()
    if reader is not None:
        content |= reader.report(done)
    written = {
        "scores.md": scoring.to_markdown(content),
        "per_image.csv": tables.to_csv(with_flags(collector.rows(), done, reader)),
    }
    if answer is not None:
        written["perturbation.png"] = plots.perturbation_plot(collector.share, *collector.curves())
    settings = {"tolerance": tolerance, "steps": steps, "resamples": resamples, "seed": seed, "map_values": map_values}
    settings |= {"model": None if reader is None else reader.network.card.weights_sha256}
    record = record_of("explain", str(maps), {c.name: found.files[c.key] for c in done}, settings, done)
    write_scores(run, out, content, written, record)
