"""`jcs bench study`: whole studies, from the start of the command to the finished folder."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import click

from jcs_ct.cli.common import RUNTIMES, check_runtimes, line_printer, threads_option
from jcs_ct.core.errors import UsageError


@click.command("study")
@click.argument("study", type=click.Path(path_type=Path), required=False)
@click.option("--model", "-m", metavar="NAME|FILE", multiple=True,
              help="Weights, as for `jcs diagnose`; networks without any run with deterministic ones.")  # fmt: skip
@click.option(
    "--runtimes",
    default="torch,auto",
    show_default=True,
    metavar="A,B",
    help="Runtimes to measure; the first is the baseline.",
)
@click.option(
    "--segment",
    type=click.Choice(["always", "positive", "never"]),
    help="Which studies get lesion maps, as for `jcs diagnose`.",
)
@click.option("--lengths", default="", metavar="A,B",
              help="Instead of STUDY: measure phantoms with these numbers of slices, in a warm process.")  # fmt: skip
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True, help="Number of turns that count.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on standard output.")
@click.option("--quiet", is_flag=True, help="Print the result only.")
@click.option("--verbose", is_flag=True, expose_value=False, help="Print tracebacks of errors.")
@threads_option
def bench_study(
    study: Path | None,
    model: tuple[str, ...],
    runtimes: str,
    segment: Any,
    lengths: str,
    repeats: int,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure the time of each stage of a study, and its memory, on every runtime in turn.

    STUDY is one study that `jcs diagnose` can read. Its results are thrown away. Nothing else should run on the
    machine.
    """
    names = [name for name in runtimes.split(",") if name]
    check_runtimes(names, RUNTIMES)
    counts = [text for text in lengths.split(",") if text]
    if any(not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 999 for text in counts):
        raise UsageError(f"{lengths!r:.40} are not numbers of slices", hint="50,100,200,400, for example; 999 at most")
    if (study is None) is not bool(counts) or not names:
        raise UsageError("give one study or --lengths, and at least one runtime", hint="see `jcs bench study --help`")

    from jcs_ct.bench import studies as speed

    say = line_printer(quiet=quiet)
    models = model or ("jcs-lite",)
    with tempfile.TemporaryDirectory() as folder:
        rows = [speed.StudyRow(name, speed.Job(study, models, name, segment)) for name in names if study is not None]
        if counts:
            say(f"phantoms of {', '.join(counts)} slices are made")
            for path in speed.phantoms([int(text) for text in counts], Path(folder)):
                rows += [
                    speed.StudyRow(f"{path.name}, {name}", speed.Job(path, models, name, segment, warm=True))
                    for name in names
                ]
        speed.measure(rows, repeats, say)
    if as_json:
        click.echo(json.dumps({"schema": speed.SCHEMA, "rows": [row.to_dict() for row in rows]}, indent=2))
    else:
        click.echo(speed.to_markdown(rows), nl=False)
