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
              help="As of `jcs diagnose`; networks of the table run with deterministic weights.")  # fmt: skip
@click.option("--runtimes", default="torch,auto", show_default=True, metavar="A,B", help="The first is the baseline.")
@click.option("--segment", type=click.Choice(["always", "positive", "never"]), help="As of `jcs diagnose`.")
@click.option("--lengths", default="", metavar="A,B",
              help="In place of STUDY: phantoms of so many slices, in a warm process.")  # fmt: skip
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True, help="Turns that count.")
@click.option("--json", "as_json", is_flag=True, help="The result as JSON.")
@click.option("--quiet", is_flag=True, help="The result only.")
@click.option("--verbose", is_flag=True, expose_value=False, help="Tracebacks.")
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
    """Time whole studies by stage: seconds, memory, on every runtime in turn.

    STUDY is what `jcs diagnose` reads: one study. Its results are thrown away. Nothing else should run on the machine.
    """
    names = [name for name in runtimes.split(",") if name]
    check_runtimes(names, RUNTIMES)
    counts = [text for text in lengths.split(",") if text]
    if any(not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 999 for text in counts):
        raise UsageError(f"{lengths!r:.40} are no numbers of slices", hint="50,100,200,400, for example; 999 at most")
    if (study is None) is not bool(counts) or not names:
        raise UsageError("one study, or --lengths, and a runtime are needed", hint="see `jcs bench study --help`")

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
