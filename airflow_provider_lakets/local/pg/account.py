"""The account that runs the server: Postgres does not run as root, so root uses another account."""

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

# The capability to enter folders that are closed to others. Postgres looks for its programs with
# access(2), which respects the capability only without setuid fixup.
_CAPABILITY = ("--securebits=+no_setuid_fixup", "--inh-caps=+dac_override", "--ambient-caps=+dac_override")


class AccountError(LakeTSError):
    """There is no account to run the server, or it cannot reach its files."""


class Account:
    """
    The account that owns the server's files: the current one, or ``pgserver`` for root.

    The folders above the server's own stay unchanged. If ``pgserver`` may not enter one of them,
    such as ``/root``, root starts its programs with the capability CAP_DAC_OVERRIDE.
    """

    def __init__(self) -> None:
        self._is_root = os.geteuid() == 0
        self.user = _of_server() if self._is_root else _own()

    def give(self, path: Path) -> None:
        """Give a file or folder to the account, and close it to all others."""
        path.chmod(0o700 if path.is_dir() else 0o600)
        if self._is_root:
            os.chown(path, self.user.pw_uid, self.user.pw_gid)

    def make_private(self, folder: Path) -> None:
        """
        Create a folder that only the account can use; an existing folder stays unchanged.

        :raises AccountError: if it cannot be created, or exists and belongs to somebody else.
        """
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir(mode=0o700)
        except FileExistsError:
            owners = (self.user.pw_uid, os.geteuid())
            if not folder.is_dir() or folder.lstat().st_uid not in owners:
                raise AccountError(
                    f"{folder} already exists and is not a folder of {self.user.pw_name}. Choose another."
                ) from None
        except OSError as err:
            raise AccountError(
                f"The folder {folder} cannot be created: {err.strerror}. Choose another."
            ) from err
        else:
            self.give(folder)

    def command(self, command: list[str], paths: Iterable[Path]) -> list[str]:
        """
        Return the command line that runs a command as this account.

        :param paths: The files that the command must reach.
        """
        if not self._is_root:
            return command
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            raise AccountError(
                "Postgres does not run as root, and setpriv, which runs it as another user, is missing. "
                "Install util-linux, or start the local Lakebase as another user."
            )
        passing: tuple[str, ...] = () if all(map(self._may_enter, paths)) else _CAPABILITY
        return [
            setpriv,
            f"--reuid={self.user.pw_uid}",
            f"--regid={self.user.pw_gid}",
            "--clear-groups",
            *passing,
            *command,
        ]

    def _may_enter(self, path: Path) -> bool:
        """Return whether the account may enter all folders above a path."""
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
            "/etc/passwd. Start the local Lakebase as another user; in a container, as a user of its image."
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
                f"Postgres does not run as root, and the account {_NAME} for it could not be created: "
                f"{getattr(err, 'stderr', None) or err}. Start the local Lakebase as another user."
            ) from err
        return pwd.getpwnam(_NAME)
