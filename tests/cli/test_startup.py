from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ASKED = """
import sys
from cli.main import main
sys.argv[1:] = ["run", "people"]
try:
    main()
except SystemExit as end:
    assert not end.code
print("pandas" in sys.modules)
import pyarrow as pa
print(type(pa.table({"n": pa.array([1])}).to_pandas()).__name__, pa.array([1.5, None]).to_pylist())
"""


def test_a_run_spares_itself_the_import_of_pandas_which_is_still_there_for_who_wants_it(project: Path) -> None:
    (project / "people.csv").write_text("id,name\n1,Ada\nx,Bob\n")
    (project / "pipelines").mkdir(exist_ok=True)
    (project / "pipelines/people.yaml").write_text(
        """description: People
source: {type: file, path: people.csv}
transform: {convert: {id: integer}, derive: {twice: "id * 2"}}
destination: {type: database, connection: "duckdb:///people.duckdb", table: people, write: merge, key: [id]}
"""
    )

    done = subprocess.run([sys.executable, "-c", ASKED], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-2:] == ["False", "DataFrame [1.5, None]"]
