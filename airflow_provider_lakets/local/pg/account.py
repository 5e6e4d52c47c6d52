"""The account that runs the server: Postgres refuses root, so there it has its own account."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
from typing import TYPE_CHECKING

from airflow_provider_lakets.exceptions import LakeTSError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_NAME = "pgserver"

# The right to pass folders that are closed to others. Postgres looks for its programs with
# access(2), which heeds that right only without the fix-up.
_PASS = ("--securebits=+no_setuid_fixup", "--inh-caps=+dac_override", "--ambient-caps=+dac_override")


class AccountError(LakeTSError):
    """The server has nobody to run as, or cannot get to its files."""


class Account:
    """
    The account that owns the server's files: the current one, or ``pgserver`` for root.

    Folders above the server's own stay as they are. Where ``pgserver`` may not enter one of them,
    such as ``/root``, its programs get the right to pass (CAP_DAC_OVERRIDE), which root has to
    give.
    """

    def __init__(self) -> None:
        self._is_root = os.geteuid() == 0
        self.user = _of_server() if self._is_root else _own()

    def give(self, path: Path) -> None:
        """Make a file or folder the server's, and nobody else's."""
        path.chmod(0o700 if path.is_dir() else 0o600)
        if self._is_root:
            os.chown(path, self.user.pw_uid, self.user.pw_gid)

    def make_private(self, folder: Path) -> None:
        """
        Make a folder that is the server's and nobody else's; one that is there stays as it is.

        :raises AccountError: if what is there belongs to somebody else.
        """
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir(mode=0o700)
        except FileExistsError:
            owners = (self.user.pw_uid, os.geteuid())
            if not folder.is_dir() or folder.lstat().st_uid not in owners:
                raise AccountError(
                    f"{folder} is there already, and is not a folder of {self.user.pw_name}. Name another."
                ) from None
        except OSError as err:
            raise AccountError(f"The folder {folder} cannot be made: {err.strerror}. Name another.") from err
        else:
            self.give(folder)

    def command(self, command: list[str], paths: Iterable[Path]) -> list[str]:
        """
        Return a command as this account runs it.

        :param paths: What it must get to.
        """
        if not self._is_root:
            return command
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            raise AccountError(
                "Postgres does not run as root, and setpriv, which runs it as another, is missing. "
                "Install util-linux, or start the local Lakebase as another user."
            )
        passing: tuple[str, ...] = () if all(map(self._may_enter, paths)) else _PASS
        return [
            setpriv,
            f"--reuid={self.user.pw_uid}",
            f"--regid={self.user.pw_gid}",
            "--clear-groups",
            *passing,
            *command,
        ]

    def _may_enter(self, path: Path) -> bool:
        """Return whether the folders above let the account through."""
        for folder in path.resolve().parents:
            found = folder.stat()
            bit = stat.S_IXUSR if found.st_uid == self.user.pw_uid else stat.S_IXOTH
            if not found.st_mode & bit:
                return False
        return True


def _own() -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(os.geteuid())
    except KeyError:
        raise AccountError(
            f"Postgres runs only as an account with a name, and user id {os.geteuid()} has none in "
            "/etc/passwd. Start the local Lakebase as another user; in a container, as one of its image."
        ) from None


def _of_server() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(_NAME)
    except KeyError:
        make = [
            "useradd",
            "--system",
            "--user-group",
            "--no-create-home",
            "--shell",
            "/usr/sbin/nologin",
            _NAME,
        ]
        try:
            subprocess.run(make, check=True, capture_output=True, encoding="utf-8")
        except (OSError, subprocess.CalledProcessError) as err:
            raise AccountError(
                f"Postgres does not run as root, and the account {_NAME} for it could not be made: "
                f"{getattr(err, 'stderr', None) or err}. Start the local Lakebase as another user."
            ) from err
        return pwd.getpwnam(_NAME)
