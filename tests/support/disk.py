"""A small disk in memory that can be filled to its last byte. Making one needs root."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_PAGE = 4096


class CannotMount(Exception):
    """This machine does not let us mount: not root, or a container without the right to."""


@dataclass(frozen=True, slots=True)
class SmallDisk:
    """A mounted tmpfs. Whoever made it removes it."""

    directory: Path

    @classmethod
    def make(cls, directory: Path, megabytes: int) -> Self:
        """Mount a disk at a new directory. Raises CannotMount."""
        directory.mkdir(parents=True)
        options = f"size={megabytes}m,mode=755"
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(directory)]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except FileNotFoundError as error:
            raise CannotMount("there is no mount command") from error
        except subprocess.CalledProcessError as error:
            raise CannotMount(error.stderr.strip()) from error
        return cls(directory)

    def fill(self) -> None:
        """Leave not a page free; call it again for what has been freed since."""
        free = os.statvfs(self.directory)
        size = free.f_bavail * free.f_frsize
        if size < _PAGE:
            return
        descriptor = os.open(self._ballast, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            used = os.fstat(descriptor).st_size
            os.posix_fallocate(descriptor, used, size)
        except OSError:
            pass  # Somebody took of it meanwhile: the next turn fills the rest.
        finally:
            os.close(descriptor)

    def free(self) -> None:
        """Give back what `fill` took."""
        self._ballast.unlink(missing_ok=True)

    def remove(self) -> None:
        """Unmount, also under somebody who still uses it."""
        subprocess.run(["umount", "-l", str(self.directory)], check=False, capture_output=True)

    @property
    def _ballast(self) -> Path:
        return self.directory / "ballast"
