"""Where rows go: a warehouse (`etl.destinations.warehouse`), files in a folder, an API or a topic."""

from __future__ import annotations

from etl.partitions import Partition
from etl.pipeline import ApiDestination, FileDestination, Pipeline, StreamDestination
from etl.stream import Destination


def open_destination(pipeline: Pipeline, partition: Partition | None = None) -> Destination:
    """The pipeline's destination, with its state and quarantine. Opens no connection yet.

    Args:
        pipeline: The pipeline.
        partition: The part of it that is written; everything if not given.

    Raises:
        DestinationError: It cannot be opened as it is declared.
        ConfigError: A `${NAME}` in it has no value.
    """
    scope = partition.scope if partition else None
    if isinstance(pipeline.destination, FileDestination):
        from etl.destinations.files import FilesDestination

        return FilesDestination(pipeline.name, pipeline.destination, scope)
    if isinstance(pipeline.destination, ApiDestination):
        from etl.destinations.api import EndpointDestination

        return EndpointDestination(pipeline.name, pipeline.destination)
    if isinstance(pipeline.destination, StreamDestination):
        from etl.destinations.stream import TopicDestination

        return TopicDestination(pipeline.name, pipeline.destination)
    from etl.destinations.database import TableDestination

    children = pipeline.transform.children
    return TableDestination(pipeline.name, pipeline.destination, pipeline.description, scope, children)
