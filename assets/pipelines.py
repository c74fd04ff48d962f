"""One asset per pipeline, built from its YAML; what it reads is an upstream asset.

Light on purpose: Dagster loads this module at every start, so the engine is imported inside the op. (Annotations are
not postponed here: Dagster looks at the op's own.)
"""

import re
from collections.abc import Iterator, Mapping, Sequence

import dagster as dg

from assets.partitions import mapping, partition_of_run, partitions_definition
from errors import PivotalError
from etl.loader import resolve
from etl.pipeline import (
    ApiDestination,
    ApiSource,
    DatabaseDestination,
    DatabaseSource,
    Pipeline,
    StreamDestination,
    StreamSource,
    shown_url,
)
from resources.progress import RunProgress

RETRIES = 2
"""Tries after the first, for errors that say `retryable`; the engine's rollback makes another try safe."""

RETRY_DELAY = 5
"""Seconds before the first retry; doubled before each further one."""


def build_assets(pipelines: Sequence[Pipeline]) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """Makes each pipeline an asset, and each source that no pipeline writes an external asset.

    Args:
        pipelines: The pipelines, with distinct names.
    """
    writers = {_written(pipeline): dg.AssetKey(pipeline.name) for pipeline in pipelines}
    upstream = {pipeline.name: writers.get(_read(pipeline)) or _source_key(pipeline) for pipeline in pipelines}
    external = {
        key: _source_spec(key, pipeline)
        for pipeline in pipelines
        if (key := upstream[pipeline.name]) not in writers.values()
    }
    partitions = {dg.AssetKey(pipeline.name): pipeline.partitions for pipeline in pipelines}
    return [
        *external.values(),
        *(
            _asset(pipeline, key, mapping(pipeline.partitions, partitions.get(key)))
            for pipeline in pipelines
            for key in [upstream[pipeline.name]]
        ),
    ]


def _asset(
    pipeline: Pipeline, upstream: dg.AssetKey, partition_mapping: dg.PartitionMapping | None
) -> dg.AssetsDefinition:
    @dg.asset(
        name=pipeline.name,
        deps=[dg.AssetDep(upstream, partition_mapping=partition_mapping)],
        description=pipeline.description,
        group_name=pipeline.group,
        owners=pipeline.owners,
        kinds={_source_kind(pipeline), _destination_kind(pipeline)},
        metadata=_declared(pipeline),
        partitions_def=partitions_definition(pipeline.partitions),
        check_specs=[
            dg.AssetCheckSpec("rows_accounted_for", asset=pipeline.name, description="Every row read went somewhere."),
            dg.AssetCheckSpec("no_row_quarantined", asset=pipeline.name, description="No row broke a rule."),
        ],
    )
    def run(
        context: dg.AssetExecutionContext, progress: dg.ResourceParam[RunProgress]
    ) -> Iterator[dg.MaterializeResult[None]]:
        from assets.report import checks, metadata
        from etl.run import run_pipeline

        watch = progress.watch(context.log)
        try:
            report = run_pipeline(
                pipeline, run_id=context.run.run_id, progress=watch, partition=partition_of_run(context, pipeline)
            )
        except PivotalError as error:
            raise _failure(error, context.retry_number) from None
        yield dg.MaterializeResult(metadata=metadata(pipeline, upstream, report), check_results=checks(report))

    # The decorator's own parameter warns that it is beta.
    return run.with_attributes(backfill_policy=dg.BackfillPolicy.single_run()) if pipeline.partitions else run


def _failure(error: PivotalError, tries: int) -> dg.Failure | dg.RetryRequested:
    if error.retryable and tries < RETRIES:
        return dg.RetryRequested(max_retries=RETRIES, seconds_to_wait=RETRY_DELAY * 2**tries)
    return dg.Failure(str(error), allow_retries=False)


def _declared(pipeline: Pipeline) -> Mapping[str, str]:
    destination = pipeline.destination
    if isinstance(destination, DatabaseDestination):
        return {"dagster/table_name": destination.table, "write": destination.write}
    if isinstance(destination, ApiDestination):
        return {"url": shown_url(destination.url), "write": destination.method}
    if isinstance(destination, StreamDestination):
        return {"topic": destination.topic, "write": destination.write}
    return {"path": destination.path, "write": destination.write}


def _written(pipeline: Pipeline) -> tuple[str, str]:
    destination = pipeline.destination
    if isinstance(destination, DatabaseDestination):
        return (destination.connection, destination.table)
    if isinstance(destination, ApiDestination):
        return ("api", destination.url)
    if isinstance(destination, StreamDestination):
        return (destination.brokers, destination.topic)
    return ("file", destination.path)


def _read(pipeline: Pipeline) -> tuple[str, str]:
    """What the pipeline reads, in the terms of `_written`: equal ones are the same table or folder."""
    source = pipeline.source
    if isinstance(source, DatabaseSource):
        return (source.connection, source.table or "")
    if isinstance(source, StreamSource):
        return (source.brokers, ",".join(source.topics))
    return (source.type, source.url if isinstance(source, ApiSource) else source.path.rsplit("/", 1)[0])


def _source_key(pipeline: Pipeline) -> dg.AssetKey:
    """A name for a source that says where it is without the secrets of its address: [shop, orders]."""
    source = pipeline.source
    if isinstance(source, DatabaseSource):
        variable = re.search(r"\$\{(\w+?)(_DATABASE)?(_URL)?[:}]", source.connection)
        return dg.AssetKey([variable[1].lower() if variable else "database", source.table or f"{pipeline.name}_query"])
    if isinstance(source, StreamSource):
        return dg.AssetKey(["kafka", re.sub(r"\W+", "_", "_".join(source.topics)).strip("_") or "topics"])
    place = source.url if isinstance(source, ApiSource) else source.path
    bare = re.sub(r"\$\{\w+(:-[^}]*)?\}|^https?://|\?.*", "", place)
    return dg.AssetKey([source.type, re.sub(r"\W+", "_", bare).strip("_")])


def _source_spec(key: dg.AssetKey, pipeline: Pipeline) -> dg.AssetSpec:
    return dg.AssetSpec(
        key, description=f"What {pipeline.name} reads.", group_name="sources", kinds={_source_kind(pipeline)}
    )


def _source_kind(pipeline: Pipeline) -> str:
    source = pipeline.source
    if isinstance(source, StreamSource):
        return "kafka"
    return _scheme(source.connection) if isinstance(source, DatabaseSource) else source.type


def _destination_kind(pipeline: Pipeline) -> str:
    destination = pipeline.destination
    if isinstance(destination, ApiDestination):
        return destination.type
    if isinstance(destination, StreamDestination):
        return "kafka"
    return _scheme(destination.connection) if isinstance(destination, DatabaseDestination) else destination.format


def _scheme(connection: str) -> str:
    """`postgresql` of `postgresql+psycopg://...`."""
    return re.split(r"[+:]", resolve(connection), maxsplit=1)[0].lower()
