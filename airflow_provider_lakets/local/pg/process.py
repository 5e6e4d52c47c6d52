"""The processes of a cluster's server: create, start, share, stop, and clean up after a crash."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import os
import pwd
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import psutil

from airflow_provider_lakets.exceptions import LakeTSError
from airflow_provider_lakets.local.pg.account import Account
from airflow_provider_lakets.local.pg.binaries import VERSIONS, bin_dir
from airflow_provider_lakets.local.processes import FileLock, end_process, is_alive, open_log

if TYPE_CHECKING:
    from collections.abc import Iterable

SOCKET = ".s.PGSQL.5432"

_ORPHANS_SECONDS = 10.0
_READY_SECONDS = 120
# A fast shutdown ends every session and writes a checkpoint. An immediate shutdown leaves recovery
# to the next start: nothing is lost, and nobody waits for a slow disk.
_WAYS_TO_STOP = ((signal.SIGINT, 2.5), (signal.SIGQUIT, 6.0), (signal.SIGKILL, 6.0))

_INITDB = ("--username=postgres", "--encoding=UTF8", "--locale=C", "--auth=peer")
_BASEBACKUP = ("--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast")
_CONF = "lakets.conf"  # written at each start, because the folder may have been moved
_USERS = ".users.json"  # the processes that use the server
_LOG_TAIL_LINES = 20

# Only the accounts in pg_ident.conf may log in, as any role: they are superusers anyway.
_HBA = """\
local all all peer map=us
local replication all peer map=us
"""

# Other paths are too long for a socket, or have another meaning for Postgres or libpq.
_SOCKET_FOLDER = re.compile(r"/[\w./~+=-]{1,80}", re.ASCII)


class ServerError(LakeTSError):
    """The embedded server cannot be created or started."""


class Server:
    """
    The server of one cluster. The processes that start it share it; it stops with the last of them.

    Only the account of those processes can connect: folder and socket are private, and the server
    uses peer authentication.

    :param data_dir: The folder of the cluster, without symbolic links.
    :param version: Postgres major version.
    """

    _here: ClassVar[dict[Path, Server]] = {}

    def __init__(self, data_dir: Path, *, version: int) -> None:
        self.data_dir = data_dir
        self.keep_running = False
        self.uses = 0  # in this process
        self._bin = bin_dir(version)
        self._version = version
        self._account = Account()
        self._lock = FileLock(data_dir.parent / f".{data_dir.name}.lock")

    @classmethod
    def of(cls, data_dir: Path, *, version: int) -> Server:
        """Return the one object that this process has for a folder."""
        data_dir = data_dir.resolve()
        server = cls._here.get(data_dir)
        if server is None or not server.uses:
            server = cls._here[data_dir] = cls(data_dir, version=version)
        server._check_version(version)
        return server

    def start(self, settings: str, *, follows: str | None = None) -> None:
        """
        Create the cluster and start the server if necessary, and use it until :meth:`leave`.

        :param settings: Lines of ``postgresql.conf``, for a new cluster.
        :param follows: Connection string of the server that a new cluster is a hot standby of.
        """
        self._account.make_private(self.data_dir.parent)
        with self._lock:
            clean_up(self.data_dir)
            if not (self.data_dir / "PG_VERSION").exists():
                self._make(settings, follows)
            if not _running(self.data_dir):
                self._run()
            _write_users(self.data_dir, {*forget_dead_users(self.data_dir), os.getpid()})
        self.uses += 1
        atexit.register(self._leave)

    def leave(self) -> None:
        """Stop using the server; it stops unless others use it or ``keep_running`` is set."""
        self.uses -= 1
        if not self.uses:
            atexit.unregister(self._leave)
            self._leave()

    def _leave(self) -> None:
        with self._lock:
            if self.data_dir.exists():
                # Killed processes do not count as users.
                left = {*forget_dead_users(self.data_dir)} - {os.getpid()}
                _write_users(self.data_dir, left)
                if not left and not self.keep_running:
                    self._stop()

    def _stop(self) -> None:
        socket_dir = self.socket_dir
        stop_server(self.data_dir)
        if socket_dir != self.data_dir:
            with contextlib.suppress(OSError):  # gone, or not empty
                socket_dir.rmdir()

    @property
    def socket_dir(self) -> Path:
        """The folder of the Unix socket."""
        if not _SOCKET_FOLDER.fullmatch(str(self.data_dir)):
            name = hashlib.sha256(os.fsencode(self.data_dir)).hexdigest()[:12]
            return Path(tempfile.gettempdir()) / f"lakets-{self._account.user.pw_uid}-{name}"
        return self.data_dir

    def _check_version(self, version: int) -> None:
        kept = self.data_dir / "PG_VERSION"
        if kept.exists() and (found := kept.read_text(encoding="utf-8").strip()) != str(version):
            raise ServerError(
                f"Version mismatch: Postgres {version} was requested, but {self.data_dir} was created by "
                f"{found}. Request that version, or another folder."
            )

    def _make(self, settings: str, follows: str | None) -> None:
        """Create the cluster under another name first, so that a partial one is never used."""
        fresh = self.data_dir.with_name(f".{self.data_dir.name}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        self._account.make_private(fresh)
        if follows is None:
            self._call("initdb", *_INITDB, data_dir=fresh)
            (fresh / "pg_hba.conf").write_text(_HBA, encoding="utf-8")
            names = {pwd.getpwuid(os.geteuid()).pw_name, self._account.user.pw_name}
            (fresh / "pg_ident.conf").write_text("".join(map(_mapped, sorted(names))), encoding="utf-8")
        else:
            places = (f"--pgdata={fresh}", f"--dbname={follows}")
            self._call("pg_basebackup", *_BASEBACKUP, *places, data_dir=fresh)
            for name in (_USERS, f"{SOCKET}.lock"):  # they belong to the other server
                (fresh / name).unlink(missing_ok=True)
        with (fresh / "postgresql.conf").open("a", encoding="utf-8") as conf:
            conf.write(settings)
        if self.data_dir.exists():
            self.data_dir.rmdir()  # an empty folder that somebody made for it
        fresh.rename(self.data_dir)

    def _run(self) -> None:
        if self.socket_dir != self.data_dir:
            self._account.make_private(self.socket_dir)
        conf = self.data_dir / _CONF
        conf.write_text(
            "listen_addresses = ''\n"
            f"unix_socket_directories = '{self.socket_dir}'\n"
            "unix_socket_permissions = 0700\n",
            encoding="utf-8",
        )
        self._account.give(conf)
        main = self.data_dir / "postgresql.conf"
        if f"include '{_CONF}'" not in main.read_text(encoding="utf-8"):
            with main.open("a", encoding="utf-8") as out:
                out.write(f"include '{_CONF}'\n")
        # The command line identifies the server where its working folder cannot be read.
        options = f"-D {shlex.quote(str(self.data_dir))}"
        wait = ("--silent", "--wait", f"--timeout={_READY_SECONDS}")
        self._call("pg_ctl", "start", *wait, f"--options={options}", data_dir=self.data_dir)

    def _call(self, program: str, *arguments: str, data_dir: Path) -> None:
        """Run a program of Postgres; its output goes to the log of the server."""
        found = self._bin / program
        if not found.exists():  # Postgres 17 comes with the server only; newer clients know older servers
            found = bin_dir(max(VERSIONS)) / program
        command = [str(found), *arguments]
        # pg_ctl would pass a folder argument to a shell unquoted; it only reads this variable.
        environ = {**os.environ, "PGDATA": str(data_dir)}
        log_file = data_dir.with_name(f"{data_dir.name.removeprefix('.').removesuffix('.new')}.log")
        with open_log(log_file) as log:
            done = subprocess.run(
                self._account.command(command, [found, data_dir / "PG_VERSION"]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environ,
                cwd="/",
                check=False,
            )
        if done.returncode:
            tail = log_file.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_TAIL_LINES:]
            raise ServerError("\n".join([f"{program} failed for {data_dir}; the end of {log_file}:", *tail]))


def _mapped(account: str) -> str:
    """Return the line of pg_ident.conf that lets an account log in as any role."""
    return 'us "{}" all\n'.format(account.replace('"', '""'))


def stop_server(data_dir: Path) -> None:
    """Stop the server in a folder, even if it is used; do nothing if none runs."""
    end_process(_running(data_dir), _WAYS_TO_STOP)


def stop_abandoned_server(data_dir: Path) -> None:
    """Stop a server without users: the processes that used it were killed."""
    if _running(data_dir) and not forget_dead_users(data_dir):
        stop_server(data_dir)


def clean_up(data_dir: Path) -> None:
    """
    Clean up after processes that were killed.

    Another process that now has the old server's id is ignored (ids start over in a container). A
    server that is starting or stopping is waited for. Users that have ended are removed.
    """
    _wait_until_settled(data_dir)
    pid_file = data_dir / "postmaster.pid"
    if not _running(data_dir):
        # Sessions outlive a killed server for a moment. The file keeps a new server from starting.
        deadline = time.monotonic() + _ORPHANS_SECONDS
        while pid_file.exists() and any(_runs_in(pid, data_dir) for pid in psutil.pids()):
            if time.monotonic() > deadline:
                raise ServerError(f"Sessions of a dead server still run in {data_dir}; end them.")
            time.sleep(0.05)
        with contextlib.suppress(FileNotFoundError, IndexError):
            # Postgres respects the lock file of any process that exists, even of a zombie or an
            # unrelated process.
            socket_dir = pid_file.read_text(encoding="utf-8").splitlines()[4]
            Path(socket_dir, f"{SOCKET}.lock").unlink()
        pid_file.unlink(missing_ok=True)
        (data_dir / _USERS).unlink(missing_ok=True)  # a server that does not run has no users
    forget_dead_users(data_dir)


def forget_dead_users(data_dir: Path) -> list[int]:
    """Remove ended processes from the list of users, and return the others."""
    users = data_dir / _USERS
    if not users.exists():
        return []
    alive = [pid for pid in json.loads(users.read_text(encoding="utf-8") or "[]") if is_alive(pid)]
    _write_users(data_dir, alive)
    return alive


def _write_users(data_dir: Path, pids: Iterable[int]) -> None:
    fresh = data_dir / f"{_USERS}.new"
    fresh.write_text(json.dumps(sorted(pids)), encoding="utf-8")
    Account().give(fresh)  # the server must read it for pg_basebackup
    fresh.replace(data_dir / _USERS)


def _wait_until_settled(data_dir: Path) -> None:
    """Wait for a server that is starting or stopping."""
    deadline = time.monotonic() + _READY_SECONDS
    while _running(data_dir) and _status(data_dir) != "ready":
        if time.monotonic() > deadline:
            raise ServerError(
                f"After {_READY_SECONDS:g} s the server in {data_dir} is still not ready; see {data_dir}.log."
            )
        time.sleep(0.05)


def _running(data_dir: Path) -> int:
    """Return the id of the server that runs in a folder, or 0."""
    try:
        head = (data_dir / "postmaster.pid").read_text(encoding="utf-8").partition("\n")[0]
    except FileNotFoundError:
        return 0
    pid = int(head) if head.isdigit() else 0
    return pid if _runs_in(pid, data_dir) else 0


def _status(data_dir: Path) -> str:
    with contextlib.suppress(FileNotFoundError):
        lines = (data_dir / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        return lines[7].strip() if len(lines) > 7 else ""
    return ""


def _runs_in(pid: int, data_dir: Path) -> bool:
    """Return whether a process runs in the data directory, as the server and its sessions do."""
    home = str(data_dir.resolve())
    try:
        if not is_alive(pid):
            return False
        process = psutil.Process(pid)
        try:
            return bool(process.cwd() == home)
        except psutil.AccessDenied:  # root in a container: the server runs as another user
            command = process.cmdline()
            return home in command or _is_orphan(process, " ".join(command))
    except psutil.Error:  # gone, or somebody else's
        return False


def _is_orphan(process: psutil.Process, title: str) -> bool:
    """Return whether a process is a session whose server is dead, even of another folder."""
    parent = process.parent()
    return title.startswith("postgres:") and (parent is None or parent.name() != "postgres")
