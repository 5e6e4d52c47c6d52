"""Which failures are retried, and how soon."""

from __future__ import annotations

from datetime import timedelta

import pytest

pytest.importorskip("airflow.sdk.definitions.retry_policy", reason="Airflow has retry policies since 3.3")

from airflow.exceptions import AirflowNotFoundException  # type: ignore[attr-defined]
from airflow.sdk import RetryPolicy
from airflow.sdk.definitions.retry_policy import RetryAction, RetryDecision

from airflow_provider_lakets import exceptions
from airflow_provider_lakets.operators.rollups import LakeTSRollupRefreshOperator
from airflow_provider_lakets.retries import LakeTSRetryPolicy


def decide(error: BaseException, policy: LakeTSRetryPolicy | None = None) -> RetryDecision:
    return (policy or LakeTSRetryPolicy()).evaluate(error, try_number=1, max_tries=3)


@pytest.mark.parametrize("error", [*exceptions.PERMANENT, AirflowNotFoundException])
def test_what_no_retry_cures_fails_at_once_and_says_so(error: type[Exception]) -> None:
    decision = decide(error("no"))

    assert decision == RetryDecision.fail(f"{error.__name__}: a retry cannot fix this")


def test_contention_is_tried_again_soon() -> None:
    decision = decide(exceptions.LakeTSContendedError("busy"))

    assert (decision.action, decision.retry_delay) == (RetryAction.RETRY, timedelta(seconds=30))


@pytest.mark.parametrize("delay", [timedelta(minutes=2), None])
def test_how_soon_is_for_the_author_to_say(delay: timedelta | None) -> None:
    decision = decide(exceptions.LakeTSContendedError("busy"), LakeTSRetryPolicy(contended_delay=delay))

    assert decision.retry_delay == delay


def test_a_database_that_does_not_answer_is_tried_again_after_the_task_s_own_delay() -> None:
    decision = decide(exceptions.LakebaseConnectionError("asleep"))

    assert (decision.action, decision.retry_delay) == (RetryAction.RETRY, None)


@pytest.mark.parametrize(
    "error", [ValueError("x"), exceptions.LakeTSError("x"), exceptions.LakeTSPartialFailureError("x")]
)
def test_anything_else_is_left_to_the_task(error: Exception) -> None:
    assert decide(error) == RetryDecision.default()


def test_the_cause_of_an_error_decides_too() -> None:
    try:
        try:
            raise exceptions.LakeTSNotInstalledError("no LakeTS")
        except exceptions.LakeTSError as err:
            raise RuntimeError("the author's own") from err
    except RuntimeError as err:
        decision = decide(err)

    assert decision.action is RetryAction.FAIL


def test_operators_have_the_policy_unless_they_are_given_another() -> None:
    class Never(RetryPolicy):
        def evaluate(self, *_: object, **__: object) -> RetryDecision:
            return RetryDecision.fail()

    by_default = LakeTSRollupRefreshOperator(task_id="a")
    by_argument = LakeTSRollupRefreshOperator(task_id="b", retry_policy=Never())
    by_default_args = LakeTSRollupRefreshOperator(task_id="c", default_args={"retry_policy": Never()})

    kinds = [type(operator.retry_policy) for operator in (by_default, by_argument, by_default_args)]
    assert kinds == [LakeTSRetryPolicy, Never, Never]


@pytest.mark.parametrize("delay", [timedelta(minutes=2), None])
def test_policy_can_be_stored_and_made_again(delay: timedelta | None) -> None:
    stored = LakeTSRetryPolicy(contended_delay=delay).serialize()

    assert LakeTSRetryPolicy.deserialize(stored).contended_delay == delay
