"""The checks of `lakets doctor` for the problems that the page shows."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from airflow_provider_lakets.commands.findings import Finding
from airflow_provider_lakets.monitoring.attention import needs_attention
from airflow_provider_lakets.monitoring.data import Snapshot, gather
from airflow_provider_lakets.monitoring.finding import grouped, in_words, worst
from airflow_provider_lakets.monitoring.of_tables import DOCTOR

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from airflow_provider_lakets.hooks.lakets import LakeTSHook
    from airflow_provider_lakets.monitoring.finding import Attention

# The feed has a separate check, which waits for it.
CODES = {
    "repairs": ("repair", "repairs-unknown"),
    "chunks": ("table-changed", "no-chunks-ahead", "rows-outside-chunks", "chunks-left", "busy"),
    "policies": ("tiering-without-feed", "retention-before-tiering", "chunk-longer-than-policy"),
    "RollUps": ("rollup-refused", "rollup-late"),
    "jobs": ("job-failed", "job-contended", "chunks-unproved"),
}
FINE = {
    "repairs": "none is needed",
    "chunks": "created ahead for each table, and no row lies outside them",
    "policies": "none contradicts another",
    "RollUps": "none is late",
    "jobs": "no last run failed",
}
# A note is shown, but does not count as a warning.
VERDICTS = {"fail": "fail", "warn": "warn", "info": "ok", None: "ok"}


class Standing:
    """Read the problems once, at the first check that needs them."""

    def __init__(self, hook: LakeTSHook) -> None:
        self._hook = hook

    @cached_property
    def snapshot(self) -> Snapshot:
        """The snapshot of the database."""
        return gather(self._hook)

    @cached_property
    def _attention(self) -> list[Attention]:
        return needs_attention(self.snapshot)

    def of(self, *codes: str) -> list[Attention]:
        """Return the problems with these codes."""
        return [one for one in self._attention if one.code in codes]

    def check(self, name: str) -> Finding:
        """Return the finding for a group of ``CODES``."""
        found = self.of(*CODES[name])
        return summed_up(found) if found else Finding("", "ok", FINE[name])

    def repairs(self) -> Finding:
        """Return the pending repairs, for instance after an upgrade, with their statements."""
        if self._hook.is_older():
            return Finding("", "ok", "not checked in LakeTS 0.1.x")
        found = self.of(*CODES["repairs"])
        remedies = [one.remedy.partition("; or ") for one in found if one.remedy]
        other = dict.fromkeys(other for _, _, other in remedies if other)
        if not remedies:
            return self.check("repairs")
        statements = [f"{first};" if other else first for first, _, other in remedies]
        return summed_up(found, advice="; or ".join(other), statements=statements)


def summed_up(
    found: Iterable[Attention], *, advice: str | None = None, statements: Sequence[str] = ()
) -> Finding:
    """Return one finding with the highest severity; its details list each of the problems."""
    groups = grouped(found)
    ordered = [one for group in groups for one in group]
    if advice is None:
        advice = " ".join(dict.fromkeys(one.advice.removesuffix(DOCTOR).rstrip() for one in ordered))
    return Finding(
        "",
        VERDICTS[worst(ordered)],
        "; ".join(in_words(group) for group in groups),
        advice,
        statements,
        [f"{one.subject}: {one.said}" for one in ordered],
    )
