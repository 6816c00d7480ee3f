"""What a monitor wants to know, in the words of Prometheus: read from the record when it asks, so that all agree."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, SummaryMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from jcs_ct.service.record import FAILURES, Record
from jcs_ct.service.tables import STATES, VERSION_STATES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from prometheus_client.metrics_core import Metric

    from jcs_ct.service.files import Folders

CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """Collects when it is asked: of the studies, the disk, and how many workers are ready here."""

    def __init__(self, record: Record, folders: Folders, workers: Callable[[], int]) -> None:
        self._record, self._folders, self._workers = record, folders, workers
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def text(self) -> bytes:
        """Return the page that a monitor reads."""
        return generate_latest(self._registry)

    def describe(self) -> list[Metric]:
        """Return nothing, so that nothing is collected before the first question."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the families of metrics."""
        counts, errors = self._record.counts(), self._record.errors()
        yield _counted("jcs_studies", "Studies of the record by state", "state", STATES, counts)
        yield _counted("jcs_failed_studies", "Failed studies by class of error", "class", FAILURES, errors)
        yield GaugeMetricFamily(
            "jcs_oldest_waiting_seconds", "Age of the oldest waiting study", value=self._record.oldest_waiting()
        )
        stages = SummaryMetricFamily("jcs_stage_seconds", "Seconds of finished studies by stage", labels=["stage"])
        for stage, (count, seconds) in self._record.seconds().items():
            stages.add_metric([stage], count, seconds)
        yield stages
        back = self._record.sent_back()
        yield _counted("jcs_watched_versions", "Results of watched studies by state", "state", VERSION_STATES, back)
        yield GaugeMetricFamily("jcs_disk_free_bytes", "Free on the service's disk", value=self._folders.free_bytes())
        yield GaugeMetricFamily("jcs_workers_ready", "Workers of this process that are ready", value=self._workers())


def _counted(name: str, text: str, label: str, values: Sequence[str], counts: Mapping[str, int]) -> GaugeMetricFamily:
    """Return a family of numbers, one for each value of a label; 0 for those that are not counted."""
    family = GaugeMetricFamily(name, text, labels=[label])
    for value in values:
        family.add_metric([value], counts.get(value, 0))
    return family
