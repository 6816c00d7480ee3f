"""A module of mercure: images of a series or a study in one folder, SEG, SR and `result.json` into another.

mercure names the folders by `MERCURE_IN_DIR` and `MERCURE_OUT_DIR`, and starts the program under the uid of its own.
Images are called `SERIES#SOP.dcm`; `task.json` beside them holds the settings of the rule. What it is to send on are
`*.dcm` directly in the output folder; `result.json` is kept with the task, and its `__mercure_notification` mailed.
Nothing is written to any other place but the folder for temporary files.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jcs_ct.app.batch import CaseOutcome, diagnose_cases
from jcs_ct.app.gather import gather
from jcs_ct.app.identity import with_stable_names
from jcs_ct.core.errors import InputError, NoLungsError, OutputError, UsageError
from jcs_ct.core.version import __version__
from jcs_ct.core.whole_files import write_whole
from jcs_ct.inference import open_network
from jcs_ct.io.dicom.read import read_headers
from jcs_ct.io.files.kinds import Kind
from jcs_ct.io.files.sources import Source
from jcs_ct.models import RESULTS
from jcs_ct.study.settings import RULE_NAMES, Networks, Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

TASK, RESULT = "task.json", "result.json"
NO_CHEST, DONE, FAILED = "no chest", "done", "failed"


@dataclass(frozen=True)
class Wishes:
    """The settings of a rule.

    Attributes:
        model: Name or file of the weights; None: those that come along.
        rule, segment: As of `jcs diagnose`.
        series: The series to take.
        allow_gaps, drop_odd: As of `jcs diagnose`.
        notify: When mercure is asked to notify: "positive", "always" or "never".
        unknown: Names of settings that are not of this program.
    """

    model: str | None = None
    rule: str = RULE_NAMES[0]
    segment: str | None = None
    series: str | None = None
    allow_gaps: bool = False
    drop_odd: bool = False
    notify: str = "positive"
    unknown: tuple[str, ...] = ()


ALLOWED: dict[str, tuple[Any, ...]] = {
    "rule": RULE_NAMES,
    "segment": (None, "always", "positive", "never"),
    "allow_gaps": (True, False),
    "drop_odd": (True, False),
    "notify": ("positive", "always", "never"),
}


def run(environment: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
    """Do what mercure asks for; `environment` holds `MERCURE_IN_DIR` and `MERCURE_OUT_DIR`.

    Returns:
        The exit status, and what `result.json` holds: 0 also where there is no chest, since that is an answer; 1 where
        some study failed, 2 where nothing could be used.

    Raises:
        UsageError: A folder is not named or not there; settings that cannot be used.
        OutputError: The output folder cannot be written.
    """
    given, out = (_folder(environment, name) for name in ("MERCURE_IN_DIR", "MERCURE_OUT_DIR"))
    wishes = read_wishes(given / TASK)
    with tempfile.TemporaryDirectory(prefix="jcs-mercure-") as folder:
        result = _diagnose(given, out, wishes, Path(folder))
    text = json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_whole(out / RESULT, text.encode("utf-8", "backslashreplace"), overwrite=True)
    if not result["failed"]:
        return 0, result
    return (1 if result["studies"] or result["no_chest"] else 2), result


def read_wishes(path: Path) -> Wishes:
    """Return the settings in a `task.json`; the usual ones where there is none. Raises UsageError."""
    try:
        task = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Wishes()
    except (OSError, ValueError) as error:
        raise UsageError(f"is not JSON: {error}", path=path, hint="check what wrote it") from error
    given = _settings(task.get("process") if isinstance(task, dict) else None)
    known = {name: value for name, value in given.items() if name in Wishes.__dataclass_fields__ and name != "unknown"}
    for name, allowed in ALLOWED.items():
        if name in known and known[name] not in allowed:
            expected = ", ".join(str(value) for value in allowed if value is not None)
            raise UsageError(f"its setting {name} is {known[name]!r}; one of {expected} is expected", path=path)
    for name in ("model", "series"):
        if name in known:
            known[name] = None if known[name] is None else str(known[name])
    return Wishes(**known, unknown=tuple(sorted(given.keys() - known.keys())))


def _settings(process: Any) -> dict[str, Any]:
    """Return the settings of a task: an object or a list of objects, of one module or of each in a chain of modules.

    Of a chain, the steps of this program count: those whose module or image is called after it, else all.
    """
    steps = [step for step in (process if isinstance(process, list) else [process]) if isinstance(step, dict)]
    own = [step for step in steps if "jcs" in _called(step).casefold()]
    merged: dict[str, Any] = {}
    for step in own or steps:
        settings = step.get("settings")
        for one in settings if isinstance(settings, list) else [settings]:
            merged |= one if isinstance(one, dict) else {}
    return merged


def _called(step: dict[str, Any]) -> str:
    config = step.get("module_config")
    image = config.get("docker_tag") if isinstance(config, dict) else ""
    return f"{step.get('module_name') or ''} {image or ''}"


def _folder(environment: Mapping[str, str], name: str) -> Path:
    folder = environment.get(name)
    if not folder:
        raise UsageError(f"{name} is not set", hint="mercure sets it; by hand: a folder")
    if not Path(folder).is_dir():
        raise UsageError(f"{name} is not a folder", path=folder)
    return Path(folder)


def _diagnose(given: Path, out: Path, wishes: Wishes, folder: Path) -> dict[str, Any]:
    reading: Any = {"series": wishes.series, "allow_gaps": wishes.allow_gaps, "drop_odd": wishes.drop_odd}
    found = gather([str(path) for path in sorted(given.iterdir()) if path.name != TASK], **reading)
    notes = [*found.notes, *(f"the setting {name} is not known here" for name in wishes.unknown)]
    failed = [problem.line() for problem in found.problems]
    studies: list[dict[str, Any]] = []
    no_chest: list[str] = []
    if found.cases:
        networks = Networks.of([open_network(wishes.model, "auto", RESULTS, "auto")])
        networks.expect(sum(map(len, found.cases)))  # the runtime that `jcs diagnose` would take
        chosen: Any = wishes.segment or networks.usual_segment
        settings = Settings(wishes.rule, chosen, frames=False)
        cases = with_stable_names(found.cases, folder)
        for ended in diagnose_cases(cases, networks, settings, folder, reading=reading):
            if isinstance(ended.error, NoLungsError):
                no_chest.append(ended.error.line())
            elif ended.error is not None:
                failed.append(ended.error.line())
            else:
                studies.append(_study(ended, folder / ended.name, out))
    elif not failed:
        failed = [InputError("no study to work on", path=given).line()]
    status = FAILED if failed else DONE if studies else NO_CHEST
    result: dict[str, Any] = {"program": "jcs-ct", "version": __version__, "research_only": True, "status": status}
    result |= {"studies": studies, "no_chest": no_chest, "failed": failed, "notes": notes}
    return result | {"__mercure_notification": _notification(result, wishes)}


def _study(ended: CaseOutcome, folder: Path, out: Path) -> dict[str, Any]:
    """Give the objects of a study to mercure, and return what `result.json` says of it."""
    assert ended.report is not None  # noqa: S101  # it did not fail
    report, files = ended.report, []
    for name in ("dicom_seg", "dicom_sr"):
        if name in report["files"]:
            path = folder / report["files"][name]
            header = read_headers(Source(path.stem, str(path), path, None, Kind.DICOM))[0]
            target = out / f"{header.series}#{header.sop}.dcm"
            try:
                shutil.copyfile(path, target)
            except OSError as error:
                raise OutputError(f"cannot be written: {error.strerror}", path=target) from error
            files.append(target.name)
    kept = {name: report[name] for name in ("verdict", "burden", "warnings")}
    return {"case": ended.name, "files": files, **kept}


def _notification(result: dict[str, Any], wishes: Wishes) -> dict[str, Any]:
    """Return what mercure mails, and whether it is asked to."""
    verdicts = [study["verdict"] for study in result["studies"]]
    lines = [verdict["text"] for verdict in verdicts] + result["no_chest"] + result["failed"]
    positive = any(verdict["positive"] for verdict in verdicts)
    requested = wishes.notify == "always" or (wishes.notify == "positive" and (positive or bool(result["failed"])))
    text = "Research only, not a medical device. " + "; ".join(lines)
    return {"text": text, "requested": requested}
