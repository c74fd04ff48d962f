"""The peers, each by the fastest way that its own documentation names, without any rules.

    python benchmarks/peers.py dlt|pandas|quix JOB

It runs in an environment of its own (`requirements/peers.txt`): the project needs none of them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any

CSV, API = os.environ.get("BENCH_CSV", ""), os.environ.get("BENCH_API", "")
SOURCE, TARGET = os.environ.get("BENCH_SOURCE_URL", ""), os.environ.get("BENCH_TARGET_URL", "")
OUT = os.environ.get("BENCH_OUT", "")
BROKERS, TOPIC = os.environ.get("BENCH_BROKERS", ""), os.environ.get("BENCH_TOPIC", "")


# --- dlt: Arrow in, Parquet files between, ADBC or the file itself out ---


def _dlt(destination: Any, data: Any, table: str, write: str, **more: Any) -> None:
    import dlt

    pipeline = dlt.pipeline(
        f"bench_{table}", destination=destination, dataset_name="bench", pipelines_dir=os.environ["BENCH_FOLDER"]
    )
    pipeline.run(data, table_name=table, write_disposition=write, loader_file_format="parquet", **more)


def _dlt_lake() -> Any:
    import dlt

    return dlt.destinations.filesystem(bucket_url=f"file://{OUT}")


def _dlt_postgres() -> Any:
    import dlt

    return dlt.destinations.postgres(credentials=TARGET)


def _arrow_csv() -> Iterator[Any]:
    from pyarrow import csv

    yield from csv.open_csv(CSV, read_options=csv.ReadOptions(block_size=16 << 20))


def _arrow_orders() -> Iterator[Any]:
    from adbc_driver_postgresql import dbapi

    with dbapi.connect(SOURCE) as connection, connection.cursor() as cursor:
        cursor.execute(
            'SELECT "OrderID", customer_id, CAST(amt AS text) AS amt, rate, gift, created_at, ship_on, status, '
            "email, note FROM orders"
        )
        yield from cursor.fetch_record_batch()


def dlt_postgresql_to_parquet() -> None:
    _dlt(_dlt_lake(), _arrow_orders(), "orders", "replace")


def dlt_csv_to_parquet() -> None:
    _dlt(_dlt_lake(), _arrow_csv(), "orders", "replace")


def dlt_csv_to_postgresql() -> None:
    _dlt(_dlt_postgres(), _arrow_csv(), "orders", "append")


def dlt_csv_merge() -> None:
    write: Any = {"disposition": "merge", "strategy": "upsert"}
    _dlt(_dlt_postgres(), _arrow_csv(), "orders", write, primary_key="OrderID")


def dlt_api_to_postgresql() -> None:
    import dlt
    from dlt.sources.helpers.rest_client import RESTClient
    from dlt.sources.helpers.rest_client.paginators import PageNumberPaginator

    @dlt.resource(max_table_nesting=1)
    def customers() -> Iterator[Any]:
        pages = PageNumberPaginator(base_page=1, page_param="page", total_path=None, stop_after_empty_page=True)
        yield from RESTClient(API).paginate("", paginator=pages, data_selector="data")

    _dlt(_dlt_postgres(), customers(), "customers", "append")


def dlt_changed_rows() -> None:
    from adbc_driver_postgresql import dbapi

    with dbapi.connect(SOURCE) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT * FROM changes WHERE updated_at >= '2026-01-01'")
        _dlt(_dlt_postgres(), cursor.fetch_arrow_table(), "changes", "append")


def dlt_topic_to_postgresql() -> None:
    """Modelled on dlt's verified source `kafka`, with a message processor of one's own that reads the value's JSON."""
    import dlt
    import orjson
    from confluent_kafka import Consumer, TopicPartition  # type: ignore[import-not-found]
    from dlt.common.time import ensure_pendulum_datetime

    def processed(message: Any) -> dict[str, Any]:
        known = {
            "partition": message.partition(),
            "key": message.key().decode(),
            "offset": message.offset(),
            "timestamp": ensure_pendulum_datetime(message.timestamp()[1] / 1e3),
        }
        return {**orjson.loads(message.value()), "_kafka": known}

    @dlt.resource(name="orders")
    def messages() -> Iterator[Any]:
        consumer = Consumer({"bootstrap.servers": BROKERS, "group.id": "bench_dlt", "auto.offset.reset": "earliest"})
        read = dlt.current.resource_state().setdefault("offsets", {})
        places = [
            TopicPartition(TOPIC, number, read.get(str(number), -1) + 1)
            for number in consumer.list_topics(TOPIC).topics[TOPIC].partitions
        ]
        ends = {place.partition: consumer.get_watermark_offsets(place)[1] for place in places}
        consumer.assign(places)
        while any(read.get(str(number), -1) + 1 < end for number, end in ends.items()):
            batch = consumer.consume(3000, timeout=3)
            yield [processed(message) for message in batch]
            read.update((str(message.partition()), message.offset()) for message in batch)
        consumer.close()

    _dlt(_dlt_postgres(), messages(), "orders", "append")


