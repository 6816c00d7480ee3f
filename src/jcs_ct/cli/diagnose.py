"""`jcs diagnose`: studies in, reports out."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jcs_ct.cli.common import Run, common_options, inputs_argument
from jcs_ct.core.errors import InputError, OutputError, UsageError
from jcs_ct.outputs.report.language import LANGUAGES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jcs_ct.app.batch import CaseOutcome
    from jcs_ct.cli.common import Reporter
    from jcs_ct.study.case import Case
    from jcs_ct.study.settings import Networks, Settings


@click.command()
@inputs_argument
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="Folder: OUT/<case>/ for each study.")
@click.option("--model", "-m", metavar="NAME|FILE", multiple=True,
              help="Weights (default: jcs-lite). Given twice: one for the verdict, one for lesions.")  # fmt: skip
@click.option("--rule", type=click.Choice(["whole-study", "top-k", "fraction", "release-count"]),
              default="whole-study", show_default=True,
              help="How slice probabilities become the patient's verdict; see docs/methods.md.")  # fmt: skip
@click.option("--segment", type=click.Choice(["always", "positive", "never"]), default=None,
              help="Studies whose lesions are segmented (default: always with jcs-lite, else positive).")  # fmt: skip
@click.option("--series", metavar="UID|NUMBER|TEXT", help="Read this series of each study; `jcs inspect` lists them.")
@click.option("--allow-gaps", is_flag=True, help="Accept volumes with missing slices and warn.")
@click.option("--drop-odd", "--drop-duplicates", "drop_odd", is_flag=True,
              help="Skip a few images that do not fit: of another size, or at a taken position.")  # fmt: skip
@click.option("--language", type=click.Choice(list(LANGUAGES)), default="en", show_default=True,
              help="Language of report.html; the other files stay English.")  # fmt: skip
@click.option("--no-html", is_flag=True, help="Do not write report.html.")
@click.option("--keep-identity", is_flag=True, help="Name cases after the patient's ID, and put it into the report.")
@click.option("--resume", is_flag=True, help="Keep the studies that an earlier run has finished in OUT.")
@common_options("diagnose")
def diagnose(
    run: Run,
    inputs: tuple[str, ...],
    out: Path,
    model: tuple[str, ...],
    rule: str,
    segment: str | None,
    series: str | None,
    allow_gaps: bool,
    drop_odd: bool,
    language: str,
    no_html: bool,
    keep_identity: bool,
    resume: bool,
) -> None:
    """Diagnose studies: probability, attention and lesions of every slice, and the patient's verdict.

    INPUT is a file of DICOM, NIfTI, MetaImage or NRRD, a folder, a .zip or a .tar.gz of them, or pictures of slices,
    already lung-windowed; the pictures of a folder are one study, head first. Writes OUT/<case>/report.json,
    report.html, slices.csv, masks and heat maps (NIfTI for volumes, PNG for pictures), DICOM SEG and SR for DICOM, and
    OUT/summary.csv.

    A research tool, not a medical device.
    """
    from jcs_ct.app import batch
    from jcs_ct.app.gather import gather
    from jcs_ct.app.identity import with_stable_names
    from jcs_ct.app.locks import remove_debris
    from jcs_ct.app.summary import Summary
    from jcs_ct.core.memory import one_arena
    from jcs_ct.models import RESULTS
    from jcs_ct.study.settings import Networks

    one_arena()
    reporter = run.reporter
    if resume and run.overwrite:
        raise UsageError("--resume keeps what --overwrite replaces", hint="give one of them")
    if out.exists() and not out.is_dir():
        raise OutputError("is a file, a folder was to be written there", path=out, hint="give another -o")
    names: tuple[str | None, ...] = model or (None,)
    networks = Networks.of([run.network(name, RESULTS) for name in names]) if resume and out.is_dir() else None
    known = (
        []
        if networks is None
        else batch.reusable_cases(out, networks, _settings(networks, rule, segment, language, no_html=no_html))
    )
    found = gather(
        inputs, series=series, allow_gaps=allow_gaps, drop_odd=drop_odd, keep_identity=keep_identity, known=known
    )
    for note in found.notes:
        reporter.note(note)
    for problem in found.problems:
        reporter.problem(problem)
    if not found.cases and not found.kept:
        if found.problems:
            summary = Summary(out)
            summary.add(*map(batch.problem_row, found.problems))
            summary.put_in_order()
            return
        raise InputError(
            "no study to work on", hint="give DICOM, NIfTI or pictures of slices: files, folders or a .zip"
        )
    cases = with_stable_names(found.cases, out)
    _refuse_existing(cases, out, run, resume=resume)

    slices = sum(len(case) for case in cases)
    networks = networks or Networks.of([run.network(name, RESULTS, slices) for name in names])
    for network in networks.all:
        network.slices = max(1, slices)
    settings = _settings(networks, rule, segment, language, no_html=no_html)
    reporter.result |= {"model": [n.card.name for n in networks.all]}
    if resume and (removed := remove_debris(out)):
        reporter.note(f"{removed} half-written studies of a run that was killed were removed")
    kept = [batch.CaseOutcome(case, "kept", case.report) for case in found.kept]
    rows = [batch.summary_row(ended) for ended in kept]
    total = len(cases) + len(kept)
    summary = Summary(out)
    summary.add(*map(batch.problem_row, found.problems), *rows)
    ending = batch.diagnose_cases(
        cases, networks, settings, out, overwrite=run.overwrite, resume=resume, keep_identity=keep_identity
    )
    for i, ended in enumerate(chain(kept, ending), 1):
        if i > len(kept):
            rows.append(batch.summary_row(ended))
            summary.add(rows[-1])
        _say(ended, i, total, out, reporter)
    summary.put_in_order()
    if not reporter.quiet and total > 1:
        reporter.say(_table(rows))


def _settings(networks: Networks, rule: str, segment: str | None, language: str, *, no_html: bool) -> Settings:
    from jcs_ct.study.settings import Settings

    chosen: Any = segment or networks.usual_segment
    return Settings(rule, chosen, frames=not no_html, language=language)


def _refuse_existing(cases: Sequence[Case], out: Path, run: Run, *, resume: bool) -> None:
    existing = [out / case.name for case in cases if (out / case.name).exists()]
    if existing and not (run.overwrite or resume):
        more = f", and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise OutputError(
            f"exists already{more}", path=existing[0], hint="use --overwrite, --resume, or another output folder"
        )
    read = {source.path.resolve() for case in cases for source in case.sources}
    for case in cases:
        folder = (out / case.name).resolve()
        if run.overwrite and any(folder in path.parents for path in read):
            raise OutputError(
                "holds an input, a result would replace it", path=folder, hint="use another output folder"
            )


def _say(ended: CaseOutcome, number: int, total: int, out: Path, reporter: Reporter) -> None:
    if ended.error is not None:
        reporter.problem(ended.error, ended.details)
        return
    report = ended.report
    assert report is not None  # noqa: S101  # it did not fail
    verdict = report["verdict"]
    if ended.status == "done" and not reporter.quiet:
        for warning in dict.fromkeys((*report["warnings"], *verdict["reasons"])):
            reporter.note(f"{ended.name}: {warning}")
    if ended.note:
        reporter.note(f"{ended.name}: the result there {ended.note}")
    kept = " (finished before)" if ended.status == "kept" else ""
    reporter.say(f"jcs: {number} of {total}: {ended.name}: {verdict['text']}{kept}")
    reporter.case(
        f"{ended.name}: {out / ended.name}",
        case=ended.name,
        folder=str(out / ended.name),
        status=ended.status,
        source=report.get("source"),
        series=report["input"].get("series"),
        warnings=report.get("cautions", []),
        verdict=verdict,
        burden=report["burden"],
    )


def _table(rows: Sequence[dict[str, Any]]) -> str:
    lines = ["", f"{'case':<28} {'status':<7} {'verdict':<13} {'score':>7} {'lesion ml':>9}  severity"]
    for row in rows:
        verdict = row.get("verdict", "")
        score = f"{row['score']:.3f}" if row.get("score", "") != "" else ""
        volume = f"{row['lesion_ml']:.1f}" if row.get("lesion_ml") not in ("", None) else ""
        severity = row.get("severity") or ""
        lines.append(
            f"{row['case'][:28]:<28} {row['status']:<7} {verdict:<13} {score:>7} {volume:>9}  {severity}".rstrip()
        )
    return "\n".join(lines)
