"""Makes backups: the whole installation in one file, while the gateway serves (I-74).

A backup is as of one moment. The settlement journal is copied after that moment, and nothing may be
removed from it in between: a settlement that clients were told of by then is in the database, in
the journal, or in both, and settling twice adds nothing. The anchor file is kept from growing
during that moment, so that it ends exactly where the database says it does.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final

from django.conf import settings
from django.db import connection

from apps.audit.events import record_event
from apps.billing import archives, dumps
from apps.billing.anchors import NOTE, find_last_anchor
from apps.billing.archives import Manifest
from apps.billing.journal import keep_all
from apps.billing.models import VerifiedHead
from apps.billing.verification import anchors_path
from apps.core.crypto import derive_key, keyed_digest, parse_encryption_keys
from apps.core.folders import sync_folder

_LOCK_SECONDS: Final = 5.0
_COPY_BYTES: Final = 1 << 20
_JOURNAL_NAME: Final = re.compile(r"[\w.\-]{1,100}", re.ASCII)


class BackupRefused(Exception):
    """The backup cannot be made or restored as things are; nothing was changed."""


def make_backup(
    target: Path, *, with_secrets: bool, pg_bin: Path | None, now: datetime
) -> Manifest:
    """Write a backup to `target`, which must not exist, and return what is in it.

    The file appears whole, fsynced, mode 0600, or not at all. Raises BackupRefused, DumpFailed
    and OSError.
    """
    if target.exists():
        raise BackupRefused(f"{target} exists already; a backup is never overwritten.")
    if not target.parent.is_dir():
        raise BackupRefused(f"{target.parent} is no folder.")
    _check_anchors(anchors_path())
    staging = target.parent / f".{target.name}.{secrets.token_hex(4)}"
    staging.mkdir(mode=0o700)
    try:
        manifest = _collect(staging, with_secrets=with_secrets, pg_bin=pg_bin, now=now)
        whole = staging / "whole"
        with os.fdopen(os.open(whole, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            archives.write_archive(file, manifest, folder=staging, keys=encryption_keys())
            file.flush()
            os.fsync(file.fileno())
        # A link and no rename: it fails where somebody else has made the name meanwhile.
        os.link(whole, target)
        sync_folder(target.parent)
    finally:
        shutil.rmtree(staging)
    record_event(
        actor=None,
        action="backup.made",
        subject=None,
        after={
            "file": target.name,
            "sha256": {part.name: part.sha256 for part in manifest.parts},
        },
        reason="manage.py backup",
    )
    return manifest


def _check_anchors(path: Path) -> None:
    """Refuse an anchor file that ends before the database says. Raises BackupRefused."""
    # Before the file, which only grows.
    noted = VerifiedHead.objects.filter(chain=NOTE, chain_id=0).first()
    if noted is None:
        return
    last = find_last_anchor(path)
    number, digest = (last.number, last.digest) if last is not None else (0, b"")
    if number < noted.sequence or (number == noted.sequence and digest != bytes(noted.head)):
        raise BackupRefused(
            f"{path} does not end with anchor {noted.sequence}, which the database remembers. Run "
            "this where DATA_DIR is the worker's. If it is, lines of the file are lost: after the "
            "worker's next one, which leaves the gap on record, a backup can be made."
        )


def _collect(staging: Path, *, with_secrets: bool, pg_bin: Path | None, now: datetime) -> Manifest:
    """Copy everything into `staging` and return its manifest."""
    journal = Path(settings.DATA_DIR) / "journal"
    with ExitStack() as stack:
        with keep_all(journal, seconds_max=_LOCK_SECONDS):
            with _anchors_at_rest() as length:
                moment = stack.enter_context(dumps.open_moment(pg_bin=pg_bin))
            parts = _copy_journal(journal, staging)
        _copy_beginning(anchors_path(), staging / archives.ANCHORS, length)
        moment.write(staging / archives.DATABASE, pg_bin=pg_bin)
    if with_secrets:
        (staging / archives.SECRETS).write_text(
            f"SECRET_KEY={settings.SECRET_KEY}\nENCRYPTION_KEY={settings.ENCRYPTION_KEY}\n"
        )
    names = [archives.DATABASE, archives.ANCHORS, *parts]
    names += [archives.SECRETS] if with_secrets else []
    return Manifest(
        made_at=now.isoformat(),
        version=settings.VERSION,
        engine=connection.vendor,
        server=moment.server,
        secret_key=secret_key_fingerprint(),
        migrations=moment.migrations,
        parts=tuple(archives.measure(name, staging / name) for name in names),
    )


def encryption_keys() -> tuple[bytes, ...]:
    """Return the deployment's encryption keys; the first seals."""
    return parse_encryption_keys(settings.ENCRYPTION_KEY)


def secret_key_fingerprint() -> str:
    """Return what tells one SECRET_KEY from another, and nothing about it."""
    key = derive_key(settings.SECRET_KEY.encode(), "backup fingerprint")
    return keyed_digest(key, "").hex()[:16]


def _copy_journal(folder: Path, staging: Path) -> list[str]:
    """Copy the settlements that wait on disk and return the names of the copies."""
    (staging / archives.JOURNAL).mkdir(mode=0o700)
    names: list[str] = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if not _JOURNAL_NAME.fullmatch(path.name) or len(names) == archives.PARTS_MAX // 2:
            raise BackupRefused(f"{folder} holds what the gateway does not put there: {path.name}.")
        name = f"{archives.JOURNAL}{path.name}"
        try:
            length = path.stat().st_size
            if length:
                _copy_beginning(path, staging / name, length)
                names.append(name)
        except FileNotFoundError:
            continue  # It was empty, and its owner has ended in this moment.
    return names


@contextmanager
def _anchors_at_rest() -> Iterator[int]:
    """Keep the anchor file from growing and yield its length; made where there is none yet."""
    path = anchors_path()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "rb") as file:
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise BackupRefused(f"{path} stays locked; try again.") from error
                time.sleep(0.01)
        yield path.stat().st_size


def _copy_beginning(source: Path, target: Path, length: int) -> None:
    """Copy the first `length` bytes of a file that others append to."""
    with (
        source.open("rb") as file,
        os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as copy,
    ):
        left = length
        while left and (chunk := file.read(min(left, _COPY_BYTES))):
            copy.write(chunk)
            left -= len(chunk)
