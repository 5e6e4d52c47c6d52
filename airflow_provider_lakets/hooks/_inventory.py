"""List the objects in a LakeTS database, and install LakeTS."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_provider_lakets import __version__
from airflow_provider_lakets.exceptions import (
    LakeTSArgumentError,
    LakeTSContendedError,
    LakeTSError,
    LakeTSNotInstalledError,
    LakeTSPrivilegeError,
)
from airflow_provider_lakets.hooks._contract import LakeTSContract
from airflow_provider_lakets.hooks._outcomes import failure
from airflow_provider_lakets.hooks.functions.rows import natural, record, several, unquoted
from airflow_provider_lakets.hooks.results import (
    ChronoTable,
    FeedStatus,
    InstallResult,
    JobResult,
    Rollup,
    Status,
    TierCandidate,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import psycopg

IS_GONE = """
SELECT lakets._identity_problem(reg) IS NOT NULL AS is_gone
  FROM lakets._chronotable_registry AS reg WHERE reg.id = %(id)s
"""

TABLES = """
SELECT tab.id, tab.schema_name, tab.table_name, tab.time_column, tab.chunk_interval, tab.sync_enabled,
       tab.shadow_table_name,
       ARRAY(SELECT pol.policy_type FROM lakets._policy_registry AS pol
              WHERE pol.chronotable_id = tab.id AND pol.enabled ORDER BY pol.policy_type) AS policies
  FROM lakets._chronotable_registry AS tab
 WHERE %(names)s::text[] IS NULL OR tab.schema_name || '.' || tab.table_name = ANY (%(names)s)
"""

# CREATE OR REPLACE FUNCTION and ALTER TABLE need the owner or a member of the owning role.
OWNER = """
SELECT pg_catalog.pg_get_userbyid(cls.relowner) AS owner, current_user AS role
  FROM pg_catalog.pg_class AS cls
 WHERE cls.oid = pg_catalog.to_regclass('lakets._version')
   AND NOT pg_catalog.pg_has_role(cls.relowner, 'USAGE')
"""

# How many names an error lists.
LISTED = 20

ROLLUPS = """
SELECT rol.name, rol.bucket_interval, rol.refresh_lag, rol.watermark, rol.last_refreshed_at,
       tab.schema_name || '.' || tab.table_name AS source,
       ARRAY(SELECT dep.name FROM lakets._rollup_registry AS dep
              WHERE dep.id = ANY (rol.depends_on) ORDER BY dep.name) AS depends_on
  FROM lakets._rollup_registry AS rol
  LEFT JOIN lakets._chronotable_registry AS tab ON tab.id = rol.source_chronotable_id
"""

#: The tables that an install over an older version has left something to do on, chunk by chunk.
TO_GUARD = """
SELECT tab.schema_name, tab.table_name, part.chunks
  FROM lakets._chronotable_registry AS tab
 CROSS JOIN LATERAL (
       SELECT cls.oid
         FROM pg_catalog.pg_class AS cls
         JOIN pg_catalog.pg_namespace AS nsp ON nsp.oid = cls.relnamespace
        WHERE nsp.nspname = tab.schema_name AND cls.relname = tab.table_name) AS rel
 CROSS JOIN LATERAL (
       SELECT cardinality(lakets._unguarded_partitions(rel.oid) || lakets._older_guards(rel.oid))
       ) AS part (chunks)
 WHERE part.chunks > 0 OR EXISTS (SELECT FROM lakets._older_triggers(ARRAY[rel.oid::regclass]))
 ORDER BY tab.id
