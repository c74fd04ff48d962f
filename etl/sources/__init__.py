"""Where rows come from: databases, files, HTTP APIs, streams."""

from __future__ import annotations

from etl.partitions import Partition
from etl.pipeline import ApiSource, FileSource, Pipeline, StreamSource
from etl.stream import Source


def open_source(pipeline: Pipeline, partition: Partition | None = None) -> Source:
    """The source that a pipeline declares; nothing is read and nobody is called before `Source.open`.

    Args:
        pipeline: The pipeline.
        partition: The part of it that a database is asked for; other sources are read whole.

    Raises:
        PivotalError: The source is declared in a way that cannot work, or an environment variable is not set.
    """
    source = pipeline.source
    once = pipeline.destination.write != "merge"  # whoever cannot merge must not be given a row twice
    if isinstance(source, FileSource):
        from etl.sources.file import Files

        return Files(source)
    if isinstance(source, ApiSource):
        from etl.sources.api import Api

        return Api(source, once=once)
    if isinstance(source, StreamSource):
        from etl.sources.stream import Stream

        return Stream(source, pipeline.name)
    from etl.sources.database import Database

    return Database(source, once=once, partition=partition)
