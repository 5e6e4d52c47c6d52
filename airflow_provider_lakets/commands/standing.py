"""What needs attention, as checks of `lakets doctor`: in the words of the page, and as bad."""

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

# The feed has a check of its own, which waits for it.
CODES = {
    "repairs": ("repair", "repairs-unknown"),
    "chunks": ("table-changed", "no-chunks-ahead", "rows-outside-chunks", "chunks-left", "busy"),
    "policies": ("tiering-without-feed", "retention-before-tiering", "chunk-longer-than-policy"),
    "RollUps": ("rollup-refused", "rollup-late"),
    "jobs": ("job-failed", "job-contended", "chunks-unproved"),
}
FINE = {
    "repairs": "none is needed",
    "chunks": "made ahead for each table, and no row lies outside them",
    "policies": "none contradicts another",
    "RollUps": "none is late",
    "jobs": "none failed when it ran last",
}
# A note is worth a line, and nothing is wrong.
VERDICTS = {"fail": "fail", "warn": "warn", "info": "ok", None: "ok"}


class Standing:
    """Looks once, when the first check asks."""

    def __init__(self, hook: LakeTSHook) -> None:
        self._hook = hook

    @cached_property
    def snapshot(self) -> Snapshot:
        """What there is."""
        return gather(self._hook)

    @cached_property
    def _attention(self) -> list[Attention]:
        return needs_attention(self.snapshot)

    def of(self, *codes: str) -> list[Attention]:
        """Return what needs attention of some kinds."""
        return [one for one in self._attention if one.code in codes]

    def check(self, name: str) -> Finding:
        """Say what was found of one of the groups of ``CODES``."""
        found = self.of(*CODES[name])
        return summed_up(found) if found else Finding("", "ok", FINE[name])

    def repairs(self) -> Finding:
        """Say what is left to mend, for instance after an upgrade, with the statements that do."""
        if self._hook.is_older():
            return Finding("", "ok", "not looked for in LakeTS 0.1.x")
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
    """Return one finding, as bad as the worst: what is alike once, and all of it in details."""
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