"""

VERSION = "SELECT version FROM lakets._version ORDER BY installed_at DESC LIMIT 1"


class LakeTSInventory(LakeTSContract):
    """Base of LakeTSHook: lists and status from the registries, and the install."""

    def chronotables(
        self,
        names: Iterable[str] | None = None,
        *,
        policy: str | None = None,
        left_out: list[JobResult] | None = None,
    ) -> list[ChronoTable]:
        """
        List the ChronoTables: the given ones in their order, or all, sorted by name.

        :param names: Only these, as ``schema.table``, or ``table`` for one in schema public; with
            or without the quotes of SQL.
        :param policy: Only tables with this policy: ``tiering`` or ``retention``. Tiered retention
            counts as both.
        :param left_out: A list to which a name of no ChronoTable is added, as failed, if there are
            others. Without it, such a name is an error.
        """
        found = self._to_do(names)
        for wrong in [name for name, table in found if table is None]:
            if left_out is None:
                self._unknown(wrong)
            left_out.append(JobResult(wrong, **failure(self._unknown_error(wrong))))
        tables = [table for _, table in found if table is not None]
        wanted = {policy, "tiered_retention"}
        return [table for table in tables if policy is None or wanted & {*table.policies}]

    def _look_up(self, names: Iterable[str] | None) -> list[tuple[str, ChronoTable | None]]:
        """Return the given ChronoTables, or all, with their names; None for a name of no table."""
        if names is None:
            tables = sorted(self._tables(None), key=lambda table: natural(table.name))
            return [(table.name, table) for table in tables]
        names = several(names)
        spelt = {name: [name, f"public.{name}", unquoted(name), f"public.{unquoted(name)}"] for name in names}
        known = {table.name: table for table in self._tables([*chain.from_iterable(spelt.values())])}
        found = [(name, next((known[one] for one in spelt[name] if one in known), None)) for name in names]
        return [(table.name if table else name, table) for name, table in found]

    def _to_do(self, names: Iterable[str] | None) -> list[tuple[str, ChronoTable | None]]:
        """Return the same for a job, which reports a wrong name; refuse it if it is alone."""
        found = self._look_up(names)
        if [table for _, table in found] == [None]:
            self._unknown(found[0][0])
        return found

    def _tables(self, names: list[str] | None) -> list[ChronoTable]:
        rows = self.query(TABLES, {"names": names}, doing="Listing the ChronoTables")
        return [record(ChronoTable, row) for row in rows]

    def _unknown(self, name: str) -> NoReturn:
        raise self._unknown_error(name)

    def _unknown_error(self, name: str) -> LakeTSArgumentError:
        return LakeTSArgumentError(
            f"{unquoted(name)!r} is not a ChronoTable over connection {self.get_conn_id()!r}; there are: "
            f"{_listed(table.name for table in self._tables(None))}. Name it schema.table, or make it one "
            "with lakets.create_chronotable."
        )

    def rollups(self) -> list[Rollup]:
        """List the RollUps with the names of those that each reads."""
        rows = self.query(ROLLUPS, doing="Listing the RollUps")
        return sorted((record(Rollup, row) for row in rows), key=lambda rollup: natural(rollup.name))

    def _known_rollups(self, name: str | None) -> list[Rollup]:
        """List the RollUps; a given name must be among them."""
        rollups = self.rollups()
        if name is not None and name not in {rollup.name for rollup in rollups}:
            raise LakeTSArgumentError(
                f"RollUp {name!r} does not exist over connection {self.get_conn_id()!r}; there are: "
                f"{_listed(rollup.name for rollup in rollups)}. Correct the name, or create it with "
                "lakets.create_rollup."
            )
        return rollups

    def tier_candidates(
        self, tables: Iterable[str] | None = None, *, left_out: list[JobResult] | None = None
    ) -> list[TierCandidate]:
        """
        List the chunks that are due for tiering, table by table, oldest first.

        :param tables: Only of these ChronoTables; None for all that have a tiering policy, except
            those that were dropped or replaced by hand: an error is logged for each.
        :param left_out: A list to which a given table that does not exist, or was dropped or
            replaced by hand, is added, as failed. Without it, such a table is an error.
        """
        is_named = tables is not None
        with self.session():
            return [
                candidate
                for table in self.chronotables(tables, policy="tiering", left_out=left_out)
                for candidate in self._candidates_of(table, left_out, is_named=is_named)
            ]

    def _candidates_of(
        self, table: ChronoTable, left_out: list[JobResult] | None, *, is_named: bool
    ) -> list[TierCandidate]:
        try:
            return self.get_chunks_to_tier(table.table_name, schema_name=table.schema_name)
        except LakeTSArgumentError as err:
            if (is_named and left_out is None) or not self._is_gone(table):
                raise
            if is_named and left_out is not None:
                left_out.append(JobResult(table.name, **failure(err)))
                return []
            self.log.error("%s is left out, the others are tiered: %s", table.name, err)  # noqa: TRY400 - the trace says nothing more
            return []

    def _is_gone(self, table: ChronoTable) -> bool:
        """Return whether a table was dropped or replaced by hand."""
        if self.is_older():
            return False
        (row,) = self.query(IS_GONE, {"id": table.id}, doing=f"Looking for {table.name}")
        return bool(row["is_gone"])

    def version(self) -> str | None:
        """Return the version of LakeTS in the database, or None if there is none."""
        try:
            rows = self.query(VERSION, doing="Reading the version of LakeTS")
        except LakeTSNotInstalledError:
            return None
        return str(rows[0]["version"]) if rows else None

    def status(self) -> Status:
        """Return what `lakets status` shows; a locked table is listed as busy."""
        with self.session():
            tables = self.chronotables()
            feeds, busy = self.feeds(tables)
            return Status(self.version(), tables, self.chunk_health(), feeds, self.rollups(), busy)

    def feeds(self, tables: Iterable[ChronoTable]) -> tuple[list[FeedStatus], list[str]]:
        """
        Show the progress of tiering and the change feed for each table.

        :param tables: The tables.
        :return: The status of each, and the names of the tables that another session has locked.
        """
        with self.session():
            looks = {table.name: self._feed_unless_locked(table) for table in tables}
        found = [feed for look in looks.values() for feed in look or ()]
        return found, [name for name, look in looks.items() if look is None]

    def _feed_unless_locked(self, table: ChronoTable) -> list[FeedStatus] | None:
        try:
            return self.show_tiering_status(table.table_name, schema_name=table.schema_name, wait_again=False)
        except LakeTSContendedError:
            return None
        except LakeTSArgumentError:
            if self._is_gone(table):
                return []  # what needs attention names it
            raise

    def install(self, *, on_progress: Callable[[int, int, str], None] | None = None) -> InstallResult:
        """
        Install or upgrade LakeTS in one transaction; a second installer waits for the first.

        Over LakeTS 0.1.x, chunks that did not fit into that transaction are guarded in batches
        afterwards. If this is interrupted, the next install continues. A role that does not own
        LakeTS cannot replace it; if the version is the same, it changes nothing.

        :param on_progress: Called after each batch with the number of chunks guarded, the number to
            guard, and what is being done.
        """
        from airflow_provider_lakets.engine import install_script

        script = install_script().encode()
        notes: list[str] = []

        def note(said: psycopg.errors.Diagnostic) -> None:
            if said.severity_nonlocalized in ("WARNING", "INFO"):
                notes.append(" ".join(part for part in (said.message_primary, said.message_hint) if part))

        def run(conn: psycopg.Connection[Any]) -> None:
            notes.clear()
            conn.add_notice_handler(note)
            # Without parameters psycopg sends a script unchanged, and the script has its own BEGIN
            # and COMMIT. If it fails, the session is in a failed transaction and is not reused.
            try:
                conn.execute(script)
            finally:
                conn.remove_notice_handler(note)

        with self.session():
            before = self.version()
            if owner := self._foreign_owner():
                return self._leave_installed(before, owner)
            self.run_in_session(run, doing="Installing LakeTS")
            self._arguments = None
            after = self.version()
            if after is None:
                raise LakeTSError("The install ran, but recorded no version in lakets._version.")
            notes = [note for note in notes if "lakets.guard_chunks" not in note]
            notes += self._guard_all_chunks(on_progress)
        self.log.info("LakeTS is now at version %s; before: %s", after, before)
        for text in notes:
            self.log.info("%s", text)
        return InstallResult(before, after, notes)

    def _guard_all_chunks(self, on_progress: Callable[[int, int, str], None] | None) -> list[str]:
        """Guard chunks as this version does, in batches; return what is left as text."""
        left, done = [], 0
        tables = self.query(TO_GUARD, doing="Looking up the chunks to guard")
        total = sum(table["chunks"] for table in tables)
        for table in tables:
            schema_name, table_name, chunks = table["schema_name"], table["table_name"], table["chunks"]
            name = f"{schema_name}.{table_name}"
            try:
                while guarded := self.guard_chunks(table_name, schema_name=schema_name):
                    chunks -= guarded
                    done += guarded
                    self.log.info("Guarded %d chunks of %s, %d to go", guarded, name, chunks)
                    if on_progress is not None:
                        on_progress(min(done, total), total, f"Guarding the chunks of {name}")
            except LakeTSContendedError as err:
                if chunks > 0:
                    left.append(
                        f"ChronoTable {name}: {chunks} chunks are not guarded as this version does it, since "
                        f"somebody is writing them ({err}). Run `lakets install` again; the tiering and "
                        "retention jobs also guard what can be written directly before they take it."
                    )
        return left

    def _foreign_owner(self) -> dict[str, Any] | None:
        """Return the owner of LakeTS and the session's role, or None if the role may replace it."""
        rows = self.query(OWNER, doing="Looking up who owns LakeTS")
        return rows[0] if rows else None

    def _leave_installed(self, version: str | None, owner: dict[str, Any]) -> InstallResult:
        if version != __version__:
            raise LakeTSPrivilegeError(
                f"Installing LakeTS over connection {self.get_conn_id()!r}: the LakeTS in this database "
                f"(version {version or 'unknown'}) belongs to role {owner['owner']!r}, and role "
                f"{owner['role']!r} cannot upgrade it to version {__version__}. Run the install as "
                f"{owner['owner']!r}, or as a member of it."
            )
        self.log.info("LakeTS %s of role %s is already installed", version, owner["owner"])
        return InstallResult(version, version)


def _listed(names: Iterable[str]) -> str:
    first, more = (all_names := list(names))[:LISTED], len(all_names) - LISTED
    return ", ".join([*first, *([f"and {more} more"] if more > 0 else [])]) or "none"
