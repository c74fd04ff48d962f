"""Where rows go. A pipeline's destination is a warehouse (`etl.destinations.warehouse`) or a folder of files."""

from __future__ import annotations

from etl.pipeline import FileDestination, Pipeline
from etl.stream import Destination


def open_destination(pipeline: Pipeline) -> Destination:
    """The pipeline's destination, with its state and quarantine. Opens no connection yet.

    Raises:
        DestinationError: It cannot be opened as it is declared.
        ConfigError: A `${NAME}` in it has no value.
    """
    if isinstance(pipeline.destination, FileDestination):
        from etl.destinations.files import FilesDestination

        return FilesDestination(pipeline.name, pipeline.destination)
    from etl.destinations.database import TableDestination

    return TableDestination(pipeline.name, pipeline.destination)
