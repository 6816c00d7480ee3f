"""`jcs features`: stage-1 features in the COVID-CS format."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from pathlib import Path

    from jcs_ct.io.files.sources import Source


@click.command()
@slice_options("Folder for the .mat files.", "to compare")
@click.option(
    "--half", is_flag=True, help="Compute them from 256×256 pictures, like the half-size set (segmentation only)."
)
@common_options("features")
def features(
    run: Run,
    inputs: tuple[str, ...],
    out: Path,
    model: tuple[str, ...],
    half: bool,
    strict: bool,
) -> None:
    """Write the stage-1 features of every slice: OUT/<stem>.mat, uint8, 20 times the value, clipped to 0–255.

    Weights of jcs-joint give the features of both networks (vgg_feats 1×64×512×512, res2net_feats 1×64×256×256). Those
    of jcs-single give VGG's features only, and those of jcs-classifier one array of 64×112×112. Give --model twice for
    two ImageNet backbones in one file. INPUT is the same as for `jcs segment`, but pictures only.
    """
    from jcs_ct.app.each_slice import flags_of, read_picture
    from jcs_ct.inference import apply
    from jcs_ct.io.features import ARRAYS, write_features

    reporter = run.reporter
    sources = find_inputs(inputs, out, reporter)
    files = {source.name: out / f"{source.name}.mat" for source in sources}
    refuse_existing(files.values(), sources, overwrite=run.overwrite)

    networks = [run.torch_only().network(name) for name in model or (None,)]
    kinds = [which for network in networks for which in network.spec.feature_arrays]
    if len(set(kinds)) < len(kinds):
        raise UsageError(f"the models give {' and '.join(kinds)} features", hint="one of each kind fits in a file")
    reporter.result["model"] = [network.card.name for network in networks]

    def work(source: Source) -> tuple[tuple[str, ...], tuple[str, ...], dict[str, list[int]]]:
        image = read_picture(source)
        flags = flags_of(image, strict=strict)
        merged = {k: v for network in networks for k, v in apply.features(image, network, half=half).items()}
        arrays = {which: merged[which] for which in ARRAYS if which in merged}
        write_features(files[source.name], arrays, overwrite=run.overwrite)
        return image.notes, flags, {which: list(array.shape) for which, array in arrays.items()}

    for source, (notes, flags, shapes) in worked(sources, work, reporter):
        text = ", ".join(f"{which} {'×'.join(map(str, shape))}" for which, shape in shapes.items())
        facts: dict[str, Any] = {"source": source.label, "file": str(files[source.name]), "shapes": shapes}
        report_slice(reporter, source, text, notes, flags, **facts)
