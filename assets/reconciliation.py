"""The jobs that read what webhooks may have missed, one a provider.

Light on purpose: Dagster loads this module at every start, so what reads is imported inside the op.
"""

from collections.abc import Mapping

import dagster as dg

from errors import PivotalError
from settings import get_settings

MAX_SECONDS = 3600
"""After which a run counts as lost, if Dagster's run monitoring is on; the first reading of an account takes long."""

_AGAIN = dg.RetryPolicy(max_retries=2, delay=30, backoff=dg.Backoff.EXPONENTIAL)
_RESOURCES = {"stripe": "stripe", "twilio": "twilio", "google": "google_calendar", "outlook": "outlook"}


def _job(provider: str, resource: str) -> dg.JobDefinition:
    @dg.op(
        name=f"read_{provider}",
        required_resource_keys={resource, "event_log", "warehouse"},
        retry_policy=_AGAIN,
        description=f"Puts on the event log what {provider}'s webhooks have missed.",
    )
    def read(context: dg.OpExecutionContext) -> None:
        from reconciliation.providers import reconcile

        resources = context.resources
        try:
            with getattr(resources, resource).open() as client, resources.event_log.open() as log:
                found = reconcile(client, get_settings(), log, resources.warehouse.open(), run_id=context.run_id)
        except PivotalError as error:
            raise dg.Failure(str(error), allow_retries=error.retryable) from None
        context.add_output_metadata({"read": found.read, "new": found.new, "duplicates": found.duplicates})

    @dg.job(
        name=f"reconcile_{provider}",
        executor_def=dg.in_process_executor,
        tags={"dagster/max_runtime": str(MAX_SECONDS)},
        description=f"Reads what {provider}'s webhooks may have missed; what they have brought changes nothing.",
    )
    def job() -> None:
        read()

    return job


reconciliation_jobs: Mapping[str, dg.JobDefinition] = {
    provider: _job(provider, resource) for provider, resource in _RESOURCES.items()
}
"""Provider -> job."""
