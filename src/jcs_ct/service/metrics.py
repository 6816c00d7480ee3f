"""What a monitor wants to know, in the words of Prometheus: read from the record when it asks, so that all agree."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, SummaryMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from jcs_ct.service.record import FAILURES
from jcs_ct.service.tables import STATES, VERSION_STATES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client.metrics_core import Metric

    from jcs_ct.service.files import Folders
    from jcs_ct.service.record import Record

CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """Collects when it is asked.

    Args:
        record: The studies.
        folders: On the disk that may become full.
        workers: How many workers are ready here.
    """

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
        states = GaugeMetricFamily("jcs_studies", "Studies of the record by state", labels=["state"])
        for state in STATES:
            states.add_metric([state], counts.get(state, 0))
        yield states
        failed = GaugeMetricFamily("jcs_failed_studies", "Failed studies by class of error", labels=["class"])
        for name in FAILURES:
            failed.add_metric([name], errors.get(name, 0))
        yield failed
        yield GaugeMetricFamily(
            "jcs_oldest_waiting_seconds", "Age of the oldest waiting study", value=self._record.oldest_waiting()
        )
        stages = SummaryMetricFamily("jcs_stage_seconds", "Seconds of finished studies by stage", labels=["stage"])
        for stage, (count, seconds) in self._record.seconds().items():
            stages.add_metric([stage], count, seconds)
        yield stages
        back = self._record.sent_back()
        versions = GaugeMetricFamily("jcs_watched_versions", "Results of watched studies by state", labels=["state"])
        for state in VERSION_STATES:
            versions.add_metric([state], back.get(state, 0))
        yield versions
        yield GaugeMetricFamily("jcs_disk_free_bytes", "Free on the service's disk", value=self._folders.free_bytes())
        yield GaugeMetricFamily("jcs_workers_ready", "Workers of this process that are ready", value=self._workers())
