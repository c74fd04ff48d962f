"""What makes a short command, and a short run, short."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from typing import Any


def hide_pandas_from_pyarrow() -> None:
    """Spares a process the third of a second that pandas takes to import.

    PyArrow imports pandas, where it is installed, at its first conversion of a Python value, only to tell a Series
    from a list; it does so once. The engine gives it no Series. `to_pandas()` imports it all the same.
    """
    if "pandas" in sys.modules:
        return
    import pyarrow as pa

    sys.meta_path.insert(0, _NoPandas)
    try:
        pa.scalar(None)
    finally:
        sys.meta_path.remove(_NoPandas)


class _NoPandas:
    """A finder (`importlib.abc.MetaPathFinder`) to which pandas is not there."""

    @staticmethod
    def find_spec(name: str, *_: Any) -> ModuleSpec | None:  # noqa: ANN401  (as the protocol has it)
        """Refuses pandas; leaves everything else to the others."""
        if name == "pandas":
            raise ModuleNotFoundError(name=name)
        return None
