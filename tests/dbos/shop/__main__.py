from __future__ import annotations

import os
import sys
import threading

from dbos import DBOS, DBOSConfig, SetWorkflowID

from tests.dbos.shop import features, odd, work
from tests.dbos.shop.engines import engine

config: DBOSConfig = {
    "name": os.environ.get("APP_NAME", "shop"),
    "application_version": os.environ.get("APP_VERSION", "v1"),
    "system_database_engine": engine,
    "dbos_system_schema": os.environ.get("APP_SCHEMA", "dbos"),
}
if executor := os.environ.get("APP_EXECUTOR"):
    config["executor_id"] = executor
DBOS(config=config)
DBOS.launch()
DBOS.register_queue("orders", polling_interval_sec=0.1)
DBOS.register_queue("one_by_one", global_concurrency=1, polling_interval_sec=0.1)
DBOS.register_queue("two_by_two", global_concurrency=2, polling_interval_sec=0.1)
DBOS.register_queue("by_customer", partition_concurrency=1, polling_interval_sec=0.1)
DBOS.register_queue("four_a_second", limiter={"limit": 4, "period": 1}, polling_interval_sec=0.1)
if sys.argv[1:] == ["pickled"]:  # a workflow that the program starts itself, with its own serializer
    with SetWorkflowID("pickled"):
        DBOS.start_workflow(work.job, "pickled").get_result()
assert features.tills
assert odd.Receipt
sys.stdout.write("ready\n")
sys.stdout.flush()
threading.Event().wait()
