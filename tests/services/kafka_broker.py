"""Apache Kafka for tests: `PIVOTAL_TEST_KAFKA`, else one KRaft broker from the jars that Maven resolves."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.services.availability import unavailable
from tests.services.certificates import make_certificates
from tests.services.process import ServerProcess, accepts_connections, data_folder, free_port

_POM = Path(__file__).parent / "kafka/pom.xml"
_CACHE = Path(__file__).parents[2] / ".cache/kafka"
_JAVA = 17
_CLUSTER_ID = "cGl2b3RhbC1mbG93LXRlc3Q"  # any 16 bytes in base64

# Few partitions, no waiting: what many brokers and much data would need and tests do not.
_PROPERTIES = """\
process.roles={roles}
node.id={node}
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT
listeners={listeners}
listener.name.sasl_ssl.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.sasl_ssl.plain.sasl.jaas.config=\
  org.apache.kafka.common.security.plain.PlainLoginModule required user_{user}="{password}";
listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config=\
  org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=\
  org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.ssl.keystore.type=PEM
listener.name.sasl_ssl.ssl.keystore.location={certificate}
log.dirs={data}
default.replication.factor={replicas}
min.insync.replicas={in_sync}
offsets.topic.replication.factor={replicas}
offsets.topic.num.partitions=4
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr={in_sync}
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor={replicas}
share.coordinator.state.topic.min.isr={in_sync}
group.initial.rebalance.delay.ms=0
log.cleaner.backoff.ms=300
# A killed broker may come back as soon as its old session has ended.
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
"""


USER, PASSWORD = "reader", "correct-horse-battery-staple"
"""Whom the listener with SASL and TLS knows, by every mechanism."""


@dataclass(frozen=True, slots=True)
class Kafka:
    """A running Kafka.

    Args:
        brokers: Where it answers: host:port, comma-separated.
        process: The broker, to stop, kill and start; None if it is somebody else's.
        secure: Where it answers over SASL and TLS; empty if it is somebody else's.
        ca: Whose certificate the broker's own is signed with.
    """

    brokers: str
    process: ServerProcess | None
    secure: str = ""
    ca: Path = Path()


@pytest.fixture(scope="session")
def kafka() -> Iterator[Kafka]:
    """Kafka, whoever runs it."""
    if brokers := os.environ.get("PIVOTAL_TEST_KAFKA"):
        yield Kafka(brokers, None)
        return
    with running() as (broker,):
        yield broker


@pytest.fixture(scope="session")
def kafka_brokers(kafka: Kafka) -> str:
    """Bootstrap servers (host:port) of a Kafka that the whole session shares: name topics and groups uniquely."""
    return kafka.brokers


@pytest.fixture(scope="session")
def secure_kafka(kafka: Kafka) -> Kafka:
    """The same broker, for its listener with SASL and TLS."""
    if not kafka.secure:
        unavailable(
            "Kafka",
            "how the broker of PIVOTAL_TEST_KAFKA is secured is not known",
            "unset it: the tests then start a broker of their own",
        )
    return kafka


@pytest.fixture
def kafka_process(kafka: Kafka) -> Iterator[ServerProcess]:
    """The Kafka broker itself, to stop, kill and start; it runs again after the test."""
    if kafka.process is None:
        unavailable(
            "Kafka",
            "the broker of PIVOTAL_TEST_KAFKA cannot be stopped from here",
            "unset it: the tests then start a broker of their own",
        )
    yield kafka.process
    kafka.process.start()


@contextmanager
def running(nodes: int = 1) -> Iterator[Sequence[Kafka]]:
    """Brokers of one cluster of our own; the first is its controller, too.

    Args:
        nodes: How many there are. Every topic is on all of them, unless it says otherwise; each record is on all but
            one of them when it is acknowledged.
    """
    java, jars = _java(), _jars()
    jvm = [java, "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{jars}/*"]
    with data_folder("kafka") as folder:
        ca, certificate = make_certificates(folder)
        shared = {
            "controller": free_port(), "replicas": nodes, "in_sync": max(1, nodes - 1),
            "certificate": certificate, "user": USER, "password": PASSWORD,
        }  # fmt: skip
        brokers = [_broker(jvm, folder, number, ca, shared) for number in range(1, nodes + 1)]
        _format(jvm, folder, nodes)
        processes = [broker.process for broker in brokers if broker.process]
        try:
            for process in processes:
                process.launch()
            for process in processes:
                process.await_answer()
            yield brokers
        finally:
            for process in processes:
                process.kill()  # the data goes, too


def _broker(jvm: Sequence[str], folder: Path, number: int, ca: Path, shared: Mapping[str, object]) -> Kafka:
    """A broker, configured; the first has the controller in it, too."""
    plain, secure = free_port(), free_port()
    listeners = [f"PLAINTEXT://127.0.0.1:{plain}", f"SASL_SSL://127.0.0.1:{secure}"]
    if number == 1:
        listeners.append(f"CONTROLLER://127.0.0.1:{shared['controller']}")
    roles = "broker,controller" if number == 1 else "broker"
    properties, data = folder / f"{number}.properties", folder / f"{number}"
    properties.write_text(
        _PROPERTIES.format(node=number, roles=roles, listeners=",".join(listeners), data=data, **shared)
    )
    process = ServerProcess(
        [*jvm, "kafka.Kafka", str(properties)],
        ready=lambda: accepts_connections(plain),
        log=folder / f"{number}.log",
    )
    return Kafka(f"127.0.0.1:{plain}", process, f"127.0.0.1:{secure}", ca)


def _format(jvm: Sequence[str], folder: Path, nodes: int) -> None:
    """Formats the disk of the first broker; those of the others need its description only."""
    users = [
        argument
        for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")
        for argument in ("--add-scram", f"{mechanism}=[name={USER},password={PASSWORD}]")
    ]
    config = str(folder / "1.properties")
    command = [*jvm, "kafka.tools.StorageTool", "format", "-t", _CLUSTER_ID, "-c", config, *users]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"Kafka's storage cannot be formatted:\n{result.stdout}\n{result.stderr}")
    for number in range(2, nodes + 1):
        (folder / f"{number}").mkdir()
        (folder / f"{number}/meta.properties").write_text(f"version=1\nnode.id={number}\ncluster.id={_CLUSTER_ID}\n")


def _java() -> str:
    """The Java that JAVA_HOME or PATH has, if it is new enough for Kafka 4."""
    home = os.environ.get("JAVA_HOME")
    java = (home and shutil.which(f"{home}/bin/java")) or shutil.which("java")
    remedy = f"`apt-get install default-jre-headless` (Java {_JAVA} or newer), or set PIVOTAL_TEST_KAFKA=host:port"
    if java is None:
        unavailable("Kafka", "PIVOTAL_TEST_KAFKA is not set and java was not found on PATH", remedy)
    said = subprocess.run([java, "-version"], check=False, capture_output=True, text=True).stderr
    version = re.search(r'version "(\d+)', said)
    if version is None or int(version[1]) < _JAVA:
        unavailable("Kafka", f"{java} is too old ({said.splitlines()[0]})", remedy)
    return java


def _jars() -> Path:
    """The folder with the broker's jars; Maven fills it once for each version of the pom."""
    folder = _CACHE / hashlib.sha256(_POM.read_bytes()).hexdigest()[:16]
    if folder.exists():
        return folder
    if (maven := shutil.which("mvn")) is None:
        unavailable(
            "Kafka",
            "PIVOTAL_TEST_KAFKA is not set, and mvn, which fetches Kafka, was not found on PATH",
            "`apt-get install maven`, or set PIVOTAL_TEST_KAFKA=host:port",
        )
    _CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_CACHE, ignore_cleanup_errors=True) as incomplete:
        jars = Path(incomplete) / "jars"
        _resolve(maven, jars)
        shutil.rmtree(folder, ignore_errors=True)
        jars.rename(folder)
    return folder


def _resolve(maven: str, jars: Path) -> None:
    goal = ["org.apache.maven.plugins:maven-dependency-plugin:copy-dependencies", f"-DoutputDirectory={jars}"]
    result = subprocess.run(
        [maven, "-q", "-B", "-ntp", "-f", str(_POM), *goal],
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    if result.returncode:
        said = re.search(r"\[ERROR\] (.*)", result.stdout + result.stderr)
        unavailable(
            "Kafka",
            f"Maven could not fetch Kafka's jars ({said[1] if said else f'exit code {result.returncode}'})",
            "let it reach its repository, or set PIVOTAL_TEST_KAFKA=host:port",
        )
