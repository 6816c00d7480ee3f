"""The `jcs` command: parse, call, render, nothing else. `jcs --help` loads neither PyTorch nor NumPy."""

from __future__ import annotations

import json
import os
import platform
import signal
import sys
import traceback
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jcs_ct.cli.mistakes import advice
from jcs_ct.core.errors import JcsError, MemoryRanOutError, UsageError, unforeseen
from jcs_ct.core.installing import version_of
from jcs_ct.core.processors import usable_threads
from jcs_ct.core.version import __version__

if TYPE_CHECKING:
    from types import FrameType

# Command → ("module:object", one line for the list of commands); a module is imported when its command is called.
COMMANDS = {
    "diagnose": ("jcs_ct.cli.diagnose:diagnose", "Diagnose studies: report, lesions, attention and verdict."),
    "collect": ("jcs_ct.cli.collect:collect", "Merge the results of shares into one folder, and name what is missing."),
    "inspect": ("jcs_ct.cli.inspect:inspect", "List CT studies and series, and which would be read."),
    "segment": ("jcs_ct.cli.segment:segment", "Write the lesion map of every slice."),
    "classify": ("jcs_ct.cli.classify:classify", "Print the COVID-19 probability of every slice."),
    "explain": (
        "jcs_ct.cli.explain:explain",
        "Write attention maps of slices, for one model or several side by side.",
    ),
    "features": ("jcs_ct.cli.features:features", "Write stage-1 features in the COVID-CS format (.mat)."),
    "evaluate": ("jcs_ct.cli.evaluate:evaluate", "Score a model, or maps that exist already."),
    "train": ("jcs_ct.cli.train:train", "Train the networks on your own data."),
    "bench": ("jcs_ct.cli.bench:bench", "Measure speed on this machine."),
    "serve": ("jcs_ct.cli.serve:serve", "Serve studies over HTTP: a page, an API and workers."),
    "work": ("jcs_ct.cli.serve:work", "Start a worker for a running `jcs serve`."),
    "watch": ("jcs_ct.cli.watch:watch", "Diagnose what arrives in an Orthanc, and send SEG and SR back."),
    "node": ("jcs_ct.cli.node:node", "Receive studies over DICOM's network protocol."),
    "token": ("jcs_ct.cli.serve:token", "Create an access token for `jcs serve`."),
    "mercure": ("jcs_ct.cli.mercure:mercure", "Run as a module of mercure: the container's entry point."),
    "models": ("jcs_ct.cli.models:models", "List, show, import and download weights."),
    "data": ("jcs_ct.cli.data:data", "Check a data set for faults and leakage, or split it into folds."),
    "demo": ("jcs_ct.cli.demo:demo", "Diagnose two phantom chests, and check the networks."),
    "doctor": ("jcs_ct.cli.doctor:doctor", "Show what is installed, what is missing, and how to get it."),
    "completion": ("jcs_ct.cli.completion:completion", "Complete commands and options in your shell."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table, without importing one of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in self.list_commands(ctx)])


def _show_version(context: click.Context, _option: click.Parameter, asked: bool) -> None:
    """Print the versions of the package, its weights and the runtimes, without loading one, and end, if asked to."""
    if not asked or context.resilient_parsing:
        return
    from jcs_ct.weights.store import SHIPPED, find_stored

    stored = find_stored(SHIPPED)
    digest = stored.card.weights_sha256[:12] if stored and stored.card else "missing or damaged, see jcs doctor"
    names = ("torch", "openvino", "onnxruntime")
    runtimes = [f"{name} {version}" for name in names if (version := version_of(name))]
    click.echo(f"jcs {__version__} (Python {platform.python_version()})")
    click.echo(f"weights: {SHIPPED} {digest}")
    click.echo(f"runtimes: {', '.join(runtimes) or 'none'}")
    context.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version,
              help="Show the versions of jcs-ct, its weights and runtimes.")  # fmt: skip
def jcs() -> None:
    """COVID-19 on chest CT by joint classification and segmentation (JCS).

    This is a research tool, not a medical device. Do not use it to diagnose or treat anyone.

    Exit status: 0 when all is done; 1 when some case failed (each is named, the others are written); 2 when the
    arguments are wrong or the input cannot be used.
    """


def _listen_to_stops() -> None:
    """Have SIGTERM and SIGHUP end a command as Ctrl-C does, so that half-written files are removed on the way out.

    What was ignored when the command started (SIGHUP behind `nohup`) stays ignored.
    """

    def stop(_signal: int, _frame: FrameType | None) -> Any:
        raise KeyboardInterrupt

    for name in ("SIGTERM", "SIGHUP"):  # asked to stop; the terminal is gone (Windows knows no SIGHUP)
        if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) is not signal.SIG_IGN:
            signal.signal(getattr(signal, name), stop)


def _look_around() -> None:
    """Take away what libraries print about, or end for, when they load. Raises UsageError without a working folder."""
    try:
        Path.cwd()
    except FileNotFoundError as error:
        hint = "change into one that is there"
        raise UsageError("the folder that the command was started in is gone", hint=hint) from error
    except OSError:  # one that may not be looked at is none of our business
        pass
    if wrong := usable_threads(os.environ):
        click.echo(f"jcs: note: OMP_NUM_THREADS is {wrong}, no number of threads; it is not used", err=True)


def main(arguments: list[str] | None = None) -> None:
    """Run `jcs` and exit: the one place where an error becomes an exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    _listen_to_stops()
    for name in ("stdout", "stderr"):  # closed by whoever started the command: libraries would stumble over it
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115  # until the end
        if hasattr(getattr(sys, name), "reconfigure"):  # names of files may hold what its encoding cannot show
            getattr(sys, name).reconfigure(errors="backslashreplace")
    try:
        _look_around()
        status = jcs.main(args=words, prog_name="jcs", standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):
        click.echo("jcs: stopped; finished results are kept", err=True)
        status = 130
    except click.ClickException as error:
        error.show()
        if helps := advice(error):
            click.echo(helps, err=True)
        status = error.exit_code
    except Exception as error:  # noqa: BLE001  # a user sees one line; the traceback is there for whoever asks
        if "--verbose" in words:
            traceback.print_exc()
        line, status = _told(error)
        click.echo(f"jcs: error: {line}", err=True)
        if isinstance(error, JcsError) and "--json" in words:
            facts = {"message": error.message, "path": error.path, "hint": error.hint, "exit_status": status}
            with suppress(OSError):  # the error may be that nothing can be printed there
                click.echo(json.dumps({"error": facts}, indent=2, ensure_ascii=False))
    sys.exit(status if isinstance(status, int) else 0)


def _told(error: Exception) -> tuple[str, int]:
    """Return the line of an error, and the exit status."""
    known = error if isinstance(error, JcsError) else unforeseen(error)
    if isinstance(error, JcsError) or isinstance(known, MemoryRanOutError):
        return known.line(), known.exit_status
    if isinstance(error, ModuleNotFoundError):  # PyTorch comes first and on its own, so that it may not be there
        name = (error.name or str(error)).partition(".")[0]
        hint = "install jcs-ct again, and PyTorch before it: see docs/start.md"
        return f"the library {name} is not installed ({hint})", 2
    text = (str(error).splitlines() or [""])[0]
    return f"unexpected {type(error).__name__}: {text} (run it again with --verbose)", 1
