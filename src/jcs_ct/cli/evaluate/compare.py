"""`jcs evaluate compare`: the scores of several models beside each other."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command()
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("others", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on standard output.")
@click.option("--verbose", is_flag=True, expose_value=False, help="Print tracebacks of errors.")
def compare(first: Path, others: tuple[Path, ...], as_json: bool) -> None:
    """Print the scores of several models side by side.

    FIRST and OTHERS are folders that `jcs evaluate` wrote. They are refused when slices, masks, labels, patients or
    settings differ. For differences with intervals, give `evaluate segment` or `evaluate classify` the other model's
    maps or table with --against.
    """
    from jcs_ct.evaluate.side_by_side import side_by_side, to_markdown

    found = side_by_side([first, *others])
    click.echo(json.dumps(found, indent=2, ensure_ascii=False) if as_json else to_markdown(found))
