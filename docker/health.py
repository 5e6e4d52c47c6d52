"""
Exit with 0 if a part of Airflow is healthy, according to the heartbeats in the API server.

``airflow jobs check`` does the same, but takes seconds of processor time for each check.
"""

from __future__ import annotations

import json
import sys
from urllib.request import urlopen

URL = "http://api-server:8080/api/v2/monitor/health"


def main(part: str) -> int:
    """
    Check one part.

    :param part: ``metadatabase``, ``scheduler``, ``triggerer`` or ``dag_processor``.
    """
    with urlopen(URL, timeout=5) as answer:
        health = json.load(answer)[part]
    print(json.dumps(health))  # noqa: T201 - docker inspect shows it
    return 0 if health["status"] == "healthy" else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
