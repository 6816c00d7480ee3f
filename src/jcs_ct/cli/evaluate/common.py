"""What the three commands share: their options, their slices, the loop over them, and the files they write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

from jcs_ct.cli.bar import Bar
from jcs_ct.cli.common import PATH, Reporter, Run, few, refuse_existing, report_notes, stacked
from jcs_ct.core.errors import JcsError, UsageError
from jcs_ct.core.whole_files import write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from jcs_ct.evaluate.inputs import Case, Cases, Maps
    from jcs_ct.evaluate.matching import Matched
    from jcs_ct.evaluate.record import ScoreRecord
    from jcs_ct.evaluate.slice_reader import SliceReader
    from jcs_ct.inference import Network
    from jcs_ct.models import Gives

F = TypeVar("F", bound="Callable[..., Any]")
T = TypeVar("T")

out_option = click.option(
    "-o", "--out", type=PATH, required=True, help="Folder for scores.json, scores.md, tables and plots."
)
data_option = click.option("--data", type=PATH, help="A data set: folder, list or manifest (see `jcs data check`).")
map_values_option = click.option(
    "--map-values",
    type=click.Choice(["auto", "probabilities", "masks"]),
    default="auto",
    show_default=True,
    help="What 8-bit maps hold: floor(255·p), or masks (every value but 0 is lesion); auto looks at the whole folder.",
)
masks_option = click.option("--masks", type=PATH, help="Instead of --data: a folder of masks, for precomputed maps.")


def bootstrap_options(drawn: str) -> Callable[[F], F]:
    """Return what adds `--resamples` and `--seed`; `drawn`: what is drawn again and again."""
    words = f"Number of bootstrap resamples of {drawn} (0: no intervals)."
    return stacked(
        click.option("--resamples", type=click.IntRange(0), default=1000, show_default=True, help=words),
        click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the bootstrap."),
    )


selection_options = stacked(
    click.option("--folds", type=PATH, help="File of folds (default: folds.json of the data set)."),
    click.option("--fold", type=click.IntRange(1), help="Take only the slices of this fold."),
    click.option("--split", help="Take only the slices of this split, such as test."),
    bootstrap_options("groups (patients) for 95 % intervals"),
)


def refuse_scores(run: Run, out: Path, names: Sequence[str]) -> None:
    """Refuse to start where a file of these names exists in the folder of the scores already."""
    refuse_existing([out / name for name in names], [], overwrite=run.overwrite)


def exactly_one_of(**options: object) -> None:
    """Raise UsageError unless exactly one of two options was given."""
    given = [name for name, value in options.items() if value is not None]
    if len(given) != 1:
        names = " and ".join(f"--{name}" for name in options)
        raise UsageError(
            f"{'both' if given else 'neither'} of {names} {'were' if given else 'was'} given; give one of them"
        )


labels_option = click.option(
    "--labels", help="Labels that mean lesion in masks of volumes, such as 1,3 (default: all above 0)."
)


def masked_cases(data: Path | None, masks: Path | None, model: Sequence[str], chosen: Mapping[str, Any]) -> Cases:
    """Return the slices with masks that --data or --masks names.

    Raises:
        InputError: See `jcs_ct.evaluate.inputs`.
        UsageError: Options that do not go together.
    """
    from jcs_ct.evaluate import inputs

    exactly_one_of(data=data, masks=masks)
    if data is not None:
        return inputs.from_dataset(data, "segment", **chosen)
    if model or any(value is not None for value in chosen.values()):
        raise UsageError("--masks goes without --model, --fold, --folds and --split", hint="give --data instead")
    assert masks is not None  # noqa: S101  # one of the two is
    return inputs.from_masks(masks)


def open_reader(
    run: Run, cases: Cases, model: Sequence[str], gives: Gives, *, strict: bool = False
) -> SliceReader | None:
    """Report the notes on the slices, and return what reads slices for the network, if one was named.

    Raises:
        UsageError: An option is for a network, and none was named; or see `jcs_ct.inference.open_network`.
    """
    if not model:
        for option, given in (("--runtime", run.runtime != "auto"), ("--strict", strict)):
            if given:
                raise UsageError(f"{option} is for a network, and none runs here", hint="leave it out, or give --model")
    run.reporter.tell(cases.notes)
    if not model:
        return None
    from jcs_ct.datasets.training_slices import read_training_slices, union_of
    from jcs_ct.evaluate.slice_reader import SliceReader
    from jcs_ct.inference.ensemble import Ensemble
    from jcs_ct.weights.store import find_hashes

    network = run.mean_network(model, [gives], len(cases.cases))
    members = network.members if isinstance(network, Ensemble) else (network,)
    hashes = [find_hashes(name, member.card) for name, member in zip(model, members, strict=True)]
    known = [read_training_slices(path) for path in hashes if path is not None]
    learned = union_of(known) if len(known) == len(hashes) else None
    return SliceReader(
        network, learned, strict=strict, note=lambda name, notes, flags: report_notes(name, notes, run.reporter, flags)
    )


def threshold_of(threshold: float | None, network: Network | None, *, covid: bool = False) -> float:
    """Return the threshold: the one given, else that of the weights (`covid`: of a slice's label), else 0.5."""
    of_weights = None
    if network is not None and network.card.threshold is not None:
        of_weights = network.covid_threshold if covid else network.threshold
    return next((cut for cut in (threshold, of_weights) if cut is not None), 0.5)


def refuse_itself(predictions: Path | None, against: Path | None) -> None:
    """Raise UsageError if a set of predictions is to be compared with itself."""
    if predictions is not None and against is not None and predictions.resolve() == against.resolve():
        raise UsageError("--predictions and --against are the same", path=against, hint="give another model's")


def report_unmatched(reporter: Reporter, found: tuple[T, Matched]) -> T:
    """Report what did not match, and return what did."""
    values, match = found
    reporter.tell((), match.problems)
    if extra := match.extra:
        reporter.note(f"{len(extra)} predictions belong to none of the slices chosen, and are not scored: {few(extra)}")
    return values


def report_storage(reporter: Reporter, folders: Sequence[Maps]) -> None:
    """Report how maps are stored, where that is not plain."""
    reporter.tell(maps.stored.note for maps in folders if maps.stored.note)


def score_each(cases: Sequence[Case], work: Callable[[Case], None], reporter: Reporter) -> list[Case]:
    """Do `work` for each slice, and show how far it is; report what fails, and return what succeeded."""
    done = []
    with Bar(len(cases), reporter.say, quiet=reporter.quiet) as bar:
        for i, case in enumerate(cases, 1):
            try:
                work(case)
            except UsageError:
                raise  # an argument was wrong after all, which no further slice can mend
            except JcsError as error:
                reporter.problem(error if error.path else JcsError(error.message, path=case.key, hint=error.hint))
            else:
                reporter.case(f"{case.key}: scored", slice=case.name)
                done.append(case)
            bar.to(i)
    return done


def write_scores(
    run: Run, out: Path, content: Mapping[str, Any], files: Mapping[str, bytes], record: ScoreRecord
) -> None:
    """Write scores.json, with what the scores are of, and the other files; hand the scores to `--json`."""
    from jcs_ct.evaluate import tables
    from jcs_ct.evaluate.record import changes

    if text := changes(out, record):
        run.reporter.note(text)
    content = {**content, "fingerprint": record.facts()}

    for name, data in {"scores.json": tables.to_json(content), **files}.items():
        write_whole(out / name, data, overwrite=run.overwrite)
    run.reporter.result |= {"out": str(out), "scores": tables.plain(dict(content))}
    if "undefined" in content:
        run.reporter.note(content["undefined"])
    if text := tables.reservation(content):
        run.reporter.note(text)
    run.reporter.say(f"jcs: scores in {out / 'scores.md'}")
