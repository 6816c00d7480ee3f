"""What the commands share: their options, what they say and where, and the exit status."""

from __future__ import annotations

import json
import logging
import traceback
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from jcs_ct.core.errors import InputError, JcsError, OutputError, UsageError, unforeseen
from jcs_ct.core.installing import install_command
from jcs_ct.core.processors import limited_threads, need_processors_described
from jcs_ct.core.warning import code_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from jcs_ct.inference import Network
    from jcs_ct.io.files.sources import Source
    from jcs_ct.models import Gives

F = TypeVar("F", bound="Callable[..., Any]")
T = TypeVar("T")

PATIENT_RULES = ("whole-study", "top-k", "fraction", "release-count")  # as in jcs_ct.study.settings
RUNTIMES = ("auto", "torch", "torch-tuned", "openvino", "onnxruntime", "native")  # as in the table
PATH = click.Path(path_type=Path)
EXISTING = click.Path(path_type=Path, exists=True, dir_okay=False)
DEVICES = click.Choice(["auto", "cpu", "cuda", "mps"])


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


class Group(click.Group):
    """A group that lists the whole first sentence of each command's help, over several lines where it is long."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, one.get_short_help_str(limit=1000)) for name, one in commands if one and not one.hidden]
            )


def stacked(*options: Callable[[Any], Any]) -> Callable[[F], F]:
    """Return what adds options, in the order in which the help lists them."""

    def add(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return add


inputs_argument = click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on standard output.")
quiet_option = click.option("--quiet", is_flag=True, help="Print problems only.")
details_option = click.option("--verbose", is_flag=True, help="Print more details, and tracebacks of errors.")
verbose_option = click.option("--verbose", is_flag=True, expose_value=False, help="Print tracebacks of errors.")
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace files that exist.")
allow_gaps_option = click.option("--allow-gaps", is_flag=True, help="Accept volumes with missing slices and warn.")
drop_odd_option = click.option(
    "--drop-odd", "--drop-duplicates", "drop_odd", is_flag=True,
    help="Skip a few images that do not fit: their size differs, or their position is taken.",
)  # fmt: skip
segment_option = click.option(
    "--segment", type=click.Choice(["always", "positive", "never"]), default=None,
    help="Which studies get lesion maps (default: always with jcs-lite, otherwise positive).",
)  # fmt: skip
strict_option = click.option(
    "--strict",
    is_flag=True,
    help="Refuse slices that do not look like axial chest slices in a lung window; by default they are noted.",
)


def model_option(several: str = "") -> Callable[[F], F]:
    """Return the option `--model NAME|FILE`: a tuple where `several` says what for, else one, and more are refused."""
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


def slice_options(out: str, model: str) -> Callable[[F], F]:
    """Add what commands that look at slices one by one have: INPUT..., --out, --model and --strict.

    `out` is the help of --out; `model` says what several --model are for.
    """
    place = click.option("-o", "--out", type=PATH, required=True, help=out)
    return stacked(inputs_argument, place, model_option(model), strict_option)


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

        return _COMMON(threads_option(wrapper))

    return decorate


_COMMON = stacked(
    click.option("--device", type=DEVICES, default="auto", show_default=True, help="Where the network runs."),
    click.option(
        "--runtime",
        type=click.Choice(RUNTIMES),
        default="auto",
        show_default=True,
        help="Library that runs the network; auto takes the fastest that passed its check on this machine.",
    ),
    overwrite_option,
    quiet_option,
    details_option,
    json_option,
)


@contextmanager
def needing(extras: str) -> Iterator[None]:
    """Name what the block imports and is not there, and the extras that bring it. Raises UsageError."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise UsageError(f"{error.name} is not installed", hint=install_command(extras)) from error


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

    def tell(self, notes: Iterable[str], problems: Iterable[JcsError] = ()) -> None:
        """Say what a user should know, and name what cannot be used."""
        for note in notes:
            self.note(note)
        for problem in problems:
            self.problem(problem)

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
    """What the common options say. `device`: "auto", "cpu", "cuda" or "mps"; `runtime`: "auto" or the name of one."""

    reporter: Reporter
    device: str
    overwrite: bool
    runtime: str = "auto"

    def torch_only(self) -> Run:
        """Return the same for a command that needs gradients or inner layers. Raises UsageError where none are."""
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
    reporter.tell(found.notes, found.problems)
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

    `named`: what else is read, such as lists of slices, or a file of weights. Raises OutputError, which names the first
    of them and counts the others.
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


def worked(sources: Sequence[Source], work: Callable[[Source], T], reporter: Reporter) -> Iterator[tuple[Source, T]]:
    """Do `work` for every source; yield what succeeded, and show how far it is. One that fails stops no other.

    Raises:
        UsageError: An argument was wrong after all, which no further slice can mend.
    """
    from jcs_ct.cli.bar import Bar

    with Bar(len(sources), reporter.say, quiet=reporter.quiet) as bar:
        for i, source in enumerate(sources, 1):
            try:
                value = work(source)
            except UsageError:
                raise
            except JcsError as error:
                reporter.problem(error)
            except Exception as error:  # noqa: BLE001  # whatever one case meets, the others must still finish
                reporter.problem(unforeseen(error, source.label), traceback.format_exc())
            else:
                yield source, value
            bar.to(i)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def few(names: Sequence[str]) -> str:
    """Return the first of some names, for a line that says how many there are."""
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def report_warnings(name: str, report: Mapping[str, Any], reporter: Reporter) -> None:
    """Report what report.json warns of, and why its verdict is not reliable, each once."""
    warnings = dict.fromkeys((*report["warnings"], *report["verdict"]["reasons"]))
    reporter.tell(f"{name}: {warning}" for warning in warnings)


def verdict_line(verdict: Mapping[str, Any]) -> str:
    """Return the sentence of a verdict of report.json, and beside it that it is not reliable, and why."""
    doubt = "" if verdict["reliable"] else f" NOT RELIABLE: {'; '.join(verdict['reasons'])}."
    return f"{verdict['text']}{doubt}"


def report_notes(name: str, notes: Sequence[str], reporter: Reporter, flags: Sequence[str] = ()) -> None:
    """Report what was noticed when a slice was read, and what speaks against it (`jcs_ct.app.each_slice.flags_of`)."""
    reporter.tell(f"{name}: {note}" for note in notes)
    if flags:
        from jcs_ct.app.each_slice import flags_text

        reporter.note(f"{name}: {flags_text(flags)}")


def report_slice(
    reporter: Reporter, one: Source, summary: str, notes: Sequence[str], flags: Sequence[str], /, **facts: Any
) -> None:
    """Report a slice that was written: its notes and flags, a line, and `facts` for `--json`."""
    report_notes(one.label, notes, reporter, flags)
    warnings = [{"code": code_of(text), "text": str(text)} for text in (*notes, *flags)]  # as `cautions` of report.json
    reporter.case(f"{one.label}: {summary}", **facts, flags=list(flags), warnings=warnings)
