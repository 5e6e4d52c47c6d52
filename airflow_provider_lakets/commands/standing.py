"""What needs attention, as checks of `lakets doctor`, in the words of the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_lakets.commands.findings import Finding
from airflow_provider_lakets.monitoring.attention import needs_attention
from airflow_provider_lakets.monitoring.data import gather
from airflow_provider_lakets.monitoring.finding import ORDER, grouped, in_words

if TYPE_CHECKING:
    from airflow_provider_lakets.hooks.lakets import LakeTSHook
    from airflow_provider_lakets.monitoring.finding import Attention

# Feed and repairs have checks of their own, which look closer.
CODES = {
    "chunks": ("table-changed", "no-chunks-ahead", "rows-outside-chunks", "chunks-left", "busy"),
    "policies": ("tiering-without-feed", "retention-before-tiering", "chunk-longer-than-policy"),
    "RollUps": ("rollup-refused", "rollup-late"),
    "jobs": ("job-failed", "job-contended", "chunks-unproved"),
}
FINE = {
    "chunks": "made ahead for each table, and no row lies outside them",
    "policies": "none contradicts another",
    "RollUps": "none is late",
    "jobs": "none failed when it ran last",
}


class Standing:
    """Looks once, when the first check asks."""

    def __init__(self, hook: LakeTSHook) -> None:
        self._hook = hook
        self._attention: list[Attention] | None = None

    def check(self, name: str) -> Finding:
        """Say what was found of one of the groups of ``CODES``."""
        if self._attention is None:
            self._attention = needs_attention(gather(self._hook))
        groups = grouped(one for one in self._attention if one.code in CODES[name])
        if not groups:
            return Finding("", "ok", FINE[name])
        found = [one for group in groups for one in group]
        worst = min((one.severity for one in found), key=ORDER.__getitem__)
        return Finding(
            "",
            "fail" if worst == "fail" else "warn",
            "; ".join(in_words(group) for group in groups),
            " ".join(dict.fromkeys(one.advice for one in found)),
            details=[f"{one.subject}: {one.said}" for one in found],
        )
