"""Where steps leave what they hand to each other: the disk of the machine, or a bucket that several machines share."""

from __future__ import annotations

import dagster as dg

from settings import get_settings


@dg.io_manager(description="Keeps what steps hand to each other in a bucket (PIVOTAL_STEP_OUTPUTS).")
def bucket_io_manager(_: dg.InitResourceContext) -> dg.IOManager:
    """dagster-aws' own, which takes a second to import: only when a run asks for it.

    Raises:
        ValueError: PIVOTAL_STEP_OUTPUTS is no address.
    """
    from dagster_aws.s3 import S3PickleIOManager, S3Resource

    from integrations.s3 import split_url

    settings = get_settings()
    bucket, prefix = split_url(settings.step_outputs or "")
    key, secret = settings.s3_access_key_id, settings.s3_secret_access_key
    store = S3Resource(
        endpoint_url=settings.s3_endpoint_url,
        region_name=settings.s3_region,
        aws_access_key_id=key.get_secret_value() if key else None,
        aws_secret_access_key=secret.get_secret_value() if secret else None,
    )
    return S3PickleIOManager(s3_resource=store, s3_bucket=bucket, s3_prefix=prefix.strip("/")).inner_io_manager()
