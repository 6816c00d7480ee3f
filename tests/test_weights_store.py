"""The store: what is written comes back, what was changed is refused, and nothing is half there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

import jcs_ct
from jcs_ct.core.errors import JcsError, OutputError, UsageError, WeightsError
from jcs_ct.weights import WeightsCard, create_model, import_file, list_stored, load, loading, store, write
from jcs_ct.weights.catalogue import CATALOGUE, entry_of_file, find_entry
from weights_help import add_tiny, tiny_state


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    add_tiny(monkeypatch)
    monkeypatch.setenv("JCS_HOME", str(tmp_path / "home"))
    # The store alone, without what the package ships.
    monkeypatch.setattr("jcs_ct.weights.store.shipped", lambda: tmp_path / "none.safetensors")
    return tmp_path / "home"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "My tiny (1).pth"
    torch.save({"state_dict": tiny_state(), "epoch": 3}, path)
    return path


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def refusal(error: type[JcsError], call: Any, *args: Any, **options: Any) -> str:
    with pytest.raises(error) as caught:
        call(*args, **options)
    line = caught.value.line()
    assert "\n" not in line
    return line


# Import and load


def test_what_is_imported_comes_back(checkpoint: Path, home: Path) -> None:
    card = import_file(checkpoint, licence="CC0")
    assert files(home) == ["My-tiny-1.json", "My-tiny-1.safetensors"]
    tensors, again = load("My-tiny-1")
    assert again == card
    assert all(torch.equal(tensors[name], value) for name, value in tiny_state().items())
    assert card.architecture == "tiny"
    assert (card.source_file, card.licence, card.threshold) == ("My tiny (1).pth", "CC0", 0.5)
    assert card.classes == ("lesion",)
    assert card.recipe == "release-segmentation"
    assert card.source_sha256 == store.sha256_of(checkpoint)
    assert card.weights_sha256 == store.sha256_of(home / "weights" / "My-tiny-1.safetensors")
    assert "ignored beside 'state_dict': epoch" in card.notes
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", card.imported_at)


def test_a_backbone_has_no_threshold_and_gets_its_epsilon(monkeypatch: pytest.MonkeyPatch, checkpoint: Path) -> None:
    add_tiny(monkeypatch, task="backbone")
    card = import_file(checkpoint, name="b")
    assert (card.threshold, card.classes, card.bn_eps_folded) == (None, (), 1e-5)
    torch.testing.assert_close(load("b")[0]["bn.running_var"], tiny_state()["bn.running_var"] + 1e-5, rtol=0, atol=0)
    assert import_file(checkpoint, name="c", bn_eps=0).bn_eps_folded == 0


def test_foreign_files_are_loaded_as_they_are(checkpoint: Path, home: Path) -> None:
    tensors, card = load(checkpoint)
    assert card.weights_sha256 == card.source_sha256
    assert not home.exists()
    checkpoint.unlink()
    assert torch.equal(tensors["conv.weight"], tiny_state()["conv.weight"])


def test_foreign_safetensors_need_no_card_and_ignore_other_json(tmp_path: Path) -> None:
    save_file(tiny_state(), tmp_path / "model.safetensors")
    (tmp_path / "model.json").write_text('{"architectures": ["x"]}')
    assert load(tmp_path / "model.safetensors")[1].source_kind == "checkpoint with the official names (safetensors)"


def test_our_own_files_are_imported_with_their_card(checkpoint: Path, tmp_path: Path) -> None:
    first = import_file(checkpoint, name="first", bn_eps=1e-3)
    for suffix in (".safetensors", ".json"):
        shutil.copy(store.weights_folder() / f"first{suffix}", tmp_path / f"best{suffix}")
    second = import_file(tmp_path / "best.safetensors", name="second")
    assert second == replace(first, name="second")
    assert torch.equal(load("second")[0]["bn.running_var"], load("first")[0]["bn.running_var"])  # folded once
    assert "imported before" in refusal(UsageError, import_file, tmp_path / "best.safetensors", name="x", bn_eps=0)
    line = refusal(WeightsError, import_file, tmp_path / "best.safetensors", name="x", architecture="jcs-single")
    assert "this is tiny, not jcs-single" in line


def test_nothing_is_written_when_an_import_fails(tmp_path: Path, home: Path) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "x.pth")
    refusal(WeightsError, import_file, tmp_path / "x.pth")
    torch.save({**tiny_state(), "conv.bias": torch.full((4,), float("nan"))}, tmp_path / "x.pth")
    refusal(WeightsError, import_file, tmp_path / "x.pth")
    assert not home.exists()


def test_weights_are_not_overwritten_unless_asked(checkpoint: Path, tmp_path: Path, home: Path) -> None:
    card = import_file(checkpoint, name="a")
    assert "--overwrite" in refusal(OutputError, import_file, checkpoint, name="a")
    torch.save(tiny_state(1), tmp_path / "a.pth")
    assert "--overwrite" in refusal(OutputError, import_file, tmp_path / "a.pth")
    assert load("a")[1] == card
    newer = import_file(tmp_path / "a.pth", overwrite=True)
    assert newer.weights_sha256 != card.weights_sha256
    assert load("a")[1] == newer
    assert files(home) == ["a.json", "a.safetensors"]


def test_tensors_left_by_a_crash_do_not_block_an_import(checkpoint: Path) -> None:
    import_file(checkpoint, name="a")
    (store.weights_folder() / "a.json").unlink()
    import_file(checkpoint, name="a")
    load("a")


@pytest.mark.parametrize("broken", ["tensors", "card"])
def test_both_files_are_written_or_neither(
    checkpoint: Path, home: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    real = Path.replace

    def refuse(self: Path, target: Path) -> Path:
        if (target.suffix == ".json") == (broken == "card"):
            raise OSError(28, "No space left on device")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", refuse)
    assert "No space left" in refusal(OutputError, import_file, checkpoint, name="a")
    assert files(home) == []


def test_a_failing_safetensors_library_is_an_output_error(
    checkpoint: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise SafetensorError("I/O error")

    monkeypatch.setattr(loading, "save_file", fail)
    assert "cannot be written" in refusal(OutputError, import_file, checkpoint, name="a")
    assert files(home) == []


def test_write_refuses_tensors_of_another_network(checkpoint: Path, tmp_path: Path) -> None:
    card = import_file(checkpoint, name="a")
    refusal(WeightsError, write, tmp_path / "b.safetensors", {"x": torch.ones(1)}, card)
    refusal(UsageError, write, tmp_path / "b.safetensors", tiny_state(), replace(card, architecture="unet"))
    written = write(tmp_path / "b.safetensors", tiny_state(), card)
    assert load(tmp_path / "b.safetensors")[1] == written
    assert "exists already" in refusal(OutputError, write, tmp_path / "b.safetensors", tiny_state(), card)


# Changed files


def test_edited_tensors_are_refused(checkpoint: Path) -> None:
    import_file(checkpoint, name="a")
    path = store.weights_folder() / "a.safetensors"
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    assert "does not match its card" in refusal(WeightsError, load, "a")
    save_file({k: v.clone() for k, v in load_file(path).items()}, path)  # another library drops our header
    assert "does not match its card" in refusal(WeightsError, load, "a")


def test_weights_that_lost_their_card_are_refused(checkpoint: Path) -> None:
    import_file(checkpoint, name="a")
    (store.weights_folder() / "a.json").unlink()
    assert "has lost its card" in refusal(WeightsError, load, "a")
    assert "No such file" in (list_stored()[0].problem or "")


def test_a_card_that_names_another_network_is_refused(checkpoint: Path) -> None:
    import_file(checkpoint, name="a")
    path = store.weights_folder() / "a.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"architecture": "vgg16-bn"}))
    assert "does not fit vgg16-bn" in refusal(WeightsError, load, "a")
    path.write_text(json.dumps(values | {"architecture": "unet"}))
    assert "unet" in refusal(UsageError, load, "a")


# The card


def card_of(checkpoint: Path) -> dict[str, Any]:
    return import_file(checkpoint, name="a").to_dict()


def test_a_card_survives_its_file(checkpoint: Path) -> None:
    card = import_file(checkpoint, name="a", licence="© ü")
    assert WeightsCard.from_json(card.to_json()) == card
    assert next(iter(json.loads(card.to_json()))) == "schema_version"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema_version": 2}, "card version 2"),
        ({"schema_version": True}, "card version True"),
        ({"colour": "red"}, "unknown fields: colour"),
        ({"threshold": "0.5"}, "'threshold'"),
        ({"threshold": 1.5}, "'threshold'"),
        ({"threshold": float("nan")}, "'threshold'"),
        ({"threshold": True}, "'threshold'"),
        ({"bn_eps_folded": None}, "'bn_eps_folded'"),
        ({"classes": "lesion"}, "'classes'"),
        ({"notes": [1]}, "'notes'"),
        ({"weights_sha256": "12"}, "'weights_sha256'"),
        ({"source_sha256": "z" * 64}, "'source_sha256'"),
        ({"name": None}, "'name'"),
        ({"source_url": 3}, "'source_url'"),
    ],
)
def test_wrong_cards_are_refused(checkpoint: Path, change: dict[str, Any], words: str) -> None:
    text = json.dumps(card_of(checkpoint) | change)
    assert words in refusal(WeightsError, WeightsCard.from_json, text, path="a.json")


def test_incomplete_and_foreign_cards_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    values = card_of(checkpoint)
    del values["recipe"]
    assert "lacks recipe" in refusal(WeightsError, WeightsCard.from_json, json.dumps(values))
    assert "not valid JSON" in refusal(WeightsError, WeightsCard.from_json, b"\xff{")
    assert "not valid JSON" in refusal(WeightsError, WeightsCard.from_json, "[" * 200_000)
    assert "holds no card" in refusal(WeightsError, WeightsCard.from_json, "[]")
    assert "card version None" in refusal(WeightsError, WeightsCard.from_json, "{}")
    (tmp_path / "big.json").write_bytes(bytes(2 << 20))
    assert "larger than" in refusal(WeightsError, WeightsCard.read, tmp_path / "big.json")
    assert "cannot be read" in refusal(WeightsError, WeightsCard.read, tmp_path / "none.json")


# Names and places


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "a/b",
        "a\\b",
        "",
        ".hidden",
        "-x",
        "a.pth",
        "x.safetensors",
        "x.JSON",
        "con",
        "NUL.x",
        "a.",
        "a b",
        "é",
        "x" * 65,
        "a\n",
    ],
)
def test_names_that_are_no_names_are_refused(checkpoint: Path, home: Path, name: str) -> None:
    assert "cannot be called" in refusal(UsageError, import_file, checkpoint, name=name)
    assert not home.exists()


@pytest.mark.parametrize(
    ("filename", "name"),
    [
        ("joint.pth", "joint"),
        ("best.pth.tar", "best"),
        ("..pth", "imported"),
        ("ü ß.pth", "imported"),
        ("nul.pth", "imported"),
        ("a.json.pth", "imported"),
        ("res2net (copy).pt", "res2net-copy"),
        ("x" * 99 + ".pth", "x" * 64),
    ],
)
def test_names_are_made_from_files(filename: str, name: str) -> None:
    assert store.name_from_file(Path("folder") / filename) == name
    assert store.check_name(name) == name


def test_a_stored_name_goes_before_a_file(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint.rename(tmp_path / "tiny1")
    assert store.locate("tiny1") == Path("tiny1")
    import_file(tmp_path / "tiny1", name="tiny1")
    assert store.locate("tiny1") == store.weights_folder() / "tiny1.safetensors"
    assert store.locate(Path("tiny1")) == Path("tiny1")
    assert store.locate("~/x.pth") == Path.home() / "x.pth"


def test_unknown_names_say_what_to_do(checkpoint: Path) -> None:
    import_file(checkpoint, name="mine")
    assert "on this machine: mine; known: jcs-single" in refusal(WeightsError, load, "jsc-joint")
    assert "run: jcs models download vgg16-bn-imagenet" in refusal(WeightsError, load, "vgg16-bn-imagenet")
    line = refusal(WeightsError, load, "jcs-joint")
    assert "https://github.com/yuhuan-wu/JCS" in line
    assert "jcs models download jcs-joint --from FILE" in line
    assert "does not exist" in refusal(WeightsError, load, "../nothing.pth")


def test_the_home_is_the_cache_folder_unless_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JCS_HOME", "~/elsewhere")
    assert store.home() == Path.home() / "elsewhere"
    monkeypatch.setenv("JCS_HOME", "")
    assert store.home().name == "jcs-ct"
    monkeypatch.delenv("JCS_HOME")
    assert store.home().name == "jcs-ct"


def test_the_list_reports_damage_in_its_place(checkpoint: Path) -> None:
    assert list_stored() == []
    import_file(checkpoint, name="b")
    import_file(checkpoint, name="a")
    (store.weights_folder() / "a.json").write_text("{")
    (store.weights_folder() / ".b.safetensors.part.safetensors").write_text("unfinished")
    first, second = list_stored()
    assert (first.name, first.card) == ("a", None)
    assert "not valid JSON" in (first.problem or "")
    assert second.card is not None
    assert second.size == second.path.stat().st_size
    assert store.find_stored("b") == second
    assert store.find_stored("c") is None


def test_files_that_cannot_be_read_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "No such file" in refusal(WeightsError, store.sha256_of, tmp_path / "x")

    def denied(self: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_file", denied)
    assert not loading._is_card(tmp_path / "x.json")


# The catalogue


def test_the_catalogue_keeps_its_promises() -> None:
    from jcs_ct.models import MODELS

    assert list(CATALOGUE) == [entry.name for entry in CATALOGUE.values()]
    for entry in CATALOGUE.values():
        assert store.check_name(entry.name) == entry.name
        assert entry.architecture in MODELS
        assert entry.licence
        assert entry.citation
        assert "--from FILE" in entry.by_hand()
        if entry.url:
            assert entry.url.startswith("https://")
            assert len(entry.files[0].sha256) == 64
            assert entry.size
        for known in entry.files:
            assert re.fullmatch(r"([0-9a-f]{8}|[0-9a-f]{64})?", known.sha256)
            assert "/" not in known.filename


def test_files_of_the_catalogue_are_recognised() -> None:
    assert entry_of_file("whatever.pth", "6c64b313" + "0" * 56) is CATALOGUE["vgg16-bn-imagenet"]
    assert entry_of_file("res2net_cls.pth", "0" * 64) is CATALOGUE["jcs-classifier"]
    assert entry_of_file("vgg16_bn-6c64b313.pth", "0" * 64) is None  # called so, but its checksum says otherwise
    assert entry_of_file("nothing.pth", "0" * 64) is None  # nothing is known of some files but their names
    with pytest.raises(UsageError, match="jcs-joint"):
        find_entry("nothing")


def test_a_recognised_file_gets_the_name_and_licence_of_its_entry(tmp_path: Path) -> None:
    torch.save(tiny_state(), tmp_path / "res2net_segloss.pth")
    card = import_file(tmp_path / "res2net_segloss.pth")
    assert card.name == "jcs-classifier-segloss"
    assert "none stated" in card.licence


# create_model


def test_create_model_fills_the_network(checkpoint: Path) -> None:
    model = jcs_ct.create_model("tiny", weights=checkpoint)
    assert not model.training
    assert all(torch.equal(value, tiny_state()[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())
    import_file(checkpoint, name="mine")
    assert torch.equal(create_model("tiny", "mine").state_dict()["conv.bias"], tiny_state()["conv.bias"])


def test_create_model_refuses_weights_of_another_network(checkpoint: Path) -> None:
    assert "this is tiny, not jcs-joint" in refusal(WeightsError, create_model, "jcs-joint", weights=checkpoint)
    assert "known: jcs-single" in refusal(UsageError, create_model, "unet", weights=checkpoint)
    assert not create_model("tiny", weights=None).training
    assert "inputs" in refusal(UsageError, create_model, "tiny", weights=None, inputs="text")
    assert "weights is neither a name nor a file" in refusal(UsageError, create_model, "tiny", weights=3)


@pytest.mark.parametrize("name", ["tiny", "jcs-single", "jcs-joint", "jcs-classifier"])
def test_a_network_without_weights_is_asked_for(name: str) -> None:
    text = refusal(UsageError, create_model, name)
    assert f"no weights come with {name}, and none were named" in text
    assert "weights=None" in text


def test_the_package_lists_without_pytorch_and_has_no_other_names() -> None:
    code = "import sys, jcs_ct.weights as w; w.list_stored(); w.CATALOGUE; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    import jcs_ct.weights

    with pytest.raises(AttributeError, match="nothing"):
        _ = jcs_ct.weights.nothing
