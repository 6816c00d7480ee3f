"""`jcs evaluate study`: verdicts of whole studies against labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from jcs_ct.cli.common import PATH, Run, common_options, few
from jcs_ct.cli.evaluate.common import bootstrap_options, out_option, refuse_scores, write_scores
from jcs_ct.core.errors import InputError, UsageError

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@click.option(
    "--labels", type=PATH, required=True, help="Table study,label[,group][,digest]: 1 = COVID-19; group: the patient."
)
@click.option("--results", type=PATH, required=True, help="Folder of results, the OUT of `jcs diagnose`.")
@out_option
@bootstrap_options("patients")
@click.option("--strict", is_flag=True, help="Refuse verdicts that are not reliable; by default they are scored, too.")
@common_options("evaluate study")
def study(run: Run, labels: Path, results: Path, out: Path, resamples: int, seed: int, strict: bool) -> None:
    """Score the verdicts of `jcs diagnose`: AUC, sensitivity, specificity, confusion matrix, calibration.

    Rows are matched to results by the name of the result folder or of the input. If two studies share a name, the
    folder decides, otherwise the SHA-256 digest. This also writes studies.csv and verdicts.png.
    """
    from jcs_ct.evaluate.study import figure, read_studies, record, report, to_csv, to_markdown
    from jcs_ct.evaluate.study_matching import copies, read_labels

    for option, given in (("--runtime", run.runtime), ("--device", run.device)):
        if given != "auto":
            raise UsageError(f"{option} is for a network, and none runs here", hint="leave it out")

    refuse_scores(run, out, ("scores.json", "scores.md", "studies.csv", "verdicts.png"))
    found, problems, extra = read_studies(results, read_labels(labels), strict=strict)
    run.reporter.tell((), problems)
    if extra:
        run.reporter.note(f"{len(extra)} results have no label, and are not scored: {few(extra)}")
    if not found:
        what = "names no study that has a reliable result" if strict else "names no study that has a result"
        raise InputError(what, path=labels, hint=f"the results lie in {results}")
    for one in found:
        run.reporter.case(f"{one.name}: {one.call}", study=one.name)
    if twice := copies(one.digest for one in found):
        run.reporter.note(f"{twice} studies are the same bytes as another one, and count as studies of their own")
    content = report(found, str(results), resamples=resamples, seed=seed)
    limits = {s.limit for s in found}
    write_scores(
        run,
        out,
        content,
        {
            "scores.md": to_markdown(content),
            "studies.csv": to_csv(found),
            "verdicts.png": figure(found, limits.pop() if len(limits) == 1 else None),
        },
        record(found, str(results), {"resamples": resamples, "seed": seed}),
    )
