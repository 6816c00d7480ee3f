"""The protocol of MONAI Label, by a client as its documentation has it: /info/, PUT /session/, POST /infer/MODEL."""

from __future__ import annotations

import gzip
import json
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import HTTP
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest
import requests

pytest.importorskip("fastapi")

from jcs_ct.service.access import add_token
from service_help import dicom, nifti, serving, zipped

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Client:
    """What 3D Slicer's module does: forms with fields beside the files, and an answer that is a form."""

    def __init__(self, url: str, password: str) -> None:
        self.url = url
        self.headers: dict[str, str] = {}
        if requests.get(f"{url}/auth/", timeout=60).json()["enabled"]:
            form = {"username": "slicer", "password": password, "grant_type": "password"}
            token = requests.post(f"{url}/auth/token", data=form, timeout=60).json()
            self.headers = {"Authorization": f"{token['token_type']} {token['access_token']}"}

    def ask(self, method: str, path: str, **options: Any) -> requests.Response:
        return requests.request(method, self.url + path, headers=self.headers, timeout=300, **options)

    def info(self) -> dict[str, Any]:
        return dict(self.ask("GET", "/info/").json())

    def session(self, name: str, data: bytes) -> str:
        answer = self.ask("PUT", "/session/", data={"client_id": "user-xyz"}, files=[("files", (name, data))])
        assert answer.status_code == 200, answer.text
        return str(answer.json()["session_id"])

    def infer(self, model: str, *, query: str = "", **files: Any) -> tuple[bytes, dict[str, Any]]:
        fields = {"params": (None, json.dumps({"client_id": "user-xyz", "device": "cuda"}))}
        answer = self.ask("POST", f"/infer/{model}?image={query}", files=fields | files)
        assert answer.status_code == 200, answer.text
        head = f"Content-Type: {answer.headers['Content-Type']}\r\n\r\n".encode()
        parts: Any = BytesParser(EmailMessage, policy=HTTP).parsebytes(head + answer.content).iter_parts()
        named = {part.get_param("name", header="content-disposition"): part for part in parts}
        assert named["image"].get_filename() == f"{model}.nii.gz"
        return named["image"].get_payload(decode=True), json.loads(named["params"].get_payload(decode=True))


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    path = tmp_path_factory.mktemp("tokens") / "tokens"
    return path, {"slicer": add_token(path, "slicer", ("submit", "read")), "admin": add_token(path, "a", ("admin",))}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, tokens: tuple[Path, dict[str, str]]) -> Iterator[str]:
    options = ("--tokens", str(tokens[0]), "--lease", "60")
    with serving(tmp_path_factory.mktemp("service"), *options, workers=1) as server:
        yield server.url


@pytest.fixture(scope="module")
def client(url: str, tokens: tuple[Path, dict[str, str]]) -> Client:
    return Client(url, tokens[1]["slicer"])


def array(data: bytes) -> Any:
    image: Any = nib.Nifti1Image.from_bytes(gzip.decompress(data))
    return np.asarray(image.dataobj), image.affine


def test_what_can_be_asked_for(client: Client) -> None:
    info = client.info()
    assert info["name"] == "jcs-ct"
    assert set(info["models"]) == {"lesions", "lungs"}
    for model in info["models"].values():
        assert (model["type"], model["dimension"]) == ("segmentation", 3)
        assert set(model["labels"]) <= set(info["labels"])
    for key in ("trainers", "strategies", "scoring", "train_stats", "datastore"):
        assert isinstance(info[key], dict)


def test_a_session_and_its_masks(client: Client) -> None:
    sent = nifti(41)
    session = client.session("Doe^Jane.nii", sent)
    lesions, told = client.infer("lesions", query=f"x&session_id={session}")  # waits for it
    mask, affine = array(lesions)
    image: Any = nib.Nifti1Image.from_bytes(sent)
    assert mask.shape == image.shape
    np.testing.assert_array_equal(affine, image.affine)
    assert set(np.unique(mask)) <= {0, 1}
    assert told["label_names"] == {"lesion": 1}
    assert told["verdict"]["text"]
    lungs, _ = client.infer("lungs", query=session)  # a session is an image of the datastore, too
    assert set(np.unique(array(lungs)[0])) == {0, 1, 2}
    assert client.ask("GET", f"/session/{session}").json()["meta"]["state"] == "done"
    url = f"/infer/lesions?session_id={session}&output="
    assert client.ask("POST", url + "image", data={"params": "{}"}).content == lesions
    assert client.ask("POST", url + "json").json() == told
    no_seg = client.ask("POST", url + "dicom_seg")
    assert (no_seg.status_code, no_seg.json()["error"]) == (409, "has no seg.dcm")


def test_a_file_with_the_question(client: Client, tmp_path: Path, tokens: tuple[Path, dict[str, str]]) -> None:
    data = zipped({path.name: path.read_bytes() for path in dicom(tmp_path, seed=42)})
    lungs, _ = client.infer("lungs", file=("study.zip", data))
    assert np.count_nonzero(array(lungs)[0]) > 1000
    session = client.session("study.zip", data)  # the same study
    seg = client.ask("POST", f"/infer/lesions?session_id={session}&output=dicom_seg")
    assert seg.content[128:132] == b"DICM"
    assert client.ask("DELETE", f"/session/{session}").status_code == 403
    admin = Client(client.url, tokens[1]["admin"])
    assert admin.ask("DELETE", f"/session/{session}").status_code == 200
    assert admin.ask("GET", f"/session/{session}").status_code == 404
    assert client.ask("POST", f"/infer/lesions?session_id={session}").status_code == 404


def test_what_cannot_be_segmented_is_named(client: Client) -> None:
    session = client.session("a.nii.gz", b"nonsense")
    failed = client.ask("POST", f"/infer/lesions?session_id={session}")
    assert failed.status_code == 409
    assert failed.json()["error"].startswith("cannot be segmented: study: ")
    unknown = client.ask("POST", f"/infer/deepedit?session_id={session}")
    assert (unknown.status_code, "lesions, lungs" in unknown.json()["error"]) == (404, True)
    nothing = client.ask("POST", "/infer/lesions", files={"params": (None, "{}")})
    assert nothing.status_code == 400
    scribbles = client.ask("PUT", "/session/", files={"label": (None, "x"), "files": ("a", b"b")})
    assert scribbles.status_code == 400
    large = client.ask("POST", f"/infer/lesions?session_id={session}", data=bytes(2**21))
    assert large.status_code == 413


def test_a_wrong_password(url: str) -> None:
    assert requests.post(f"{url}/auth/token", data={"password": "wrong"}, timeout=60).status_code == 401
    for method, path in (("GET", "/info/"), ("PUT", "/session/"), ("POST", "/infer/lesions")):
        assert requests.request(method, url + path, timeout=60).status_code == 401
