"""`jcs diagnose`: studies in, reports out."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jcs_ct.cli.bar import Bar
from jcs_ct.cli.common import (
    PATIENT_RULES,
    Reporter,
    Run,
    aligned,
    allow_gaps_option,
    common_options,
    drop_odd_option,
    inputs_argument,
    report_warnings,
    segment_option,
    verdict_line,
)
from jcs_ct.core.errors import InputError, JcsError, OutputError, UsageError
from jcs_ct.outputs.report.language import LANGUAGES
from jcs_ct.outputs.report.words import call_of, score_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jcs_ct.app.batch import CaseOutcome
    from jcs_ct.app.shares import Share
    from jcs_ct.study.case import Case
    from jcs_ct.study.settings import Networks, Settings

_HEAD = ("case", "verdict", "score (interval)", "reliable", "lesions", "grade", "report")


@click.command()
@inputs_argument
@click.option(
    "-o",
    "--out",
    "target",
    metavar="OUT",
    required=True,
    help="Folder or URL of the results; each study gets OUT/<case>/.",
)
@click.option("--model", "-m", metavar="NAME|FILE", multiple=True,
              help="Weights (default: jcs-lite). Twice, in any order: a classifier for the verdict, a segmenter for "
              "lesions.")  # fmt: skip
@click.option("--rule", type=click.Choice(PATIENT_RULES), default=PATIENT_RULES[0], show_default=True,
              help="How slice probabilities become the patient's verdict; see docs/methods.md.")  # fmt: skip
@segment_option
@click.option("--series", metavar="UID|NUMBER|TEXT", help="Read this series of each study; `jcs inspect` lists them.")
@allow_gaps_option
@drop_odd_option
@click.option("--language", type=click.Choice(list(LANGUAGES)), default="en", show_default=True,
              help="Language of the report (HTML and PDF); the other files stay English.")  # fmt: skip
@click.option("--pdf", is_flag=True, help="Also write report.pdf, for printing and mail (needs WeasyPrint).")
@click.option("--no-html", is_flag=True, help="Do not write report.html.")
@click.option("--keep-identity", is_flag=True, help="Name cases by the patient's ID, and show the ID in the report.")
@click.option("--resume", is_flag=True, help="Keep the studies that an earlier run finished in OUT.")
@click.option("--part", metavar="K/N",
              help="Diagnose only the K-th of N disjoint shares of the studies, longest first; "
              "`jcs collect` merges the shares (docs/scale.md).")  # fmt: skip
@click.option("--part-by", type=click.Choice(["study", "entry"]), default=None,
              help="What --part divides. study (default): studies, after reading every header. entry (always for "
              "URLs): sub-folders, archives and lines of lists of whole studies; others are not read.")  # fmt: skip
@click.option("--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True,
              help="Where studies are computed; ray: on the workers of a cluster that sees INPUT and OUT.")  # fmt: skip
@click.option("--address", metavar="ADDRESS", help="Address of the Ray cluster (default: one on this machine).")
@click.option("--workers", type=click.IntRange(1), metavar="N",
              help="Number of Ray workers (default: one for every two processors, or for --threads).")  # fmt: skip
@common_options("diagnose")
def diagnose(
    run: Run,
    inputs: tuple[str, ...],
    target: str,
    model: tuple[str, ...],
    rule: str,
    segment: str | None,
    series: str | None,
    allow_gaps: bool,
    drop_odd: bool,
    language: str,
    pdf: bool,
    no_html: bool,
    keep_identity: bool,
    resume: bool,
    part: str | None,
    part_by: str | None,
    engine: str,
    address: str | None,
    workers: int | None,
) -> None:
    """Diagnose studies: probability, attention and lesions of every slice, and the patient's verdict.

    INPUT is a file (DICOM, NIfTI, MetaImage, NRRD), a folder, or a .zip or .tar.gz of them. It may also be pictures of
    slices in a lung window: the pictures in a folder are one study, head first. Each study gets OUT/<case>/ with
    report.json, report.html, slices.csv, masks and heat maps (NIfTI for volumes, PNG for pictures); DICOM also gets SEG
    and SR. OUT/summary.csv lists all studies. INPUT and OUT may be URLs such as s3://bucket/folder (docs/scale.md).

    This is a research tool, not a medical device.
    """
    from jcs_ct.app.shares import Share
    from jcs_ct.archive.places import is_url
    from jcs_ct.core.memory import one_arena

    one_arena()
    if resume and run.overwrite:
        raise UsageError("--resume keeps what --overwrite replaces", hint="give one of them")
    share = None if part is None else Share.parse(part)
    if share is None and part_by is not None:
        raise UsageError("--part-by says what --part shares", hint="give --part K/N too")
    if engine != "ray" and (address is not None or workers is not None):
        raise UsageError("--address and --workers are of a cluster", hint="give --engine ray too")
    if pdf:
        from jcs_ct.outputs.report.pdf import require_pdf

        if no_html:
            raise UsageError("--pdf is report.html on paper", hint="leave out --no-html")
        require_pdf(language)
    with_networks = _WithNetworks(run, model, rule, segment, language, pdf, no_html)
    ways: Any = {"series": series, "allow_gaps": allow_gaps, "drop_odd": drop_odd, "keep_identity": keep_identity}
    if any(is_url(text) for text in (*inputs, target)):
        from jcs_ct.cli.archive import GUESS, diagnose_archive

        if part_by == "study" or engine == "ray":
            raise UsageError("URLs are shared by entry, and not with --engine ray", hint="start jobs with --part K/N")
        networks = with_networks.open(GUESS)
        settings = with_networks.settings(networks)
        diagnose_archive(run, inputs, target, share, networks, settings, resume=resume, **ways)
        return
    cluster = None if engine == "local" else (address, workers)
    _diagnose_here(with_networks, inputs, Path(target), share, part_by or "study", cluster, ways, resume=resume)


@dataclass(frozen=True)
class _WithNetworks:
    """What studies are diagnosed with, opened when it is known for how much."""

    run: Run
    models: tuple[str, ...]
    rule: str
    segment: str | None
    language: str
    pdf: bool
    no_html: bool

    @property
    def names(self) -> tuple[str | None, ...]:
        return self.models or (None,)

    def open(self, slices: int = 1) -> Networks:
        from jcs_ct.models import RESULTS
        from jcs_ct.study.settings import Networks

        networks = Networks.of([self.run.network(name, RESULTS, slices) for name in self.names])
        self.run.reporter.result |= {"model": [network.card.name for network in networks.all]}
        return networks

    def settings(self, networks: Networks) -> Settings:
        from jcs_ct.study.settings import Settings

        chosen: Any = self.segment or networks.usual_segment
        return Settings(self.rule, chosen, frames=not self.no_html, language=self.language, pdf=self.pdf)


def _diagnose_here(
    with_networks: _WithNetworks,
    inputs: Sequence[str],
    out: Path,
    share: Share | None,
    part_by: str,
    cluster: tuple[str | None, int | None] | None,
    ways: Any,
    *,
    resume: bool,
) -> None:
    """Diagnose studies that lie on disks, into a folder."""
    from jcs_ct.app import batch
    from jcs_ct.app.gather import gather
    from jcs_ct.app.identity import with_stable_names
    from jcs_ct.app.locks import remove_debris
    from jcs_ct.app.resume_index import FinishedCase
    from jcs_ct.app.summary import Summary, problem_row, summary_row

    run, reporter = with_networks.run, with_networks.run.reporter
    if out.exists() and not out.is_dir():
        raise OutputError("is a file, but a folder is to be written there", path=out, hint="give another -o")
    if cluster is not None:  # its workers stand in folders of their own
        inputs, out = [os.path.abspath(item) for item in inputs], out.absolute()  # noqa: PTH100  # links stay
    by_study, given = part_by == "study", list(inputs)
    if share is not None and not by_study:
        given = share.of_entries(inputs)
    if resume and (removed := remove_debris(out)):  # before names are chosen: a result may get its place back
        reporter.note(f"{removed} half-written studies of a run that was killed were removed")
    networks = with_networks.open() if resume and given and out.is_dir() else None
    known = [] if networks is None else batch.reusable_cases(out, networks, with_networks.settings(networks), ways)
    found = gather(given, known=known, **ways) if given else None
    if share is not None and by_study and found is not None:
        found = share.of_found(found) if found.cases or found.kept or found.problems else found
    if share is not None and (found is None or not (found.cases or found.kept or found.problems)):
        reporter.note(f"nothing of the inputs is in share {share}")
        Summary(out)
        return
    assert found is not None  # noqa: S101  # without a share something is given
    reporter.tell(found.notes, found.problems)
    if not (found.cases or found.kept or found.problems):
        raise InputError(
            "no study to work on", hint="give DICOM, NIfTI or pictures of slices: files, folders or a .zip"
        )
    closing, summary = Closing(out, found.problems), Summary(out, reporter.note)
    cases = with_stable_names(found.cases, out, alone=share is not None)
    _refuse_existing(cases, out, run, resume=resume)
    kept = [batch.CaseOutcome(case, "kept", case.report) for case in found.kept]
    known_as: Any = {"keep_identity": ways["keep_identity"]}
    summary.add(
        *(problem_row(problem, **known_as) for problem in found.problems),
        *(summary_row(ended, **known_as) for ended in kept),
    )
    if not cases and not kept:
        summary.put_in_order()
        return
    slices = sum(len(case) for case in cases)
    networks = networks or with_networks.open(max(1, slices))
    networks.expect(slices)
    total, before = len(cases) + len(kept), 0  # slices of the studies that have ended
    how: Any = {"overwrite": run.overwrite, "resume": resume, "reading": ways}
    settings = with_networks.settings(networks)
    with Bar(slices, reporter.say, quiet=reporter.quiet) as bar:
        if cluster is None:
            how["progress"] = lambda done, _: bar.to(before + done)
            ending = batch.diagnose_cases(cases, networks, settings, out, **how)
        else:
            from jcs_ct.archive.workers import Orders, diagnose_on_ray

            orders = Orders(with_networks.names, run.device, run.runtime, settings, out, how)
            ending = diagnose_on_ray(cases, orders, address=cluster[0], workers=cluster[1], say=reporter.note)
        for i, ended in enumerate(chain(kept, ending), 1):
            if i > len(kept):
                summary.add(summary_row(ended, **known_as))
                before += 0 if isinstance(ended.case, FinishedCase) else len(ended.case)
                bar.to(before)
            closing.study(ended)
            _say(ended, i, total, out, reporter)
    summary.put_in_order(found.read_now)
    if table := closing.table():
        reporter.say(table)
    reporter.last = closing.last()


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
        report_warnings(ended.name, report, reporter)
    if ended.note:
        reporter.note(f"{ended.name}: the result there {ended.note}")
    kept = " (finished before)" if ended.status == "kept" else ""
    if any(caution["code"] == "trained-on" for caution in report.get("cautions", [])):
        kept += " (part of the network's training data)"
    reporter.say(f"jcs: {number} of {total}: {ended.name}: {verdict_line(verdict)}{kept}")
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


class Closing:
    """Collects the last lines: one for each of several studies, whatever became of it, and what to open.

    `problems` are inputs that made no study.
    """

    def __init__(self, out: Path, problems: Sequence[JcsError] = ()) -> None:
        self._out = out
        self._rows = [("–", "failed", "", "", "", "", problem.path or "") for problem in problems]
        self._pages: list[Path] = []

    def study(self, ended: CaseOutcome) -> None:
        """Add a study."""
        if ended.report is None:
            self._rows.append((ended.name, "failed", "", "", "", "", ended.case.label))
            return
        verdict, burden = ended.report["verdict"], ended.report["burden"] or {}
        score, *ends = (score_text(p, verdict["limit"]) for p in (verdict["score"], *(verdict.get("interval") or ())))
        interval = f" ({' to '.join(ends)})" if ends else ""
        page = self._out / ended.name / ended.report["files"].get("html", "report.json")
        self._pages.append(page)
        self._rows.append(
            (
                ended.name,
                call_of(verdict),
                f"{score}{interval}",
                "yes" if verdict["reliable"] else "NO",
                "" if burden.get("lesion_ml") is None else f"{burden['lesion_ml']:.1f} ml",
                (burden.get("severity") or {}).get("name", ""),
                str(page),
            )
        )

    def table(self) -> str:
        """Return the table of several studies; "" where there is only one, whose line was said."""
        if len(self._rows) < 2:
            return ""
        return "\n".join(["", *aligned([_HEAD, *self._rows])])

    def last(self) -> str:
        """Return what to open now; "" where nothing was made."""
        if len(self._rows) == len(self._pages) == 1:
            return f"Open {self._pages[0]}"
        if not self._pages:
            return ""
        return f"Open a report of the table above; all numbers are in {self._out / 'summary.csv'}"