# --- Quix Streams: its own sink ---


def quix_topic_to_postgresql() -> None:
    from psycopg.conninfo import conninfo_to_dict
    from quixstreams import Application  # type: ignore[import-not-found]
    from quixstreams.sinks.community.postgresql import PostgreSQLSink  # type: ignore[import-not-found]

    records, folder = int(os.environ["BENCH_RECORDS"]), os.environ["BENCH_FOLDER"]
    application = Application(BROKERS, consumer_group="bench_quix", auto_offset_reset="earliest", state_dir=folder)
    target = conninfo_to_dict(TARGET)
    place = {name: target[name] for name in ("host", "port", "dbname", "user", "password")}
    sink = PostgreSQLSink(**place, table_name="orders")
    application.dataframe(application.topic(TOPIC, key_deserializer="str")).sink(sink)
    application.run(count=records, collect=False)


# --- pandas: the script that everybody writes ---

_CHUNK = 200_000


def _engine(url: str) -> Any:
    from sqlalchemy import create_engine

    return create_engine(url)


def pandas_postgresql_to_parquet() -> None:
    import pandas as pd

    with _engine(SOURCE).connect().execution_options(stream_results=True) as connection:
        _write_parquet(pd.read_sql("SELECT * FROM orders", connection, chunksize=_CHUNK))


def pandas_csv_to_parquet() -> None:
    import pandas as pd

    _write_parquet(pd.read_csv(CSV, chunksize=_CHUNK, parse_dates=["created_at", "ship_on"]))


def _write_parquet(chunks: Iterable[Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer = None
    for chunk in chunks:
        table = pa.Table.from_pandas(chunk, preserve_index=False)
        writer = writer or pq.ParquetWriter(OUT, table.schema)
        writer.write_table(table)
    if writer:
        writer.close()


def pandas_csv_to_postgresql() -> None:
    import pandas as pd

    with _engine(TARGET).begin() as connection:
        for chunk in pd.read_csv(CSV, chunksize=_CHUNK, parse_dates=["created_at", "ship_on"]):
            chunk.to_sql("orders", connection, if_exists="append", index=False)


def pandas_csv_merge() -> None:
    import pandas as pd
    from sqlalchemy import text

    names = ["order_id", "customer_id", "amount", "rate", "gift", "created_at", "ship_on", "status", "email", "note"]
    update = ", ".join(f"{name} = excluded.{name}" for name in names[1:])
    with _engine(TARGET).begin() as connection:
        for chunk in pd.read_csv(CSV, chunksize=_CHUNK, parse_dates=["created_at", "ship_on"], names=names, header=0):
            chunk.to_sql("stage", connection, if_exists="append", index=False)
        listed = ", ".join(names)
        connection.execute(
            text(
                f"INSERT INTO loaded ({listed}) SELECT {listed} FROM stage "
                f"ON CONFLICT (order_id) DO UPDATE SET {update}"
            )
        )
        connection.execute(text("DROP TABLE stage"))


def pandas_api_to_postgresql() -> None:
    import pandas as pd
    import requests

    page, session = 1, requests.Session()
    with _engine(TARGET).begin() as connection:
        while records := session.get(API, params={"page": page}, timeout=30).json()["data"]:
            flat = pd.json_normalize(records, sep="_")
            flat["tags"] = flat["tags"].astype(str)
            flat.to_sql("customers", connection, if_exists="append", index=False)
            page += 1


if __name__ == "__main__":
    globals()[f"{sys.argv[1]}_{sys.argv[2]}"]()
