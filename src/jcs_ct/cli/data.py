"""`jcs data`: look for faults and leakage in a data set; make folds of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from jcs_ct.cli.bar import Bar
from jcs_ct.cli.common import PATH, Group, Probability, Reporter, json_option, overwrite_option, quiet_option, stacked
from jcs_ct.core.errors import OutputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from jcs_ct.datasets.inspection import Inspected

_REPORTS = ("report.json", "report.md")


_options = stacked(
    click.option(
        "--task",
        type=click.Choice(["segment", "classify"]),
        help="Task of the data set: every slice needs a mask, or a label (default: what is there).",
    ),
    click.option(
        "--labels",
        "lesions",
        help="Labels that mean lesion in masks of volumes, such as 1,3 (default: all above 0).",
    ),
    click.option(
        "--label",
        "labels",
        multiple=True,
        metavar="NAME=0|1",
        help="Meaning of another label name (1 = COVID-19). Repeatable.",
    ),
    click.option(
        "--similarity",
        type=Probability(min_open=True),
        help="Similarity from which two pictures are near duplicates (default: 0.95, chosen for altered copies).",
    ),
    click.option(
        "--workers", type=click.IntRange(1), default=1, show_default=True, help="Number of processes that read."
    ),
    overwrite_option,
    quiet_option,
    click.option(
        "--verbose",
        is_flag=True,
        help="Print all findings instead of the first of each kind, and tracebacks of errors.",
    ),
    json_option,
)
"""Adds what both commands have."""


@click.group(cls=Group)
def data() -> None:
    """Check a data set for faults and leakage, or split it into folds.

    DIR is a folder with one of these: train.txt and test.txt ('image mask' on each line), a table (.csv with
    file,label[,group,source,split]), images/ and masks/, or nnU-Net's dataset.json, imagesTr/ and labelsTr/. Stage-1
    features (.mat) or volumes may stand in for images. folds.json gives the folds. DIR may also be one such list or
    table.
    """


@data.command()
@click.argument("folders", nargs=-1, required=True, metavar="DIR...", type=PATH)
@click.option("-o", "--out", type=PATH, help="Folder for report.json and report.md.")
@click.option("--folds-file", help="Folds to check, relative to DIR (default: its folds.json, if there is one).")
@click.option("--no-near", is_flag=True, help="Do not look for near duplicates.")
@_options
@click.pass_context
def check(
    ctx: click.Context,
    folders: tuple[Path, ...],
    out: Path | None,
    folds_file: str | None,
    no_near: bool,
    task: Any,
    lesions: str | None,
    labels: tuple[str, ...],
    similarity: float | None,
    workers: int,
    overwrite: bool,
    quiet: bool,
    verbose: bool,
    as_json: bool,
) -> None:
    """Read every file of a data set; report faults, and slices on both sides of a split.

    Several DIR are parts that must not overlap. The exit status is 0 without faults (warnings are not faults), 1 with
    faults, 2 without a data set.
    """
    from jcs_ct.core.whole_files import write_whole
    from jcs_ct.datasets.check import check as check_all
    from jcs_ct.datasets.fingerprint import THRESHOLD
    from jcs_ct.datasets.folds import FOLDS
    from jcs_ct.datasets.layouts import open_dataset

    if no_near and similarity is not None:
        raise UsageError("--no-near and --similarity contradict each other", hint="leave one out")
    if out is not None:
        _refuse([out / name for name in _REPORTS], overwrite=overwrite)
    reporter = Reporter("data check", quiet=quiet, verbose=verbose, as_json=as_json)
    sets = [
        open_dataset(
            folder, task, folds=folds_file or FOLDS, labels=_meanings(labels), lesions=_lesions(lesions), strict=False
        )
        for folder in folders
    ]
    report = check_all(
        sets, similarity=None if no_near else similarity or THRESHOLD, workers=workers, watch=_bar(reporter)
    )
    text = json.dumps(report.as_dict(), indent=2, ensure_ascii=False)
    if out is not None:
        write_whole(out / "report.json", (text + "\n").encode(errors="backslashreplace"), overwrite=overwrite)
        write_whole(out / "report.md", report.as_markdown().encode(errors="backslashreplace"), overwrite=overwrite)
    if as_json:
        failed = [{"source": fault.path, "message": fault.error().line()} for fault in report.faults]
        result = {**reporter.result, "failed": failed, "notes": list(report.notes), "report": report.as_dict()}
        click.echo(json.dumps(result, indent=2, ensure_ascii=False))
    elif quiet:
        for fault in report.faults:
            click.echo(f"jcs: error: {fault.error().line()}", err=True)
    else:
        click.echo(report.as_text(None if verbose else 20))
    ctx.exit(0 if report.ok else 1)


@data.command()
@click.argument("folder", metavar="DIR", type=PATH)
@click.option("-o", "--out", type=PATH, required=True, help="The file, folds.json.")
@click.option("--folds", type=click.IntRange(2, 100), default=5, show_default=True, help="Number of folds.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Seed of the shuffling.")
@click.option("--lists", type=PATH, help="Also write LISTS/fold<n>/train.txt and test.txt.")
@click.option("--join-duplicates", is_flag=True, help="Read all pictures; keep equal and nearly equal ones together.")
@_options
@click.pass_context
def split(
    ctx: click.Context,
    folder: Path,
    out: Path,
    folds: int,
    seed: int,
    lists: Path | None,
    join_duplicates: bool,
    task: Any,
    lesions: str | None,
    labels: tuple[str, ...],
    similarity: float | None,
    workers: int,
    overwrite: bool,
    quiet: bool,
    verbose: bool,
    as_json: bool,
) -> None:
    """Divide a data set into folds that keep a group (patient) together, stratified by label and source.

    Slices of the split "test" are held back. Other commands find the folds when they are folds.json in DIR.
    """
    from jcs_ct.datasets.fingerprint import THRESHOLD
    from jcs_ct.datasets.layouts import open_dataset
    from jcs_ct.datasets.split import list_files, make_folds, save_folds, save_lists

    if similarity is not None and not join_duplicates:
        raise UsageError("--similarity works only with --join-duplicates", hint="add it")
    _refuse([out], overwrite=overwrite)
    if out.resolve() == folder.resolve():
        raise OutputError("is the data set, the folds would replace it", path=out, hint="call them folds.json")
    reporter = Reporter("data split", quiet=quiet, verbose=verbose, as_json=as_json)
    dataset = open_dataset(folder, task, folds=None, labels=_meanings(labels), lesions=_lesions(lesions))
    made = make_folds(
        dataset,
        folds,
        seed,
        join_duplicates=join_duplicates,
        similarity=similarity or THRESHOLD,
        workers=workers,
        watch=_bar(reporter),
    )
    reporter.tell((*dataset.notes, *made.notes))
    if lists is not None:
        _refuse(list_files(made, lists), overwrite=overwrite)
        save_lists(made, lists, overwrite=overwrite)
    save_folds(made, dataset, out, overwrite=overwrite)
    reporter.result |= {"folds": str(out), "lists": None if lists is None else str(lists), "facts": made.facts}
    for number, counts in enumerate(made.facts["counts"], 1):
        parts = ", ".join(f"{name} {count:,}" for name, count in counts["labels_and_sources"].items())
        reporter.say(f"jcs: fold {number}: {counts['slices']:,} slices, {counts['groups']:,} groups ({parts})")
        reporter.case(f"jcs: fold {number} written", fold=number, **counts)
    ctx.exit(reporter.finish())


def _lesions(text: str | None) -> tuple[int, ...]:
    from jcs_ct.datasets.volumes import lesion_labels

    return () if text is None else lesion_labels(text)


def _meanings(labels: tuple[str, ...]) -> dict[str, int]:
    """Return what `--label NAME=0|1` says."""
    meanings = {}
    for text in labels:
        name, _, value = text.rpartition("=")
        if not name or value not in {"0", "1"}:
            raise UsageError(f"--label is {text}; NAME=0 or NAME=1 is expected", hint="for example --label CP=0")
        meanings[name] = int(value)
    return meanings


def _refuse(paths: list[Path], *, overwrite: bool) -> None:
    """Refuse to start when a result exists already."""
    existing = [path for path in paths if path.exists()]
    if existing and not overwrite:
        raise OutputError("exists already", path=existing[0], hint="use --overwrite, or another name")


def _bar(reporter: Reporter) -> Callable[[Iterable[Inspected], int], Iterable[Inspected]]:
    """Return what shows a progress bar on a terminal, and a line a minute in a log."""

    def watch(found: Iterable[Inspected], total: int) -> Iterable[Inspected]:
        with Bar(total, reporter.say, quiet=reporter.quiet) as bar:
            for i, inspected in enumerate(found, 1):
                yield inspected
                bar.to(i)

    return watch
