"""The way to S3: boto3, one retry budget, one circuit breaker."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, Literal

from integrations.breaker import USUAL_BREAKER, BreakerPolicy
from integrations.calls import Calls, Operation, RetryBudget, silence
from integrations.metrics import State
from integrations.s3.errors import S3IntegrationError, answered, mistake, unanswered

if TYPE_CHECKING:
    from pydantic import SecretStr

    from events.log import EventLog

Addressing = Literal["auto", "path", "virtual"]

_BUDGET = RetryBudget(attempts=5)

for _library in ("boto3", "botocore", "urllib3"):  # they log headers with session tokens
    silence(_library)


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Config:
    """How S3 is reached.

    Args:
        endpoint_url: Where S3, or what speaks its protocol, answers; Amazon's own if not given.
        region: The buckets' region; if not given, where AWS's own tools look for it.
        access_key_id: With `secret_access_key`; if not given, where AWS's own tools look for credentials.
        secret_access_key: With `access_key_id`.
        session_token: Of temporary credentials.
        addressing: `path` for `https://host/bucket/key`, `virtual` for `https://bucket.host/key`; `auto` lets boto3
            choose.
        connect_timeout: Seconds.
        read_timeout: Seconds without a byte of the answer.
        retry: How often a call is tried.
        breaker: When S3 is left alone.
        part_size: Bytes of a part. What is larger is uploaded in parts, and read in ranges of this size; S3 takes
            parts from 5 MB on, and 10,000 of them.
        at_once: Parts, ranges or files that are on their way at the same time.
    """

    endpoint_url: str | None = None
    region: str | None = None
    access_key_id: SecretStr | None = None
    secret_access_key: SecretStr | None = None
    session_token: SecretStr | None = None
    addressing: Addressing = "auto"
    connect_timeout: float = 10.0
    read_timeout: float = 60.0
    retry: RetryBudget = _BUDGET
    breaker: BreakerPolicy | None = USUAL_BREAKER
    part_size: int = 8 << 20
    at_once: int = 4


class Client:
    """Makes the calls that S3's operations are made of. Threads may share it.

    Args:
        config: How S3 is reached.
        events: Where changes are told; None: nowhere but in the log.
    """

    def __init__(self, config: S3Config, events: EventLog | None = None) -> None:
        self.config = config
        self._calls = Calls("s3", error=S3IntegrationError, budget=config.retry, breaker=config.breaker, events=events)

    @cached_property
    def sdk(self) -> Any:  # noqa: ANN401  (boto3 makes its classes at run time)
        """boto3's client: for what is not wrapped here. It retries nothing by itself.

        Raises:
            S3IntegrationError: The settings or AWS's configuration files do not make a client.
        """
        from botocore.exceptions import BotoCoreError

        try:
            return _open(self.config)
        except (BotoCoreError, ValueError) as error:  # a ValueError: the endpoint is no URL
            raise mistake("open", f"s3: {error}", "check PIVOTAL_S3_ENDPOINT_URL and AWS's configuration") from error

    @property
    def circuit(self) -> State:
        """Where the circuit breaker stands: `closed`, `half_open`, `open`."""
        return self._calls.circuit

    def call(self, operation: str, url: str, **params: object) -> Any:  # noqa: ANN401  (boto3's)
        """Makes a call about an object within the retry budget; a body is read, too, and in `Body` as bytes.

        What S3 does to an object can be done twice: it ends in the same state.

        Args:
            operation: S3's own name of it, as boto3 writes it: `put_object`.
            url: The object: `s3://bucket/key`.
            params: What else the call says, in S3's words.

        Raises:
            S3IntegrationError: S3 refused it, or could not be reached within the budget.
        """
        bucket, key = address(operation, url)
        if not key:
            raise mistake(operation, f"{url}: is a bucket", f"name an object in it: s3://{bucket}/key")
        return self._call(operation, url, {"Bucket": bucket, "Key": key, **params})

    def call_bucket(self, operation: str, url: str, **params: object) -> Any:  # noqa: ANN401
        """`call` for what is done to a bucket: of `url`, S3 is told the bucket only."""
        return self._call(operation, url, {"Bucket": address(operation, url)[0], **params})

    def tell(self, what: str, url: str, data: Mapping[str, Any], key: str | None = None) -> None:
        """Tells of a change that is made.

        Args:
            what: The event's type: `file.uploaded`.
            url: What was changed.
            data: What to say of it.
            key: The same for the same doing; None: told every time.
        """
        self._calls.announce(what, (what.split(".", maxsplit=1)[0], url), data, key=key)

    def tell_all(self, what: str, urls: Collection[str]) -> None:
        """`tell` for the many that one call has changed."""
        if urls:
            kind = what.split(".", maxsplit=1)[0]
            self._calls.announce_each(what, [((kind, url), {}, None) for url in urls])

    def _call(self, operation: str, url: str, asked: Mapping[str, object]) -> Any:  # noqa: ANN401
        from botocore.exceptions import BotoCoreError, ClientError

        tries = 0

        def once() -> Any:  # noqa: ANN401
            nonlocal tries
            tries += 1
            try:
                answer = getattr(self.sdk, operation)(**asked)
                if "Body" in answer:
                    answer["Body"] = answer["Body"].read()
            except ClientError as error:
                raise answered(error, operation, url, tries) from error
            except BotoCoreError as error:
                raise unanswered(error, operation, url, tries) from error
            return answer

        return self._calls.call(Operation(operation), once)


def address(operation: str, url: str) -> tuple[str, str]:
    """Bucket and key of an address that is a caller's argument.

    Raises:
        S3IntegrationError: It is none.
    """
    try:
        return split_url(url)
    except ValueError as error:
        raise mistake(operation, str(error), "write s3://bucket/key") from None


def split_url(url: str) -> tuple[str, str]:
    """Bucket and key of `s3://bucket/key`; a key is taken as it is written.

    Raises:
        ValueError: It is no such URL.
    """
    bucket, _, key = url.removeprefix("s3://").partition("/")
    if not url.startswith("s3://") or not bucket:
        raise ValueError(f"{url}: not an S3 address; write s3://bucket/key")
    return bucket, key


def _open(config: S3Config) -> Any:  # noqa: ANN401
    from boto3.session import Session
    from botocore.config import Config
    from botocore.session import get_session

    session = get_session()
    session.register_component("data_loader", _api_descriptions())
    options = Config(
        connect_timeout=config.connect_timeout,
        read_timeout=config.read_timeout,
        retries={"mode": "standard", "total_max_attempts": 1},
        max_pool_connections=max(10, 4 * config.at_once),
        tcp_keepalive=True,
        signature_version="s3v4",
        s3={"addressing_style": config.addressing},
    )
    secrets = {
        "aws_access_key_id": config.access_key_id,
        "aws_secret_access_key": config.secret_access_key,
        "aws_session_token": config.session_token,
    }
    return Session(botocore_session=session).client(
        "s3",
        endpoint_url=config.endpoint_url,
        region_name=config.region,
        config=options,
        **{name: secret.get_secret_value() for name, secret in secrets.items() if secret is not None},
    )


@cache
def _api_descriptions() -> Any:  # noqa: ANN401  (botocore has no types)
    """What botocore reads from its JSON files: most of the time that a client takes, and the same for all."""
    from botocore.loaders import create_loader

    return create_loader()
