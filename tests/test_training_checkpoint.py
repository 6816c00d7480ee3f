"""A checkpoint or a configuration that was damaged or exchanged: one line, and nothing is made of it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
import pytest
import torch

from jcs_ct.core.errors import JcsError, UsageError
from jcs_ct.training.config import TrainConfig, read_config
from jcs_ct.training.fingerprint import Fingerprint
from jcs_ct.training.lite.config import LiteConfig
from jcs_ct.training.records import check_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable

MODULE = torch.nn.Linear(400, 3)
MINE = Fingerprint((), {}, {})


def held() -> dict[str, Any]:
    callbacks = {"Callback": {"digest": MINE.digest, "rows": []}}
    return {"state_dict": MODULE.state_dict(), "optimizer_states": [], "loops": {}, "callbacks": callbacks}


def said(path: Path) -> str:
    try:
        check_checkpoint(path, MODULE, L.Callback(), MINE)
    except JcsError as error:
        return error.message if error.exit_status == 2 else repr(error)
    return ""


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    at = data.index(MODULE.weight.detach().numpy().tobytes())
    data[at + 1000] ^= 1
    path.write_bytes(data)


def saved(**other: Any) -> Callable[[Path], None]:
    return lambda path: torch.save(held() | other, path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _path: None, ""),
        (flipped, "is damaged: a checksum in it is wrong"),
        (lambda path: path.write_bytes(path.read_bytes()[:-200]), "is damaged, or no checkpoint"),
        (lambda path: path.write_bytes(b""), "is damaged, or no checkpoint"),
        (lambda path: torch.save({"a": Path("x")}, path), "is damaged, or no checkpoint"),  # needs code to be read
        (lambda path: torch.save([1], path), "is no checkpoint of such a run"),
        (lambda path: torch.save({"state_dict": {}}, path), "is no checkpoint of such a run"),
        (saved(callbacks={"Journal": {"digest": MINE.digest}}), "is no checkpoint of such a run"),
        (
            saved(callbacks={"Callback": {"digest": "other"}}),
            "is a checkpoint of another run than fingerprint.json beside it",
        ),
        (saved(state_dict=torch.nn.Linear(400, 4).state_dict()), "is a checkpoint of another network"),
    ],
)
def test_checkpoints_are_looked_at_first(change: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    torch.save(held(), path)
    change(path)
    assert said(path) == message


SEGMENT, LITE = TrainConfig("segment", "data"), LiteConfig(("data",))


@pytest.mark.parametrize(("config", "read"), [(SEGMENT, TrainConfig.from_json), (LITE, LiteConfig.from_json)])
def test_configurations_are_read_or_named(config: Any, read: Callable[[str], Any], tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(config.to_json())
    assert read_config(tmp_path, read) == config
    values = asdict(config)
    for content, message in {
        b"[]": "the configuration is not a JSON object",
        b'{"a"': "the configuration is not a JSON object",
        b"\xff\xfe": "the configuration is not a JSON object",
        b"[" * 100_000: "the configuration is not a JSON object",
        json.dumps(values | {"lr": "fast"}).encode(): "the configuration has a lr of another type: 'fast'",
        json.dumps(values | {"seed": 1.5}).encode(): "the configuration has a seed of another type: 1.5",
        json.dumps(values | {"fold": True}).encode(): "the configuration has a fold of another type: True",
        json.dumps(values | {"freeze": [1]}).encode(): "the configuration has a freeze of another type: (1,)",
    }.items():
        path.write_bytes(content)
        with pytest.raises(UsageError) as caught:
            read_config(tmp_path, read)
        assert (caught.value.message, caught.value.path, bool(caught.value.hint)) == (message, str(path), True)


def test_a_fingerprint_without_end_is_none() -> None:
    with pytest.raises(ValueError, match="no such layout"):
        Fingerprint.from_json("[" * 100_000)
