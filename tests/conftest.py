"""What several test modules share."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import nn

    from jcs_ct.inference.native.build import Library

ROOT = Path(__file__).resolve().parent.parent
OFFICIAL = {
    "jcs-single": "jcs_single",
    "jcs-joint": "jcs_joint",
    "jcs-classifier": "res2net101_v1b_classifier",
}


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say at the end what was not tested here, and why, in one line for each reason."""
    reasons = Counter(_reason(report) for report in terminalreporter.stats.get("skipped", []))
    if reasons:
        terminalreporter.section(f"not tested here: {sum(reasons.values())} tests")
        for reason, count in reasons.most_common():
            terminalreporter.write_line(f"{count:5d}  {reason}")


def _reason(report: Any) -> str:
    where = report.longrepr
    return str(where[2]).removeprefix("Skipped: ") if isinstance(where, tuple) else str(where)


@pytest.fixture(scope="session")
def golden() -> dict[str, NDArray[Any]]:
    """What the official networks compute (see `jcs_ct.inference.golden`)."""
    with np.load(ROOT / "tests/golden/official.npz", allow_pickle=False) as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def official_shapes() -> dict[str, dict[str, tuple[int, ...]]]:
    """Names and shapes of the official checkpoints, by the names of our networks."""
    table = json.loads((ROOT / "tests/golden/official_state_dicts.json").read_text())
    return {name: {k: tuple(v) for k, v in table[official].items()} for name, official in OFFICIAL.items()}


@pytest.fixture(scope="session")
def filled() -> Callable[..., nn.Module]:
    """`filled(name, inputs="image")`: a network with the golden weights; each is made once a session.

    Networks share the tensors of one name and shape: those for features with those for images, single with joint.
    """
    import torch

    from jcs_ct.inference.golden import fill
    from jcs_ct.models import build_model

    made: dict[tuple[str, str], nn.Module] = {}
    known: dict[tuple[str, torch.Size], torch.Tensor] = {}

    def get(name: str, inputs: str = "image") -> nn.Module:
        if (name, inputs) not in made:
            with torch.inference_mode(False):  # whoever asks first; parameters must be able to carry gradients
                with torch.device("meta"):
                    network = build_model(name, inputs).eval()
                state = network.state_dict()
                new = {key: tensor for key, tensor in state.items() if (key, tensor.shape) not in known}
                counts = {key: torch.zeros((), dtype=tensor.dtype) for key, tensor in new.items() if not tensor.dim()}
                known.update({(key, tensor.shape): tensor for key, tensor in fill(new | counts).items()})
                network.load_state_dict({key: known[key, tensor.shape] for key, tensor in state.items()}, assign=True)
                made[name, inputs] = network
        return made[name, inputs]

    return get


@pytest.fixture(scope="session")
def kernels_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `JCS_HOME` with the kernels of the runtime `native`; the test is skipped without a compiler."""
    from jcs_ct.inference.native.build import library
    from native_help import require_compiler

    require_compiler()
    home = tmp_path_factory.mktemp("kernels")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JCS_HOME", str(home))
        library()
    return home


@pytest.fixture(scope="session")
def kernels(kernels_home: Path) -> Library:
    """The kernels, compiled once a session."""
    from jcs_ct.inference.native.build import library

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JCS_HOME", str(kernels_home))
        return library()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real CT data that lies beside a developer's checkout; the test is skipped without it."""
    folder = Path(os.environ.get("JCS_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "ct100" / "images").is_dir():
        pytest.skip("needs the real CT data, which is not part of the repository")
    return folder


@pytest.fixture
def slice_pixels() -> NDArray[np.uint8]:
    """A picture with some structure, 96×80×3 grey."""
    rng = np.random.default_rng(7)
    rows, columns = np.mgrid[0:96, 0:80]
    grey = 120 + 90 * np.sin(rows / 9) * np.cos(columns / 7) + rng.normal(0, 12, (96, 80))
    return np.repeat(grey.clip(0, 255).astype(np.uint8)[:, :, None], 3, axis=2)
