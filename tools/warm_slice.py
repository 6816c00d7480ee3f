"""What `Diagnoser` costs beside the pipeline that it calls: `python tools/warm_slice.py [--calls 100]`.

Both look at the same phantom, in turn. The ratio is the median of the turns' ratios, and may be 1.05. The weights
may be loaded once.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from typing import TYPE_CHECKING
from unittest.mock import patch

from jcs_ct import Diagnoser
from jcs_ct.app.examine import examine_case
from jcs_ct.app.in_memory import case_of_object
from jcs_ct.inference import open_network
from jcs_ct.phantom import make_phantom, true_spacing
from jcs_ct.study.settings import Networks, Settings
from jcs_ct.weights import loading
from jcs_ct.weights.unpickle import read_tensors

if TYPE_CHECKING:
    from collections.abc import Callable

    from jcs_ct.phantom import PhantomStudy

ALLOWED = 1.05


def main() -> None:
    """Measure, print, and exit with 1 where it costs too much."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--slices", type=int, default=16)
    parser.add_argument("--size", type=int, default=256)
    options = parser.parse_args()
    study = make_phantom(options.slices, options.size, spacing=true_spacing(options.slices, options.size))
    networks = Networks.of([open_network(None, "cpu")])
    networks.expect(len(study.hu))  # the runtime of a study, as `jcs diagnose` takes it
    with patch.object(loading, "read_tensors", wraps=read_tensors) as loads:
        ratio, each = compared(networks, Diagnoser(device="cpu"), study, options.calls)
    print(f"a warm slice: pipeline {each[0]:.1f} ms, Diagnoser {each[1]:.1f} ms, ratio {ratio:.3f} (allowed {ALLOWED})")
    print(f"{options.calls + 1} calls of one Diagnoser loaded weights {loads.call_count} time(s)")
    sys.exit(ratio > ALLOWED or loads.call_count != 1)


def compared(networks: Networks, diagnoser: Diagnoser, study: PhantomStudy, calls: int) -> tuple[float, list[float]]:
    """Return Diagnoser over pipeline, and the ms of a slice in both."""

    def pipeline() -> object:
        return examine_case(case_of_object(study.hu, spacing=study.spacing), networks, Settings())

    def called() -> object:
        return diagnoser(study.hu, spacing=study.spacing)

    pipeline(), called()  # warm
    pairs = [(seconds(pipeline), seconds(called)) for _ in range(calls)]
    each = [1000 * statistics.median(column) / len(study.hu) for column in zip(*pairs, strict=True)]
    return statistics.median(mine / plain for plain, mine in pairs), each


def seconds(work: Callable[[], object]) -> float:
    """Return how long something takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
