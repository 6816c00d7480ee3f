"""`jcs demo`: two phantom chests made on the spot, the self-check of the networks, and the whole of `jcs diagnose`."""

from __future__ import annotations

import os
import sys
import webbrowser
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import click

from jcs_ct.cli.common import PATH, Run, common_options
from jcs_ct.core.errors import JcsError, OutputError

if TYPE_CHECKING:
    from pathlib import Path

    from jcs_ct.phantom import PhantomStudy


@click.command()
@click.option("-o", "--out", type=PATH, default="demo-out", show_default=True, help="Folder of the demo.")
@click.option("--slices", type=click.IntRange(32, 400), default=54, show_default=True, help="Slices of each phantom.")
@click.option(
    "--size", type=click.IntRange(128, 1024), default=512, show_default=True, help="Rows and columns of each slice."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the phantoms.")
@click.option(
    "--open/--no-open", "open_it", default=None, help="Open the report in a browser (default: when there is a desktop)."
)
@common_options("demo")
def demo(run: Run, out: Path, slices: int, size: int, seed: int, open_it: bool | None) -> None:
    """Make two phantom chests, one with lesions and one without, and diagnose both.

    The phantoms are computed, so no patient is in them. They are written as DICOM and PNG, with the lesions
    that were drawn. A self-check compares the networks on this machine with the published numbers. The diagnosis is
    made by the shipped jcs-lite, which never saw a phantom.
    """
    if out.exists() and not run.overwrite:
        raise OutputError("exists already", path=out, hint="use --overwrite, or another -o")
    reporter = run.reporter
    reporter.say(f"1. Two phantom chests (computed, no patient): {slices} slices of {size}×{size}, seed {seed}")
    lesions = _Phantom.made("phantom-with-lesions", out, slices, size, seed, run)
    healthy = _Phantom.made("phantom-healthy", out, slices, size, seed, run, lesions=0)
    truth = _write_truth(lesions, out / "phantom-truth.png", run)
    reporter.case(f"   {lesions.folder}, {healthy.folder}, {truth}", folder=str(out))
    reporter.say("2. Self-check: do the networks compute the published numbers on this machine?")
    _self_check(run)
    reporter.say("3. Stage-1 features of one slice, with the self-check's weights (not trained)")
    _features(lesions, out / "features", run)
    reporter.say("4. Diagnosis of both DICOM studies with the shipped jcs-lite")
    pages = _diagnosed((lesions, healthy), out / "diagnosis", run)
    reporter.say(
        f"\nOpen {pages[0]} in a browser. Beside it: {pages[1]}.\n"
        f"The lesions that were drawn are in {truth}.\n"
        "A phantom is no patient: what the network says of it shows that everything runs, not how well.\n"
        "With your own studies: jcs diagnose STUDY -o results. A research tool, not a medical device."
    )
    wanted = has_desktop() and not reporter.quiet if open_it is None else open_it
    if wanted and not show(pages[0]):
        reporter.note("no browser could be opened")


@dataclass(frozen=True)
class _Phantom:
    """A phantom and the folder of its files: `dicom/`, and `png/` with `png/masks/`."""

    name: str
    study: PhantomStudy
    folder: Path
    pictures: list[Path]

    @classmethod
    def made(cls, name: str, out: Path, slices: int, size: int, seed: int, run: Run, *, lesions: int = 8) -> _Phantom:
        """Compute a chest of an adult's size, whatever the number of its slices, and write it."""
        from jcs_ct.phantom import make_phantom, true_spacing, write_dicom, write_pngs

        study = make_phantom(slices, size, seed, lesions, true_spacing(slices, size))
        pictures = write_pngs(study, out / name / "png", overwrite=run.overwrite)
        write_dicom(study, out / name / "dicom", overwrite=run.overwrite)
        return cls(name, study, out / name, pictures)

    @property
    def most_affected(self) -> int:
        """The slice with the most lesion, from 0."""
        return int(self.study.lesions.sum(axis=(1, 2)).argmax())


def _write_truth(phantom: _Phantom, path: Path, run: Run) -> Path:
    """Draw the lesions of the most affected slice as they were put into the phantom."""
    from jcs_ct.core.whole_files import write_whole
    from jcs_ct.outputs.figures import truth_overlay
    from jcs_ct.phantom import lung_window

    study, most = phantom.study, phantom.most_affected
    pixels = lung_window(study.hu[most])[:, :, None].repeat(3, axis=2)
    drawn = truth_overlay(
        pixels, study.lesions[most], title=f"PHANTOM slice {most + 1}",
        caption="lesions as they were drawn: the truth, no prediction",
    )  # fmt: skip
    write_whole(path, drawn, overwrite=run.overwrite)
    return path


def _self_check(run: Run) -> None:
    from jcs_ct.inference.golden import check

    wrong = []
    for parity in check():
        verdict = "ok" if parity.ok else "DIFFERS"
        figures = f"largest difference of {parity.what} {parity.difference:.1e} (allowed {parity.allowed:.1e})"
        run.reporter.say(f"   {parity.network:<15} {figures} {verdict}")
        run.reporter.case(parity.network, network=parity.network, difference=parity.difference, allowed=parity.allowed)
        if not parity.ok:
            wrong.append(parity.network)
    if wrong:
        error = f"self-check failed: {', '.join(wrong)} do not compute the published numbers on this machine"
        run.reporter.problem(JcsError(error, hint="report it with the output of `jcs doctor`"))


def _features(phantom: _Phantom, folder: Path, run: Run) -> None:
    from jcs_ct.core.types import SliceImage
    from jcs_ct.inference import apply, self_check_network
    from jcs_ct.io.features import write_features
    from jcs_ct.phantom import lung_window

    picture = phantom.pictures[phantom.most_affected]
    grey = lung_window(phantom.study.hu[phantom.most_affected])
    image = SliceImage(picture.stem, str(picture), grey[:, :, None].repeat(3, axis=2))
    arrays = apply.features(image, self_check_network("jcs-joint", run.device))
    path = folder / f"{image.name}.mat"
    write_features(path, arrays, overwrite=run.overwrite)
    shapes = {which: list(array.shape) for which, array in arrays.items()}
    text = ", ".join(f"{which} {'×'.join(map(str, shape))} uint8" for which, shape in shapes.items())
    run.reporter.say(f"   {path}: {text}")
    run.reporter.case(str(path), features=str(path), shapes=shapes)


def _diagnosed(phantoms: tuple[_Phantom, ...], out: Path, run: Run) -> list[Path]:
    """Diagnose the phantoms with weights that are loaded once; return their reports."""
    from jcs_ct.app.examine import examine_case
    from jcs_ct.app.gather import gather
    from jcs_ct.study.settings import Networks, Settings

    networks = Networks.of([run.network(None, slices=sum(len(one.study.hu) for one in phantoms))])
    pages = []
    for phantom in phantoms:
        case = gather([str(phantom.folder / "dicom")]).cases[0]
        result = examine_case(replace(case, name=phantom.name), networks, Settings())
        folder = result.save(out, overwrite=run.overwrite)
        verdict = result.report["verdict"]
        run.reporter.say(f"   {phantom.name}: {verdict['text']}")
        for reason in verdict["reasons"]:
            run.reporter.note(f"{phantom.name}: {reason}")
        run.reporter.case(f"   {folder}", folder=str(folder), verdict=verdict)
        pages.append(folder / "report.html")
    return pages


def has_desktop() -> bool:
    """Tell whether a browser window would reach whoever started the command.

    That needs a terminal (a script or a CI job has none) and a desktop: not over SSH, and on Linux with a display.
    """
    if not sys.stderr.isatty() or "CI" in os.environ or "SSH_CONNECTION" in os.environ:
        return False
    if sys.platform in {"win32", "darwin"}:
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def show(page: Path) -> bool:
    """Open a page in the browser of the desktop; return whether there was one."""
    try:
        return webbrowser.open(page.resolve().as_uri())
    except (OSError, webbrowser.Error):
        return False
