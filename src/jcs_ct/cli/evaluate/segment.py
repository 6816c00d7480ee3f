"""`jcs evaluate segment`: lesion maps against masks."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from jcs_ct.cli.common import ENSEMBLE, PATH, Probability, Run, common_options, model_option, strict_option
from jcs_ct.cli.evaluate.common import (
    data_option,
    exactly_one_of,
    labels_option,
    map_values_option,
    masked_cases,
    masks_option,
    open_reader,
    out_option,
    refuse_itself,
    refuse_scores,
    report_storage,
    report_unmatched,
    score_each,
    selection_options,
    threshold_of,
    write_scores,
)

if TYPE_CHECKING:
    from pathlib import Path

    from jcs_ct.evaluate.inputs import Case


@click.command()
@data_option
@masks_option
@click.option("--predictions", type=PATH, help="Folder of 8-bit maps, floor(255·p), or .npy maps in [0, 1].")
@click.option("--against", type=PATH, help="Folder of another model's maps, to compare with on the same slices.")
@map_values_option
@labels_option
@model_option(ENSEMBLE)
@out_option
@click.option(
    "--threshold", type=Probability(min_open=True), help="Probability from which a pixel is lesion (default: 0.5)."
)
@click.option(
    "--empty",
    type=click.Choice(["exclude", "one"]),
    default="exclude",
    show_default=True,
    help="Score of an empty mask with an empty prediction: excluded and counted, or 1.",
)
@click.option("--spacing", type=float, nargs=2, help="Pixel size in mm, row and column, for HD95 in mm.")
@selection_options
@strict_option
@common_options("evaluate segment")
def segment(
    run: Run,
    data: Path | None,
    masks: Path | None,
    predictions: Path | None,
    against: Path | None,
    map_values: Any,
    labels: str | None,
    model: tuple[str, ...],
    out: Path,
    threshold: float | None,
    empty: Any,
    spacing: tuple[float, float] | None,
    resamples: int,
    seed: int,
    strict: bool,
    **chosen: Any,
) -> None:
    """Score lesion maps against masks: Dice, IoU, HD95, S-, E- and F-measure, and the release's evaluator.

    Volumes are scored slice by slice and as a whole (3-D Dice, ml); their predictions are masks as volumes. This also
    writes per_image.csv, per_volume.csv and dice.png. With --model, maps are stored as `jcs segment` does,
    floor(255·p).
    """
    from jcs_ct.datasets.slices import mask_of
    from jcs_ct.datasets.volumes import lesion_labels
    from jcs_ct.evaluate import inputs, tables
    from jcs_ct.evaluate.maps import on_grid
    from jcs_ct.evaluate.record import record_of
    from jcs_ct.evaluate.segment import Collector, Options, report, to_markdown
    from jcs_ct.evaluate.slice_reader import with_flags
    from jcs_ct.outputs import plots

    names = ["scores.json", "scores.md", "per_image.csv", "per_volume.csv", "dice.png"]
    names += ["per_image_against.csv"] if against else []
    refuse_scores(run, out, names)
    exactly_one_of(predictions=predictions, model=model or None)
    refuse_itself(predictions, against)
    if labels is not None:
        chosen["lesions"] = lesion_labels(labels)
    cases = masked_cases(data, masks, model, chosen)
    reader = open_reader(run, cases, model, "lesions", strict=strict)
    network = None if reader is None else reader.network
    cut = threshold_of(threshold, network)
    options = Options(cut, empty, spacing, resamples, seed)
    folders = [folder for folder in (predictions, against) if folder is not None]
    collectors = [Collector(str(label), options) for label in ([network.card.name] if network else []) + folders]
    found = [report_unmatched(run.reporter, inputs.match_maps(cases, folder, map_values)) for folder in folders]
    report_storage(run.reporter, found)
    usable = [case for case in cases.cases if all(case.key in maps.files for maps in found)]
    resized: Counter[tuple[int, ...]] = Counter()

    def work(case: Case) -> None:
        pairs = []
        if reader is not None:
            pairs.append((reader.lesion_map(case), case.key))
        for maps in found:
            values = maps.read(case)
            fitted = on_grid(values, mask_of(case.sample).shape)
            resized[values.shape] += fitted.shape != values.shape
            pairs.append((fitted, str(maps.files[case.key])))
        # All maps are checked before one of them counts, so that both sides of a comparison have the same slices.
        truth = [inputs.mask_for(case, probability.shape, label) for probability, label in pairs]
        for collector, (probability, _), mask in zip(collectors, pairs, truth, strict=True):
            collector.add(case.name, case.group, probability, mask, inputs.volume_of(case))

    done = score_each(usable, work, run.reporter)
    for (rows, columns), number in (+resized).items():
        run.reporter.note(
            f"{number} maps of {rows} × {columns}, as stage-1 features give, were brought to the grid of their masks"
        )
    if not done:
        return
    run.reporter.tell(dict.fromkeys(line for collector in collectors for line in collector.doubts()))
    content = report(*collectors)
    if reader is not None:
        content |= reader.report(done)
    figure = plots.dice_plot(collectors[0].names, {c.label: c.column("dice") for c in collectors}, cut)
    files = {
        "scores.md": to_markdown(content),
        "per_image.csv": tables.to_csv(with_flags(collectors[0].rows(), done, reader)),
        "dice.png": figure,
    }
    for name, collector in zip(("", "_against"), collectors, strict=False):
        if collector.volumes:
            files[f"per_volume{name}.csv"] = tables.to_csv([volume.row(empty) for volume in collector.volumes.values()])
    if against is not None:
        files["per_image_against.csv"] = tables.to_csv(with_flags(collectors[1].rows(), done, reader))
    settings = {"threshold": cut, "empty": empty, "spacing": spacing, "resamples": resamples, "seed": seed}
    made_by = network.card.weights_sha256 if network is not None else {c.name: found[0].files[c.key] for c in done}
    record = record_of("segment", collectors[0].label, made_by, settings | {"map_values": map_values}, done)
    write_scores(run, out, content, files, record)
