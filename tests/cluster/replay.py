"""The rights proof over a whole run: what the operator asked for in every test cluster, against the chart's rules.

Each cluster of tests/cluster leaves a record of its API server's audit log when it ends; when the run ends, the records
are judged together, wherever (pytest-xdist) the clusters were. Nothing may have been asked for that the chart does not
grant, and, when all of tests/cluster ran, every verb that the chart grants must have been used.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from devcluster import Cluster
from devcluster.errors import NotRunningError
from tests.chart.helpers import render
from tests.cluster.rights import Object, Rule, missing, requests_of, rules_for, unused
from tests.cluster.services import OPERATOR_NAMESPACE, OPERATOR_USER, RELEASE

DIRECTORY = "EMBEDDING_OPERATOR_TEST_RECORDS"
"""Variable with the directory of a run's records, which the processes of a run share."""
READER = "extension-apiserver-authentication-reader"
"""Kubernetes' own Role, of which the operator needs one verb only."""
EVERYWHERE, NAMESPACED, MONITORED = "everywhere", "one namespace", "everywhere, with monitoring and the metrics API"
HERE = Path(__file__).parent

_deliberate: dict[Path, list[tuple[float, float]]] = defaultdict(list)


@dataclass(frozen=True)
class Record:
    """What one cluster's audit log came to. The texts name a verb, a resource and the role that grants it."""

    mode: str
    granted: tuple[str, ...]
    unused: tuple[str, ...]
    missing: tuple[str, ...]
    requests: int


def granted(values: Mapping[str, Any], reader: Object) -> list[Rule]:
    """The chart's rules for the operator, rendered by Helm, with Kubernetes' own Role that it may be bound to."""
    objects = render(values, name=RELEASE, namespace=OPERATOR_NAMESPACE).objects
    return rules_for(RELEASE, OPERATOR_NAMESPACE, [*objects, reader])


def judged(mode: str, events: Iterable[Object], rules: list[Rule]) -> Record:
    """A cluster's requests against the rules that its releases had. Pure."""
    requests = requests_of(events)
    ours = [rule for rule in rules if READER not in rule.role]
    return Record(
        mode,
        granted=tuple(sorted(set(unused([], ours)))),
        unused=tuple(sorted(set(unused(requests, ours)))),
        missing=tuple(missing(requests, rules)),
        requests=len(requests),
    )


def reader_of(cluster: Cluster) -> dict[str, Any]:
    """That Role of Kubernetes' own, as it stands in the cluster."""
    role = cluster.get("role", READER, "kube-system")
    assert role is not None
    return role


@contextmanager
def deliberately_refused(cluster: Cluster) -> Iterator[None]:
    """What is refused while the block runs is the test's doing."""
    began = time.time()
    try:
        yield
    finally:
        _deliberate[cluster.directory].append((began, time.time()))


def _received(event: Object) -> float:
    return datetime.fromisoformat(event["requestReceivedTimestamp"].replace("Z", "+00:00")).timestamp()


def record(cluster: Cluster, mode: str, values: Mapping[str, Any]) -> Record | None:
    """Leave the record of a cluster that is about to end. `values`: all that its releases had switched on."""
    try:
        events = cluster.audit_events(OPERATOR_USER)
    except NotRunningError:  # no devcluster: its audit log is not known
        return None
    pauses = _deliberate.pop(cluster.directory, [])
    counted = [it for it in events if not any(begin <= _received(it) <= end for begin, end in pauses)]
    found = judged(mode, counted, granted(values, reader_of(cluster)))
    if directory := os.environ.get(DIRECTORY):
        (Path(directory) / f"{uuid.uuid4().hex}.json").write_text(json.dumps(asdict(found)))
    return found


def faults(records: Iterable[Record], *, whole: bool) -> list[str]:
    """What is wrong, over all clusters of a run. Only when the `whole` suite ran, is an idle right a fault. Pure."""
    records = list(records)
    found = [f"not granted ({it.mode}): {line}" for it in records for line in it.missing]
    if not whole:
        return found
    for mode in (EVERYWHERE, NAMESPACED, MONITORED):
        of_mode = [it for it in records if it.mode == mode]
        idle = set[str]().union(*(it.granted for it in of_mode))
        for it in of_mode:
            idle &= set(it.unused)
        found += [f"granted and never used ({mode}): {line}" for line in sorted(idle)]
        if not of_mode:
            found.append(f"no cluster left a record ({mode})")
    return found


class Replay:
    """The plugin of the process that began the run."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.directory = Path(tempfile.mkdtemp(prefix="records-"))
        os.environ[DIRECTORY] = str(self.directory)
        self.ran: set[str] = set()
        self.lines: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            self.ran.add(Path(report.location[0]).name)

    def _whole(self, session: pytest.Session) -> bool:
        options = self.config.option
        chosen = (options.keyword, options.markexpr, options.deselect, getattr(options, "lf", False))
        all_files = {path.name for path in HERE.glob("test_*.py")} <= self.ran
        return all_files and not any(chosen) and not session.testsfailed and "::" not in "".join(self.config.args)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        records = [Record(**json.loads(path.read_text())) for path in self.directory.glob("*.json")]
        shutil.rmtree(self.directory)
        if not records:
            return
        whole = self._whole(session)
        found = faults(records, whole=whole)
        verbs = len({line for it in records for line in it.granted})
        requests = sum(it.requests for it in records)
        self.lines = found or [
            f"{requests} requests in {len(records)} clusters: none lacked a right; "
            + (f"all {verbs} granted verbs were used" if whole else "a part of the suite cannot say what is idle")
        ]
        if found:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.lines:
            terminalreporter.section("the operator's rights, by the audit logs of this run")
            for line in self.lines:
                terminalreporter.line(line)


def pytest_configure(config: pytest.Config) -> None:
    """Judge where the run began, not in its workers."""
    if not hasattr(config, "workerinput") and not config.option.collectonly:
        config.pluginmanager.register(Replay(config), "rights-replay")
