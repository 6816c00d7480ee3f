"""`jcs evaluate compare`: the scores of several models beside each other."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command()
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("others", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="The result as JSON.")
@click.option("--verbose", is_flag=True, expose_value=False, help="Tracebacks.")
def compare(first: Path, others: tuple[Path, ...], as_json: bool) -> None:
    """Print scores of several models beside each other: FIRST and OTHERS are folders that `jcs evaluate` has written.

    Refused where they are of other slices, masks, labels or patients, or were made with other settings. For differences
    with intervals give `evaluate segment` and `evaluate classify` the other model's maps or table with --against.
    """
    from jcs_ct.evaluate.side_by_side import side_by_side, to_markdown

    found = side_by_side([first, *others])
    click.echo(json.dumps(found, indent=2, ensure_ascii=False) if as_json else to_markdown(found))
