"""`jcs demo`: a phantom study made on the spot, the self-check of the networks, and the whole of `jcs diagnose`."""

from __future__ import annotations

from pathlib import Path

import click

from jcs_ct.cli.common import Run, common_options
from jcs_ct.core.errors import JcsError, OutputError


@click.command()
@click.option("-o", "--out", type=click.Path(path_type=Path), default="demo-out", show_default=True, help="Folder.")
@click.option("--slices", type=click.IntRange(1, 400), default=24, show_default=True, help="Slices of the phantom.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the phantom.")
@common_options("demo")
def demo(run: Run, out: Path, slices: int, seed: int) -> None:
    """Make a chest phantom with known lesions (PNG and DICOM), check the networks, and diagnose the phantom.

    The self-check computes the published networks' numbers with deterministic weights; the features of one slice are
    made with the same weights. The diagnosis is that of the shipped jcs-lite, which has never seen a phantom.
    """
    from jcs_ct.app.examine import examine_case
    from jcs_ct.app.gather import gather
    from jcs_ct.core.types import SliceImage
    from jcs_ct.core.whole_files import write_whole
    from jcs_ct.inference import apply, self_check_network
    from jcs_ct.inference.golden import check
    from jcs_ct.io.features import write_features
    from jcs_ct.outputs.figures import truth_overlay
    from jcs_ct.phantom import lung_window, make_phantom, write_dicom, write_pngs
    from jcs_ct.study.settings import Networks, Settings

    reporter = run.reporter
    if out.exists() and not run.overwrite:
        raise OutputError("exists already", path=out, hint="use --overwrite, or another -o")
    reporter.say(f"1. A phantom study (computed, no patient): {slices} slices of 512×512, seed {seed}")
    study = make_phantom(slices=slices, seed=seed)
    pictures = write_pngs(study, out / "png", overwrite=run.overwrite)
    write_dicom(study, out / "dicom", overwrite=run.overwrite)
    most = int(study.lesions.sum(axis=(1, 2)).argmax())
    grey = lung_window(study.hu[most])
    image = SliceImage(pictures[most].stem, str(pictures[most]), grey[:, :, None].repeat(3, axis=2))
    truth = truth_overlay(
        image.pixels,
        study.lesions[most],
        title=f"PHANTOM {image.name}",
        caption="lesions as they were drawn: the truth, no prediction",
    )
    write_whole(out / "phantom-truth.png", truth, overwrite=run.overwrite)
    reporter.case(f"   {out / 'png'}, {out / 'dicom'}, {out / 'phantom-truth.png'}", folder=str(out))

    reporter.say("2. Self-check: do the networks compute the published numbers on this machine?")
    wrong = []
    for parity in check():
        verdict = "ok" if parity.ok else "DIFFERS"
        figures = f"largest difference {parity.difference:.1e} (allowed {parity.allowed:.1e})"
        reporter.say(f"   {parity.network:<15} {figures} {verdict}")
        reporter.case(parity.network, network=parity.network, difference=parity.difference, allowed=parity.allowed)
        if not parity.ok:
            wrong.append(parity.network)
    if wrong:
        error = f"self-check failed: {', '.join(wrong)} do not compute the published numbers on this machine"
        reporter.problem(JcsError(error, hint="report it with `python -m torch.utils.collect_env`"))

    reporter.say("3. Stage-1 features of one slice, with the self-check's weights (not trained)")
    network = self_check_network("jcs-joint", run.device)
    arrays = apply.features(image, network)
    path = out / "features" / f"{image.name}.mat"
    write_features(path, arrays, overwrite=run.overwrite)
    shapes = {which: list(array.shape) for which, array in arrays.items()}
    text = ", ".join(f"{which} {'×'.join(map(str, shape))} uint8" for which, shape in shapes.items())
    reporter.say(f"   {path}: {text}")
    reporter.case(str(path), features=str(path), shapes=shapes)

    reporter.say("4. Diagnosis of the DICOM study with the shipped jcs-lite")
    networks = Networks.of([run.network(None, slices=slices)])
    result = examine_case(gather([str(out / "dicom")]).cases[0], networks, Settings())
    folder = result.save(out / "diagnosis", overwrite=run.overwrite)
    reporter.say(f"   {result.report['verdict']['text']}")
    reporter.case(f"   {folder}", folder=str(folder), verdict=result.report["verdict"])
    reporter.say(
        f"\nOpen {folder / 'report.html'} in a browser; the drawn lesions are in {out / 'phantom-truth.png'}.\n"
        "A phantom is no patient: what the network says of it shows that everything runs, not how well.\n"
        "With your own studies: jcs diagnose STUDY -o results. A research tool, not a medical device."
    )
