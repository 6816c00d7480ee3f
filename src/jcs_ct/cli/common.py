"""What the commands share: their options, what they say and where, and the exit status."""

from __future__ import annotations

import json
import logging
from collections import Counter
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from jcs_ct.core.errors import InputError, JcsError, OutputError, UsageError
from jcs_ct.core.processors import limited_threads, need_processors_described
from jcs_ct.core.warning import code_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from jcs_ct.app.each_slice import Outcome
    from jcs_ct.inference import Network
    from jcs_ct.io.files.sources import Source
    from jcs_ct.models import Gives

F = TypeVar("F", bound="Callable[..., Any]")
T = TypeVar("T")

PATIENT_RULES = ("whole-study", "top-k", "fraction", "release-count")  # as in jcs_ct.study.settings
RUNTIMES = ("auto", "torch", "torch-tuned", "openvino", "onnxruntime", "native")  # as in the table

ACCEPT = "With --resume: go on though slices, labels, masks or their parts have changed; the weights' card says so."
"""What `--accept-changed-data` of the training commands says of itself."""


class Probability(click.FloatRange):
    """A number from 0 to 1. `click.FloatRange` alone lets NaN pass, which no probability ever reaches."""

    def __init__(self, *, min_open: bool = False) -> None:
        super().__init__(0, 1, min_open=min_open)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number. Fails as any type of click does."""
        number = super().convert(value, param, ctx)
        if number != number:
            self.fail(f"{value} is not a number", param, ctx)
        return number


inputs_argument = click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")


def model_option(several: str = "") -> Callable[[F], F]:
    """Return the option `--model NAME|FILE`: a tuple where several may be given, else one, and more are refused.

    Args:
        several: What several are for.
    """
    text = "Stored weights (see `jcs models list`) or a file"
    more = f"; give it several times {several}." if several else "."
    return click.option(
        "--model", "-m", metavar="NAME|FILE", multiple=True, help=text + more, callback=None if several else _only_one
    )


ENSEMBLE = "for the mean of networks of one kind"


def _only_one(_context: click.Context, _option: click.Parameter, given: tuple[str, ...]) -> str | None:
    """Return the one value of an option; the last one would win without a word."""
    if len(given) > 1:
        raise UsageError(f"--model was given {len(given)} times ({', '.join(given)}); this command takes one")
    return given[0] if given else None


def strict_option(function: F) -> F:
    """Add the option `--strict` of commands that look at every slice before a network does."""
    text = "Refuse slices that do not look like axial chest slices in a lung window; by default they are noted."
    return click.option("--strict", is_flag=True, help=text)(function)


def slice_options(out: str, model: str) -> Callable[[F], F]:
    """Add what commands that look at slices one by one have: INPUT..., --out, --model and --strict.

    Args:
        out: Help of --out.
        model: What several --model are for.
    """

    def decorate(function: F) -> F:
        place = click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help=out)
        return inputs_argument(place(model_option(model)(strict_option(function))))

    return decorate


def threads_option(function: F) -> F:
    """Add the option `--threads` of a command that computes, and keep to it until the command ends."""

    @wraps(function)
    def wrapper(*arguments: Any, threads: int, **rest: Any) -> Any:
        need_processors_described()
        click.get_current_context().with_resource(limited_threads(threads))
        return function(*arguments, **rest)

    text = "Processors to compute with; default: OMP_NUM_THREADS, else what affinity and cgroup leave."
    added: Any = click.option("--threads", type=click.IntRange(0), default=0, metavar="N", help=text)(wrapper)
    decorated: F = added
    return decorated


def common_options(command: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add what every command on slices has; the function gets `run: Run` instead of a parameter for each.

    The exit status is what `run.reporter.finish()` returns after the function.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @wraps(function)
        def wrapper(
            device: str, runtime: str, overwrite: bool, quiet: bool, verbose: bool, as_json: bool, **rest: Any
        ) -> None:
            reporter = Reporter(command, quiet=quiet, verbose=verbose, as_json=as_json)
            function(run=Run(reporter, device, overwrite, runtime), **rest)
            click.get_current_context().exit(reporter.finish())

        return _with_options(threads_option(wrapper))

    return decorate


def _with_options(function: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on standard output."),
        click.option("--verbose", is_flag=True, help="Print more details, and tracebacks of errors."),
        click.option("--quiet", is_flag=True, help="Print problems only."),
        click.option("--overwrite", is_flag=True, help="Replace files that exist."),
        click.option(
            "--runtime",
            type=click.Choice(RUNTIMES),
            default="auto",
            show_default=True,
            help="Library that runs the network; auto takes the fastest that passed its check on this machine.",
        ),
        click.option(
            "--device",
            type=click.Choice(["auto", "cpu", "cuda", "mps"]),
            default="auto",
            show_default=True,
            help="Where the network runs.",
        ),
    ):
        function = option(function)
    return function


def line_printer(*, quiet: bool) -> Callable[[str], None]:
    """Return what says a line on standard error unless `quiet`, for commands that have no cases to report."""

    def say(text: str) -> None:
        if not quiet:
            click.echo(f"jcs: {text}", err=True)

    return say


def check_runtimes(names: Iterable[str], known: Sequence[str]) -> None:
    """Refuse names of runtimes that are not known, before PyTorch is loaded. Raises UsageError."""
    for name in names:
        if name not in known:
            raise UsageError(f"no runtime is called {name!r}", hint=f"known: {', '.join(known)}")


COUNTED: dict[str, tuple[str, str]] = {
    **dict.fromkeys(("diagnose", "collect"), ("study done", "studies done")),
    **dict.fromkeys(("segment", "classify", "explain", "features"), ("slice done", "slices done")),
    **dict.fromkeys(("evaluate segment", "evaluate classify", "evaluate explain"), ("slice scored", "slices scored")),
    "evaluate study": ("study scored", "studies scored"),
    "inspect": ("series can be read", "series can be read"),
    "demo": ("", ""),  # its parts are of different kinds: only failures are counted
}
"""Command → what its last line counts, one and many of them."""


class Reporter:
    """Says what happens (standard error), collects what a script wants to know (`--json`), counts failures.

    Attributes:
        done: How many cases were written.
        last: A line to end with, such as what to open.
    """

    def __init__(self, command: str, *, quiet: bool, verbose: bool, as_json: bool) -> None:
        self.quiet, self.verbose, self.as_json = quiet, verbose, as_json
        self.result: dict[str, Any] = {"command": command, "cases": [], "failed": [], "notes": []}
        self.done = 0
        self.last = ""
        if not verbose:  # libraries write to the log about things that are named here in one line anyway
            logging.getLogger("PIL").setLevel(logging.ERROR)

    def note(self, text: str) -> None:
        """Say something a user should know."""
        self.result["notes"].append(text)
        if not self.quiet:
            _say(f"jcs: note: {text}")

    def say(self, text: str) -> None:
        """Say something that is not worth keeping."""
        if not self.quiet:
            _say(text)

    def detail(self, text: str) -> None:
        """Say something that only somebody who asks for it with --verbose wants to know."""
        if self.verbose:
            self.say(f"jcs: {text}")

    def problem(self, error: JcsError, details: str = "") -> None:
        """Name a case that failed."""
        self.result["failed"].append({"source": error.path, "message": error.line()})
        if details and self.verbose:
            _say(details)
        _say(f"jcs: error: {error.line()}")

    def case(self, summary: str, **facts: Any) -> None:
        """Record a case that was written."""
        self.done += 1
        if self.as_json:
            self.result["cases"].append(facts)
        if self.verbose:
            _say(summary)

    def finish(self) -> int:
        """Print the JSON if asked for, and return the exit status."""
        failed = len(self.result["failed"])
        if self.as_json:
            try:
                click.echo(json.dumps(self.result, indent=2, ensure_ascii=False))
            except BrokenPipeError:  # whoever read it is gone, which click takes as the end
                raise
            except OSError as error:
                raise OutputError(
                    f"the result cannot be printed: {error.strerror}",
                    hint="what was computed is written; check where standard output goes",
                ) from error
        one, many = COUNTED.get(str(self.result["command"]), ("done", "done"))
        counted = [f"{self.done} {one if self.done == 1 else many}"] if one else []
        counted += [f"{failed} failed"] if failed else []
        if counted:
            self.say(f"jcs: {', '.join(counted)}")
        if self.last:
            self.say(self.last)
        if not failed:
            return 0
        return 1 if self.done else 2


def _say(text: str) -> None:
    from tqdm import tqdm

    with tqdm.external_write_mode():
        click.echo(text, err=True)


@dataclass(frozen=True)
class Run:
    """What the common options say.

    Attributes:
        reporter: Where to say things.
        device: "auto", "cpu", "cuda" or "mps".
        overwrite: Whether results may replace files.
        runtime: "auto" or the name of a runtime.
    """

    reporter: Reporter
    device: str
    overwrite: bool
    runtime: str = "auto"

    def torch_only(self) -> Run:
        """Return the same for a command that needs gradients or inner layers, which only PyTorch has.

        Raises:
            UsageError: Another runtime was asked for.
        """
        if self.runtime not in ("auto", "torch"):
            raise UsageError(
                f"this command does not run on {self.runtime}", hint="leave --runtime out: it needs PyTorch"
            )
        return replace(self, runtime="torch")

    def mean_network(self, models: Sequence[str], gives: Sequence[Gives] = (), slices: int = 1) -> Network:
        """Open one network, or several of one kind as an ensemble; without a name the one that comes with the package.

        Raises:
            JcsError: See `jcs_ct.inference.open_network` and `jcs_ct.inference.ensemble`.
        """
        from jcs_ct.inference.ensemble import grouped_by_architecture

        networks = grouped_by_architecture([self.network(model, gives, slices) for model in models or (None,)])
        if len(networks) > 1:
            raise UsageError(
                f"{' and '.join(n.card.name for n in networks)} are networks of different kinds and cannot be averaged",
                hint="give networks of one architecture, or only one network",
            )
        networks[0].slices = slices
        return networks[0]

    def network(self, model: str | Path | None, gives: Sequence[Gives] = (), slices: int = 1) -> Network:
        """Open a network for a number of slices, and let it say which runtime executes it.

        Raises:
            JcsError: See `jcs_ct.inference.open_network`.
        """
        from jcs_ct.inference import open_network
        from jcs_ct.inference.choice import Chosen

        def say(text: str) -> None:
            if isinstance(text, Chosen):
                self.reporter.detail(text)
            else:
                self.reporter.say(f"jcs: {text}")

        network = open_network(model, self.device, gives, self.runtime, say)
        network.slices = slices
        return network


def find_inputs(inputs: Sequence[str], out: Path, reporter: Reporter) -> list[Source]:
    """Return the sources that the arguments name; what lies in the output folder is left out.

    Raises:
        InputError: Nothing usable was named (each problem is reported before).
    """
    from jcs_ct.io.files.sources import find_sources

    found = find_sources(inputs)
    for note in found.notes:
        reporter.note(note)
    for problem in found.problems:
        reporter.problem(problem)
    own = out.resolve()
    sources = [s for s in found.sources if own not in s.path.resolve().parents]
    if len(sources) < len(found.sources):
        reporter.note(f"{len(found.sources) - len(sources)} files in the output folder {out} are not read as input")
    if not sources:
        raise InputError(
            "no slice to work on", hint="give PNG, JPEG, TIFF or BMP slices: files, folders, lists or a .zip"
        )
    return sources


def refuse_existing(
    paths: Iterable[Path], sources: Iterable[Source], *, overwrite: bool, named: Iterable[str] = ()
) -> None:
    """Refuse to start when a result exists already, would replace an input, or would replace another result.

    Args:
        paths: The results.
        sources: What is read.
        overwrite: Whether results may replace older files.
        named: What else is read: lists of slices, a file of weights.

    Raises:
        OutputError: Names the first of them and counts the others.
    """
    read = {source.path.resolve() for source in sources} | {Path(name).resolve() for name in named}
    paths = list(paths)
    twice = next((path for path, count in Counter(paths).items() if count > 1), None)
    if twice is not None:
        raise OutputError("two results would have this name", path=twice, hint="rename a slice, or a folder of them")
    existing = [path for path in paths if path.exists()]
    replaced = [path for path in existing if path.resolve() in read]
    if replaced:
        raise OutputError("is an input, a result would replace it", path=replaced[0], hint="use another output folder")
    if existing and not overwrite:
        others = f", and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise OutputError(f"exists already{others}", path=existing[0], hint="use --overwrite, or another output folder")


def progress(outcomes: Iterable[Outcome[T]], total: int, reporter: Reporter) -> Iterator[tuple[Source, T]]:
    """Yield what succeeded, report what failed, and show a bar on a terminal or a line a minute in a log.

    Raises:
        UsageError: An argument was wrong after all, which no further slice can mend.
    """
    from jcs_ct.cli.bar import Bar

    with Bar(total, reporter.say, quiet=reporter.quiet) as bar:
        for i, outcome in enumerate(outcomes, 1):
            if isinstance(outcome.error, UsageError):
                raise outcome.error
            if outcome.error is not None:
                reporter.problem(outcome.error, outcome.details)
            else:
                assert outcome.value is not None  # noqa: S101  # no error, so there is a value
                yield outcome.source, outcome.value
            bar.to(i)


def report_warnings(name: str, report: Mapping[str, Any], reporter: Reporter) -> None:
    """Report what report.json warns of, and why its verdict is not reliable, each once."""
    for warning in dict.fromkeys((*report["warnings"], *report["verdict"]["reasons"])):
        reporter.note(f"{name}: {warning}")


def verdict_line(verdict: Mapping[str, Any]) -> str:
    """Return the sentence of a verdict of report.json, and beside it that it is not reliable, and why."""
    doubt = "" if verdict["reliable"] else f" NOT RELIABLE: {'; '.join(verdict['reasons'])}."
    return f"{verdict['text']}{doubt}"


def coded_notes(notes: Sequence[str], flags: Sequence[str] = ()) -> list[dict[str, str]]:
    """Return notes and flags of a slice for `--json`: as `cautions` of report.json."""
    return [{"code": code_of(text), "text": str(text)} for text in (*notes, *flags)]


def report_notes(name: str, notes: Sequence[str], reporter: Reporter, flags: Sequence[str] = ()) -> None:
    """Report what was noticed when a slice was read, and what speaks against it (`jcs_ct.app.each_slice.flags_of`)."""
    for note in notes:
        reporter.note(f"{name}: {note}")
    if flags:
        from jcs_ct.app.each_slice import flags_text

        reporter.note(f"{name}: {flags_text(flags)}")


def report_slice(
    reporter: Reporter, one: Source, summary: str, notes: Sequence[str], flags: Sequence[str], /, **facts: Any
) -> None:
    """Report a slice that was written: its notes and flags, a line, and `facts` for `--json`."""
    report_notes(one.label, notes, reporter, flags)
    warnings = coded_notes(notes, flags)
    reporter.case(f"{one.label}: {summary}", **facts, flags=list(flags), warnings=warnings)
