"""`jcs bench train`."""

from __future__ import annotations

import json
import platform
import statistics

import click

from jcs_ct.errors import UsageError


@click.group()
def bench() -> None:
    """Speed on this machine, against the plain published computation in the same run."""


@bench.command("train")
@click.option("--network", default="jcs-single", show_default=True, help="A segmentation network.")
@click.option("--size", type=click.IntRange(32), default=256, show_default=True, help="Side of its input.")
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Slices of a step.")
@click.option("--steps", type=click.IntRange(1), default=5, show_default=True, help="Steps of a turn.")
@click.option(
    "--turns",
    "--repeats",
    "turns",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="Turns of each way that count.",
)
@click.option("--json", "as_json", is_flag=True, help="The result as JSON.")
@click.option("--quiet", is_flag=True, help="The result only.")
@click.option("--verbose", is_flag=True, expose_value=False, help="Tracebacks.")
def train(network: str, size: int, batch: int, steps: int, turns: int, as_json: bool, quiet: bool) -> None:
    """Throughput of the release's training recipe: `jcs train` against the plain published loop, in turn.

    Trains on a phantom made on the spot. Needs the train extra, and no other work on the machine.
    """
    try:
        from jcs_ct.training.bench import TOLERANCE, WAYS, measure
    except ModuleNotFoundError as error:
        raise UsageError(f"{error.name} is not installed", hint="pip install 'jcs-ct[train]'") from error
    import torch

    def say(text: str) -> None:
        if not quiet:
            click.echo(f"jcs: {text}", err=True)

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
