"""
Run failed DBOS workflows of the night again, from the step that failed.

The list must be approved first. Earlier steps are not repeated, and a retry forks nothing twice.
Requires the extra `dbos`, and a connection to the system database of the DBOS program.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import DAG, Param

from airflow_provider_lakets.dbos.operators import DBOSForkOperator, DBOSListWorkflowsOperator
from airflow_provider_lakets.dbos.sensor import DBOSWorkflowSensor

DAY = "{{ dag_run.run_after.strftime('%Y-%m-%d') }}"

with DAG(
    "dbos_refork",
    schedule=None,
    start_date=datetime(2025, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    tags=["dbos"],
    doc_md=__doc__,
    params={
        "step": Param(2, type=["integer", "string"], description="Number or name of the step that failed"),
        "after": Param("03:00", type="string", description="Only workflows created from this time on, UTC"),
        "before": Param("05:00", type="string", description="Only workflows created until this time, UTC"),
    },
    default_args={"retries": 2, "retry_delay": timedelta(minutes=1)},
):
    failed = DBOSListWorkflowsOperator(
        task_id="failed",
        status="ERROR",
        created_after=f"{DAY}T{{{{ params.after }}}}",
        created_before=f"{DAY}T{{{{ params.before }}}}",
        failed_in_step="{{ params.step }}",
    )

    # A rejection skips the rest.
    approved = ApprovalOperator(
        task_id="approve",
        subject="Run these DBOS workflows again from the step that failed?",
        body="{{ ti.xcom_pull(task_ids='failed') | map(attribute='workflow_id') | join(', ') or 'none' }}",
    )

    # From the step that failed, which is the default of start_step.
    fork = DBOSForkOperator.partial(task_id="fork").expand(workflow_id=failed.output)

    wait = DBOSWorkflowSensor.partial(task_id="wait", poke_interval=10).expand(workflow_id=fork.output)

    failed >> approved >> fork
