"""The files under deploy/: valid where a schema is at hand, and of commands and options that there are."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from jcs_ct.cli import jcs
from jcs_ct.hospital.mercure import Wishes

DEPLOY = Path(__file__).resolve().parent.parent / "deploy"


def parsed(words: list[str]) -> dict[str, Any]:
    """Return the options of a `jcs` command; fails where one does not exist."""
    assert words[0] == "jcs"
    command = jcs.get_command(click.Context(jcs), words[1])
    assert command is not None, words[1]
    return dict(command.make_context(words[1], list(words[2:])).params)


def job() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((DEPLOY / "kubernetes" / "job.yaml").read_text())
    return content


def test_the_kubernetes_job_is_valid() -> None:
    validate: Any = pytest.importorskip("kubernetes_validate", reason="needs kubernetes-validate")
    assert validate.validate(job(), "1.31", strict=True) == "1.31"
    broken = job()
    broken["spec"]["podFailurePolicy"]["rules"][1]["action"] = "FailShare"
    del broken["spec"]["template"]
    with pytest.raises(validate.ValidationError):
        validate.validate(broken, "1.31", strict=True)


def test_the_kubernetes_job_does_each_share_once() -> None:
    spec = job()["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    script = container["args"][0]
    shares = [parsed(_expanded(script, JOB_COMPLETION_INDEX=str(i)))["part"] for i in range(spec["completions"])]
    assert shares == [f"{i + 1}/{spec['completions']}" for i in range(spec["completions"])]
    assert spec["completionMode"] == "Indexed"
    rules = {rule["action"]: rule for rule in spec["podFailurePolicy"]["rules"]}
    assert rules["FailIndex"]["onExitCodes"]["values"] == [2]
    assert rules["FailIndex"]["onExitCodes"]["containerName"] == container["name"]
    assert spec["template"]["spec"]["restartPolicy"] == "Never"  # podFailurePolicy asks for it
    assert spec["maxFailedIndexes"] == spec["completions"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True


def _expanded(script: str, **environment: str) -> list[str]:
    """Let the shell expand a script, whose command is printed word by word."""
    told = script.replace("exec jcs", 'exec printf "%s\\n" jcs')
    done = subprocess.run(["/bin/sh", "-c", told], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "40", "SLURM_ARRAY_TASK_MIN": "1"}, "7/40"),
        ({"SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_TASK_COUNT": "8", "SLURM_ARRAY_TASK_MIN": "0"}, "1/8"),
        ({"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "1", "JCS_PARTS": "40", "JCS_PART": "7"}, "7/40"),
    ],
)
def test_the_slurm_script_starts_its_share(given: dict[str, str], expected: str, tmp_path: Path) -> None:
    program = tmp_path / "jcs"
    program.write_text('#!/bin/sh\nprintf "%s\\n" jcs "$@"\n')
    program.chmod(0o755)
    environment = given | {"JCS": str(program), "JCS_IN": "/a rchive", "JCS_OUT": "/results", "PATH": "/usr/bin:/bin"}
    script = DEPLOY / "slurm" / "array.sh"
    done = subprocess.run(["/bin/sh", script], env=environment, capture_output=True, text=True, check=True)
    options = parsed(done.stdout.splitlines())
    assert (options["part"], options["inputs"], options["resume"]) == (expected, ("/a rchive",), True)
    assert options["target"] == f"/results/part-{expected.partition('/')[0]}"
    bare = subprocess.run(
        ["/bin/sh", script], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False
    )
    assert "the archive" in bare.stderr


def test_the_xnat_command_is_consistent() -> None:
    command = json.loads((DEPLOY / "xnat" / "command.json").read_text())
    mounts = {mount["name"]: mount for mount in command["mounts"]}
    keys = {one["replacement-key"]: one for one in command["inputs"]}
    assert set(re.findall(r"#\w+#", command["command-line"])) == set(keys)
    for value in ("true-value", "false-value"):
        line = command["command-line"]
        for key, one in keys.items():
            line = line.replace(key, one[value])
        options = parsed(shlex.split(line))
        assert options["inputs"] == (mounts["in"]["path"],)
        (output,) = command["outputs"]
        assert options["target"] == f"{mounts[output['mount']]['path']}/{output['path']}"
    (wrapper,) = command["xnat"]
    assert {one["accepts-command-output"] for one in wrapper["output-handlers"]} == {output["name"]}
    assert {one["provides-files-for-command-mount"] for one in wrapper["derived-inputs"]} == {"in"}
    assert mounts["in"]["writable"] is False


def test_the_monai_manifest_is_of_an_image_of_its_own() -> None:
    manifest = json.loads((DEPLOY / "monai" / "app.json").read_text())
    options = parsed(json.loads(manifest["command"]))
    assert options["inputs"] == (manifest["input"]["path"],)
    assert options["target"].startswith(f"{manifest['output']['path']}/")
    assert json.loads((DEPLOY / "monai" / "pkg.json").read_text())["models"] == {}
    steps = [line for line in (DEPLOY / "Containerfile").read_text().splitlines() if not line.startswith("#")]
    assert not [line for line in steps if "monai" in line.casefold()]
    parsed(json.loads(steps[-1].removeprefix("CMD ")))


def test_the_mercure_module_has_settings_that_are_known() -> None:
    module = json.loads((DEPLOY / "mercure" / "module.json").read_text())
    assert set(module["settings"]) <= set(Wishes.__dataclass_fields__)
    assert json.loads(module["docker_arguments"])["read_only"] is True
