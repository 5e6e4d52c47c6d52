"""The files of the SQL engine: their directory, their order, and the install as one script."""

from __future__ import annotations

import hashlib
from pathlib import Path

import airflow_provider_lakets

_PACKAGE = Path(airflow_provider_lakets.__file__).parent


def sql_dir() -> Path:
    """
    Return the folder of the SQL modules: in the installed package, or next to it in a checkout.

    :raises FileNotFoundError: if neither exists, which means a broken install.
    """
    if (inside := _PACKAGE / "sql").is_dir():
        return inside
    # An installed package is next to other packages, one of which may be called sql.
    beside = _PACKAGE.parent / "sql"
    if (_PACKAGE.parent / "pyproject.toml").is_file() and beside.is_dir():
        return beside
    raise FileNotFoundError(
        f"The LakeTS SQL modules are missing: {inside} does not exist, and {beside} is not in a checkout. "
        "Reinstall airflow-provider-lakets."
    )


def migrations() -> list[Path]:
    """Return the migration files, which run once per database, in this order."""
    return sorted((sql_dir() / "migrations").glob("*.sql"))


def modules() -> list[Path]:
    """Return the files that define functions; every install replaces all, in this order."""
    return sorted(sql_dir().glob("*.sql"))


def _literal(text: str) -> str:
    """Quote a text as a dollar-quoted SQL literal whose tag the text does not contain."""
    tag = f"$lakets_{hashlib.sha256(text.encode()).hexdigest()[:8]}$"
    return f"{tag}{text}{tag}"


def _guarded(migration: Path) -> str:
    """Wrap a migration so that it runs only if its name is not yet recorded."""
    name = migration.stem
    lines = [
        "DO $migration$",
        "BEGIN",
        f"    INSERT INTO lakets.migration (name) VALUES ('{name}') ON CONFLICT DO NOTHING;",  # noqa: S608 - a file's name
        "    IF FOUND THEN",
        f"        EXECUTE {_literal(migration.read_text(encoding='utf-8'))};",
        "    END IF;",
        "END",
        "$migration$;",
    ]
    return "\n".join(lines)


def install_script() -> str:
    """
    Return the whole install as one SQL script without psql meta-commands.

    It is a single transaction that waits for any other installer, and is safe to run on an empty
    database, over an older LakeTS, and again.
    """
    schema, *functions = modules()
    parts = [
        f"-- LakeTS for Lakebase Postgres, version {airflow_provider_lakets.__version__}",
        "-- Safe to run again; runs as one transaction.",
        "BEGIN;",
        "SET LOCAL client_min_messages = warning;",
        f"SET LOCAL lakets.version = '{airflow_provider_lakets.__version__}';",
        "SELECT pg_advisory_xact_lock(hashtext('lakets'), 0);",
        f"-- {schema.name}\n{schema.read_text(encoding='utf-8')}",
        *(_guarded(path) for path in migrations()),
        *(f"-- {path.name}\n{path.read_text(encoding='utf-8')}" for path in functions),
        "COMMIT;",
        "",
    ]
    return "\n".join(parts)
