"""The warehouse, as a Dagster resource."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from settings import get_settings

if TYPE_CHECKING:  # it needs pyarrow, which Dagster's load does not
    from etl.destinations.warehouse import Warehouse


class WarehouseResource(dg.ConfigurableResource["Warehouse"]):
    """Hands out the warehouse. Dagster shows its configuration, so a URL with a password is left to the environment."""

    url: str | None = Field(default=None, description="URL of the warehouse; PIVOTAL_WAREHOUSE_URL if not given.")

    def open(self) -> Warehouse:
        """The warehouse; it holds nothing open between calls.

        Raises:
            DestinationError: The URL is of no known kind.
        """
        from etl.destinations.warehouse import open_warehouse

        return open_warehouse(self.url or get_settings().warehouse_url)
