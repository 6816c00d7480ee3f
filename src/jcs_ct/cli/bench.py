"""`jcs bench`: speed of the runtimes; `jcs bench study`: of whole studies; `jcs bench train`: of training."""

from __future__ import annotations

import json
import platform
import statistics
import tempfile
from pathlib import Path
from typing import Any

import click

from jcs_ct.cli.common import (
    PATH,
    RUNTIMES,
    Group,
    check_runtimes,
    json_option,
    line_printer,
    needing,
    overwrite_option,
    stacked,
    threads_option,
    verbose_option,
)
from jcs_ct.core.errors import UsageError

NETWORKS = "jcs-single,jcs-joint,jcs-classifier,jcs-lite"
_result_options = stacked(
    json_option,
    click.option("--quiet", is_flag=True, help="Print the result only."),
    verbose_option,
    threads_option,
)


@click.group(cls=Group, invoke_without_command=True)
@click.option(
    "--networks",
    default=NETWORKS,
    show_default=True,
    metavar="A,B",
    help="Networks to measure, with deterministic weights; or weights, by name or file.",
)
@click.option("--runtimes", default="", metavar="A,B", help="Runtimes to measure (default: all that are installed).")
@click.option(
    "--sizes",
    default="",
    metavar="A,B",
    help="Input sizes: 512, 256x320 or 16x224x224 (batch first); default: as trained.",
)
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True, help="Number of turns that count.")
@click.option("--data", type=PATH, help="Folder of slices to compare results on (default: a phantom).")
@click.option("--slices", type=click.IntRange(1), default=4, show_default=True, help="Largest number of these slices.")
@click.option("-o", "--out", type=PATH, help="Folder for bench.json and bench.md.")
@overwrite_option
@_result_options
@click.pass_context
def bench(
    context: click.Context,
    networks: str,
    runtimes: str,
    sizes: str,
    repeats: int,
    data: Path | None,
    slices: int,
    out: Path | None,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure speed on this machine, against the plain published computation in the same run.

    Every network runs on every runtime at every size, in turn. The table shows seconds, the speed-up over the plain
    computation, the deviation from its results, memory and start-up time. The exit status is 2 when a runtime does not
    compute what the network computes. Nothing else should run on the machine.
    """
    if context.invoked_subcommand is not None:
        return
    from jcs_ct.core.whole_files import write_whole

    check_runtimes(filter(None, runtimes.split(",")), RUNTIMES[1:])
    files = [out / "bench.json", out / "bench.md"] if out is not None else []
    for file in files:
        if file.exists() and not overwrite:
            raise UsageError("exists already", path=file, hint="use --overwrite, or another -o")

    import torch

    from jcs_ct.bench import networks as speed
    from jcs_ct.bench import report as speed_report
    from jcs_ct.bench.worker import matrix_speed
    from jcs_ct.inference.runtimes import RUNTIMES as TABLE

    say = line_printer(quiet=quiet)
    chosen = runtimes.split(",") if runtimes else [name for name, runtime in TABLE.items() if not runtime.missing]
    asked = [size for size in sizes.split(",") if size]
    parsed = [speed_report.parse_size(size) for size in asked]
    pictures = speed_report.pictures(data, slices)
    compared = f"{len(pictures)} slices of {'the phantom' if data is None else data.name}"
    matrix = matrix_speed(torch.get_num_threads())
    rows: list[speed.Row] = []
    for network in filter(None, networks.split(",")):
        for size in parsed or [speed_report.default_size(network)]:
            make = lambda how, at: speed_report.inputs(pictures, how, at)  # noqa: E731
            rows += speed.measure(network, chosen, size, make, repeats, matrix, say)
    table = speed_report.to_markdown(rows, matrix, compared)
    result = json.dumps(speed_report.to_json(rows, matrix, compared), indent=2, ensure_ascii=False) + "\n"
    for file, text in zip(files, (result, table), strict=False):
        write_whole(file, text.encode(), overwrite=overwrite)
    click.echo(result if as_json else table, nl=False)
    if not all(row.steady for row in rows if row.seconds):
        say("note: some turns took unequally long, so something else was running: do not trust these ratios")
    failed = next((row for row in rows if row.parity is not None and not row.parity.ok), None)
    if failed is not None and failed.parity is not None:
        click.echo(
            f"jcs: error: runtime {failed.runtime} does not compute what {failed.network} computes: "
            f"{failed.parity.text()} (`--runtime auto` does not take it)",
            err=True,
        )
        context.exit(2)


@bench.command()
@click.argument("study", type=PATH, required=False)
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
@_result_options
def study(
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


@bench.command("train")
@click.option("--network", default="jcs-single", show_default=True, help="Segmentation network to train.")
@click.option("--size", type=click.IntRange(32), default=256, show_default=True, help="Side of its input, in pixels.")
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Slices in each step.")
@click.option("--steps", type=click.IntRange(1), default=5, show_default=True, help="Steps in each turn.")
@click.option(
    "--turns",
    "--repeats",
    "turns",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="Number of turns of each way that count.",
)
@_result_options
def train(network: str, size: int, batch: int, steps: int, turns: int, as_json: bool, quiet: bool) -> None:
    """Measure training with the release's recipe: `jcs train` against the plain published loop, in turn.

    It trains on a phantom made for the run. It needs the extra train, and a machine that does nothing else.
    """
    with needing("train"):
        from jcs_ct.bench.training import TOLERANCE, WAYS, measure
    import torch

    say = line_printer(quiet=quiet)
    found = measure(network, size, batch, steps, turns, say)
    rows = {
        way: {
            "seconds_per_step": statistics.median(found.seconds[way]),
            "fastest": min(found.seconds[way]),
            "slowest": max(found.seconds[way]),
            "slices_per_second": found.slices_per_second(way),
            "waiting_share": found.waiting[way],
            "peak_bytes": found.peak[way],
        }
        for way in WAYS
    }
    if not found.steady:
        say("note: the turns took unequally long, so something else was running: the ratio is not to be trusted")
    where = f"{platform.machine()}, {found.threads} threads, PyTorch {torch.__version__}"
    if as_json:
        facts = {"network": network, "size": size, "batch": batch, "where": where, "steps": steps, "turns": turns}
        parity = {"loss_difference": found.difference, "loss_tolerance": TOLERANCE}
        result = {**facts, "ways": rows, "ratio": found.ratio, "steady": found.steady, **parity}
        click.echo(json.dumps(result, indent=2))
        return
    click.echo(f"{network} at {size}×{size}, batch {batch}; {where}; {turns} turns of {steps} steps\n")
    click.echo("| way | slices/s | s/step (range) | waits for data | peak memory |")
    click.echo("| --- | ---: | ---: | ---: | ---: |")
    for way, row in rows.items():
        spread = f"{row['seconds_per_step']:.3f} ({row['fastest']:.3f}–{row['slowest']:.3f})"
        memory = f"{row['peak_bytes'] / 2**20:.0f} MiB"
        click.echo(f"| {way} | {row['slices_per_second']:.3f} | {spread} | {row['waiting_share']:.1%} | {memory} |")
    click.echo(
        f"\n{found.ratio:.2f} times faster; losses differ by {found.difference:.1e} (relative, {TOLERANCE:g} allowed)"
    )
