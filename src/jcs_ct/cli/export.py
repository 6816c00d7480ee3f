"""`jcs models export`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from jcs_ct.cli.common import threads_option

FORMATS = ("onnx", "openvino", "torchscript", "monai-bundle")  # of `jcs_ct.inference.exported`, which loads PyTorch


@click.command("export")
@click.argument("model", metavar="NAME|FILE")
@click.option("--format", "kind", type=click.Choice(FORMATS), required=True, help="Format to write.")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="File to write (a folder for monai-bundle); default: after the weights' name.",
)
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON on standard output.")
@click.option("--quiet", is_flag=True, help="Print problems only.")
@click.option("--verbose", is_flag=True, expose_value=False, help="Print tracebacks of errors.")
@threads_option
def export(model: str, kind: str, out: Path | None, overwrite: bool, as_json: bool, quiet: bool) -> None:
    """Write the weights NAME (or FILE) as a file for other programs, and check it.

    A manifest (.json) next to it states checksums, inputs, outputs, and the deviation from the original network at
    several sizes. An ONNX, OpenVINO or TorchScript file can serve as --model.
    """
    from jcs_ct.inference import open_network
    from jcs_ct.inference.export import export as write

    network = open_network(model, "cpu", runtime="torch")
    done = write(network, kind, out, overwrite=overwrite)
    if as_json:
        click.echo(json.dumps(json.loads(done.manifest_path.read_bytes()), indent=2, ensure_ascii=False))
    if not quiet:
        for check in done.manifest.parity:
            size = f"{check['batch']}×{check['rows']}×{check['columns']}"
            differences = ", ".join(f"{name} {value:.2g}" for name, value in check["differences"].items())
            click.echo(f"jcs: checked with {check['checked_with']} at {size}: {differences}", err=True)
        click.echo(f"jcs: {done.path} is written, its manifest is {done.manifest_path}", err=True)
