"""
Run the example DBOS program as the Lakebase's owner; Airflow's identity may use its tables.

python dbos_app.py <folder of the Lakebase> <program>
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

from airflow_provider_lakets.local.state import State


def main() -> None:
    """Take the identity from the Lakebase's folder, and run the program."""
    folder, program = (Path(argument) for argument in sys.argv[1:])
    os.environ.update(State.load(folder).env(folder))
    runpy.run_path(str(program), run_name="__main__")


if __name__ == "__main__":
    main()
