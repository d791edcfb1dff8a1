"""The file that a backup is: a gzipped tar of a manifest and the parts that it lists.

    manifest.json        what follows, with digests, sealed with a key derived from ENCRYPTION_KEY
    database             an SQLite file, or pg_dump's custom format
    anchors.jsonl        the signed heads, exactly those that the database in `database` knows
    journal/…            settlements that had not reached the database
    secrets.env          only if asked for

Ordinary tools open it. Nothing here knows a database.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Final

from apps.core.crypto import derive_key, key_id

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
DATABASE: Final = "database"
ANCHORS: Final = "anchors.jsonl"
JOURNAL: Final = "journal/"
SECRETS: Final = "secrets.env"
PARTS_MAX: Final = 1_000
_MANIFEST_BYTES_MAX: Final = 4 << 20
_CHUNK_BYTES: Final = 1 << 20
# What is large is compressed already (bodies, pg_dump): more effort would only take longer.
_GZIP_LEVEL: Final = 1
_LABEL: Final = "backup manifest"
_NAME: Final = re.compile(r"(?:database|anchors\.jsonl|secrets\.env|journal/[\w.\-]{1,100})", re.A)


class ArchiveDamaged(Exception):
    """The file is no backup, was cut or changed, or its seal cannot be checked."""


@dataclass(frozen=True, slots=True)
class Part:
    """One file of the archive."""

    name: str
    size: int  # bytes
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup says about itself."""

    made_at: str
    version: str
    engine: str  # sqlite or postgresql
    server: str  # the database's own version
    secret_key: str  # a fingerprint
    migrations: Mapping[str, Sequence[str]]  # app → names that were applied
    parts: tuple[Part, ...] = ()
    format: int = FORMAT

    def find(self, name: str) -> Part | None:
        """Return the part of this name."""
        return next((part for part in self.parts if part.name == name), None)


def measure(name: str, path: Path) -> Part:
    """Return the entry of the manifest for a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Part(name, path.stat().st_size, digest)


def write_archive(
    file: IO[bytes], manifest: Manifest, *, folder: Path, keys: Sequence[bytes]
) -> None:
    """Write the manifest, sealed with the first key, and its parts, which lie in `folder`."""
    sealed = _seal(manifest, keys[0])
    with tarfile.open(fileobj=file, mode="w:gz", compresslevel=_GZIP_LEVEL) as archive:
        head = folder / MANIFEST
        head.write_bytes(sealed)
        for name in (MANIFEST, *(part.name for part in manifest.parts)):
            info = tarfile.TarInfo(name)
            info.size = (folder / name).stat().st_size
            info.mode = 0o600
            with (folder / name).open("rb") as source:
                archive.addfile(info, source)


def read_manifest(path: Path, *, keys: Sequence[bytes]) -> Manifest:
    """Return the manifest of a backup, after checking its seal. Raises ArchiveDamaged."""
    try:
        with tarfile.open(path, mode="r|gz") as archive:
            head = archive.next()
            if head is None or head.name != MANIFEST or head.size > _MANIFEST_BYTES_MAX:
                raise ArchiveDamaged(f"{path} is no backup of this program.")
            file = archive.extractfile(head)
            raw = b"" if file is None else file.read(_MANIFEST_BYTES_MAX)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ArchiveDamaged(f"{path} cannot be read as a backup: {error}.") from error
    return _unseal(raw, keys)


def extract(path: Path, manifest: Manifest, folder: Path) -> None:
    """Write every part into `folder`, which must be empty, and check it against its digest.

    Only what the manifest lists is written, under names that are known. Raises ArchiveDamaged.
    """
    wanted = {part.name: part for part in manifest.parts}
    try:
        with tarfile.open(path, mode="r|gz") as archive:
            for member in archive:
                part = wanted.pop(member.name, None)
                file = archive.extractfile(member) if part is not None else None
                if part is not None and file is not None:
                    _extract_part(file, part, folder)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ArchiveDamaged(f"{path} is damaged: {error}.") from error
    if wanted:
        raise ArchiveDamaged(f"{path} is damaged: {', '.join(sorted(wanted))} is missing.")


def _extract_part(file: IO[bytes], part: Part, folder: Path) -> None:
    target = folder / part.name
    target.parent.mkdir(exist_ok=True, mode=0o700)
    digest, left = hashlib.sha256(), part.size
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as output:
        while left and (chunk := file.read(min(left, _CHUNK_BYTES))):
            digest.update(chunk)
            output.write(chunk)
            left -= len(chunk)
        output.flush()
        os.fsync(output.fileno())
    if left or file.read(1) or digest.hexdigest() != part.sha256:
        raise ArchiveDamaged(f"{part.name} in the backup is damaged: its digest does not match.")


def _seal(manifest: Manifest, key: bytes) -> bytes:
    body = json.dumps(asdict(manifest), sort_keys=True).encode()
    seal = {"key": key_id(key), "hmac": _digest(key, body)}
    return json.dumps({"manifest": body.decode(), "seal": seal}).encode()


def _unseal(raw: bytes, keys: Sequence[bytes]) -> Manifest:
    try:
        outer: dict[str, Any] = json.loads(raw)
        body, name, found = outer["manifest"], outer["seal"]["key"], outer["seal"]["hmac"]
        key = next((key for key in keys if key_id(key) == name), None)
        if key is None:
            raise ArchiveDamaged(
                f"The backup was made with encryption key {name}, which is not in ENCRYPTION_KEY. "
                "Add it behind the others. A backup made --with-secrets holds it: "
                "tar -xzOf FILE secrets.env"
            )
        if not hmac.compare_digest(_digest(key, body.encode()), str(found)):
            raise ArchiveDamaged("The backup's manifest was changed: its seal does not match.")
        values = json.loads(body)
        if values["format"] != FORMAT:
            raise ArchiveDamaged(f"The backup has format {values['format']}; this reads {FORMAT}.")
        parts = tuple(Part(**part) for part in values.pop("parts"))
        manifest = Manifest(**values, parts=parts)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArchiveDamaged("The backup's manifest cannot be read.") from error
    if len(parts) > PARTS_MAX or not all(_NAME.fullmatch(part.name) for part in parts):
        raise ArchiveDamaged("The backup lists parts that no backup has.")
    return manifest


def _digest(key: bytes, body: bytes) -> str:
    return hmac.new(derive_key(key, _LABEL), body, "sha256").hexdigest()
