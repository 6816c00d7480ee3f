"""`jcs node`: the node beside its workers, until it is told to end."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from jcs_ct.core.errors import OutputError
from jcs_ct.service.database import RecordError
from jcs_ct.service.files import Folders
from jcs_ct.service.log import Log
from jcs_ct.service.node.arrivals import WHO, Arrivals
from jcs_ct.service.node.receiver import Node, listen
from jcs_ct.service.pseudonyms import Pseudonyms
from jcs_ct.service.record import Record
from jcs_ct.service.run import binding, told_to_end, tried_again, working

if TYPE_CHECKING:
    from collections.abc import Callable

    from jcs_ct.service.settings import Service

LOOK_SECONDS = 1.0


def run(service: Service, node: Node, settle: float, workers: int, say: Callable[[str], None]) -> None:
    """Receive until SIGTERM or SIGINT. Raises OutputError where the folder or the port cannot be used."""
    stopped = told_to_end()
    folders = Folders(service.folder)
    folders.prepare()
    with working(service, workers, say):
        record = Record(service.database)
        log = Log(record)
        names = Pseudonyms(service.folder)
        arrivals = Arrivals(folders, record, service.diagnosis.digest(), service.limits, log, names, settle)
        arrivals.tidy()
        with binding(node.host, node.port):
            server = listen(node, arrivals)
        threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
        log.audit(WHO, "start")
        tls = "" if node.context is None else ", with TLS"
        say(f"receiving at {node.host} port {server.server_address[1]} as {node.title}{tls}, with {workers} workers")
        away = False
        while not stopped.wait(LOOK_SECONDS):
            try:
                arrivals.pass_on()
                away = False
            except (RecordError, OutputError, OSError) as error:
                if not away:
                    say(tried_again(error))
                away = True
        server.ae.shutdown()  # associations are aborted: what was answered for is on the disk, the rest is sent again
        log.audit(WHO, "stop")
        record.close()
