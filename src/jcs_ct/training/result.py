"""How a run ended: what its folder keeps of it, what is said at the end, and the card of its weights."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jcs_ct.core.version import __version__
from jcs_ct.training.scores import Score
from jcs_ct.weights import WeightsCard

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Result:
    """How a run ended.

    Attributes:
        epochs: That it has done.
        best: The score of its best weights.
        score_name: What the score is.
        slices: To train on, to validate on.
        accepted: What was changed since its start and accepted, a line each time.
    """

    epochs: int
    best: Score
    score_name: str
    slices: tuple[int, int]
    accepted: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return what to say at the end."""
        changes = [f"warning: {line}" for line in self.accepted]
        if math.isnan(self.best.loss):
            return ["done, without validation: best.safetensors holds the last epoch", *changes]
        by = "; chosen by the loss" if self.best.because else ""
        lines = [*changes, f"done; best is epoch {self.best.epoch}: {self.best.words(self.score_name)}{by}"]
        painting = self.best.painting()
        return [*lines, f"warning: {painting} (train longer, or with another --lr)"] if painting else lines

    def to_json(self) -> str:
        """Return it as JSON text."""
        facts: dict[str, Any] = {"epochs": self.epochs, "score": self.score_name, "slices": list(self.slices)}
        facts |= {"accepted": list(self.accepted)} if self.accepted else {}
        return json.dumps(facts | {"best": self.best.facts()}, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def read(cls, path: Path) -> Result | None:
        """Read what `to_json` wrote; None where there is nothing of the kind, for a run that is not finished."""
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
            best = Score.from_facts(held["best"])
            sizes = held["slices"][0], held["slices"][1]
            return cls(held["epochs"], best, held["score"], sizes, tuple(held.get("accepted", ())))
        except (OSError, ValueError, TypeError, KeyError, IndexError):
            return None


def run_card(config: str, out: Path, **facts: Any) -> WeightsCard:
    """Return the card of the weights of a run; their own checksum and the date are put in when they are written.

    `config` is JSON, the folder `out` names them, `facts` are fields of the card that differ from run to run.
    """
    return WeightsCard(
        name=out.resolve().name,
        source_file="config.json",
        source_kind="training run",
        source_sha256=hashlib.sha256(config.encode()).hexdigest(),
        source_url=None,
        weights_sha256="0" * 64,
        imported_at="",
        jcs_ct_version=__version__,
        threshold=0.5,
        threshold_from="not tuned",
        citation="",
        bn_eps_folded=0.0,
        **facts,
    )
