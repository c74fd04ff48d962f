"""`references`: which values of a batch another table does not have, asked for all of them at once."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from errors import RuleError
from etl.destinations.warehouse import open_warehouse
from etl.pipeline import References
from etl.unique import Mask
from etl.variables import resolve


def orphans(references: References, connection: str | None, values: pa.Array) -> Mask:
    """The rows whose value the other table does not have. A NULL is no orphan.

    Args:
        references: The other table.
        connection: Where it is, if `references` does not say.
        values: One value a row.

    Raises:
        RuleError: No connection is known.
        DestinationError: The database cannot be read, or has no such table or column, or one of another type.
    """
    url = references.connection or connection
    if url is None:
        raise RuleError(
            f"validate: references: {references.table}: there is no connection to look it up",
            hint="say `connection: ${CRM_DATABASE_URL}` under `references`",
        )
    if values.null_count == len(values):
        return np.zeros(len(values), np.bool_)
    distinct, places = _distinct(values)
    missing = np.ones(len(distinct), np.bool_)
    looked_up = pa.record_batch({references.column: distinct})
    missing[open_warehouse(resolve(url)).find(references.table, looked_up)] = False
    orphan: Mask = pc.fill_null(pa.array(missing).take(places), fill_value=False).to_numpy(zero_copy_only=False)
    return orphan


def _distinct(values: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Each value once, and for each row the place of its own; NULL for NULL."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    extended = isinstance(values, pa.ExtensionArray)
    coded = (values.storage if extended else values).dictionary_encode()
    each = coded.dictionary
    return pa.ExtensionArray.from_storage(values.type, each) if extended else each, coded.indices
