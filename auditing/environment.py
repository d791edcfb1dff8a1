"""Reads the environment once, into one frozen value.

Refuses what contradicts itself or is insecure.

Order of precedence: process environment, `.env`, `DATA_DIR/secrets.env` (made on first use, mode
0600).
"""

from __future__ import annotations

import base64
import os
import re
import secrets
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path

import environ
from django.core.exceptions import ImproperlyConfigured

from apps.core.addresses import AllowedNetwork, parse_private_upstreams
from apps.core.crypto import EncryptionKeyMalformed, parse_encryption_keys
from apps.core.money import USD_MAX

BASE_DIR = Path(__file__).resolve().parent.parent
_SECRET_KEY_LENGTH_MIN = 32
_PAYLOAD_MODES = ("off", "metadata", "full")
_PAYLOAD_READERS = ("nobody", "admin", "analyst")


def _about(default: str, meaning: str) -> dict[str, str]:
    """Return what stands in the documentation about a setting."""
    return {"default": default, "meaning": meaning}


@dataclass(frozen=True, slots=True)
class Environment:
    """All settings an operator can make. Each field has the name of its variable, in lower case.

    What holds a secret or may hold a password is not shown by `repr`: tracebacks and logs print it.
    """

    port: int = field(
        metadata=_about(
            "8000",
            "The port that `make run` and `serve` listen on.",
        )
    )
    workers: int = field(
        metadata=_about(
            "1",
            "Gateway processes. More than one needs PostgreSQL.",
        )
    )
    database_url: str = field(
        repr=False,
        metadata=_about(
            "SQLite in `DATA_DIR`",
            "`postgresql://user:password@host:5432/name`, PostgreSQL 14 or newer with `fsync` "
            "and `synchronous_commit` on; or `sqlite:///path`. A pooler between (PgBouncer) has to "
            "give whole sessions: the ledger's statements stay parsed on its connection.",
        ),
    )
    redis_url: str = field(
        repr=False,
        metadata=_about(
            "none",
            "Shares the limits between gateways and carries the tasks; never holds money. "
            "Without it limits are counted in each process.",
        ),
    )
    data_dir: Path = field(
        metadata=_about(
            "`./data`",
            "Everything that must survive: embedded database, secrets, journal, anchors, "
            "first-run.txt.",
        )
    )
    admin_username: str = field(
        metadata=_about(
            "`admin`",
            "The administrator made on the first run.",
        )
    )
    admin_email: str = field(
        metadata=_about(
            "`admin@example.com`",
            "Its e-mail address.",
        )
    )
    admin_password: str = field(
        repr=False,
        metadata=_about(
            "random",
            "Its password, at least 8 characters; a random one stands in `DATA_DIR/first-run.txt`.",
        ),
    )
    demo_api_key: str = field(
        repr=False,
        metadata=_about(
            "random",
            "The demo user's key, any `sk-…`.",
        ),
    )
    secret_key: str = field(
        repr=False,
        metadata=_about(
            "made once",
            "Signs sessions and tokens and digests API keys: with another one no key is "
            "valid. The same in all gateways of one database.",
        ),
    )
    encryption_key: str = field(
        repr=False,
        metadata=_about(
            "made once",
            "Seals provider keys: 32 bytes in base64 or hexadecimal. Several, separated by "
            "commas: the first seals, all open. The same in all gateways of one database.",
        ),
    )
    private_upstreams: tuple[AllowedNetwork, ...] = field(
        metadata=_about(
            "none",
            "Networks, with ports where wanted, that provider URLs may point to although they "
            "are not public: `10.0.5.7:11434, 192.168.0.0/16, [fd00::]/8:80-90`. `make run` "
            "adds loopback.",
        )
    )
    allowed_hosts: list[str] = field(
        metadata=_about(
            "`localhost,127.0.0.1,[::1]`",
            "Names under which the pages and the REST API are served.",
        )
    )
    cors_allowed_origins: list[str] = field(
        metadata=_about(
            "none",
            "Origins of browser applications that may call the REST API.",
        )
    )
    trusted_proxies: list[str] = field(
        metadata=_about(
            "none",
            "Addresses or networks of reverse proxies whose `X-Forwarded-For` and "
            "`X-Forwarded-Proto` are believed.",
        )
    )
    payloads: str = field(
        metadata=_about(
            "`full`",
            "How much of a call's bodies is kept: `off`, `metadata` (sizes and digests) or "
            "`full`. Providers and keys can keep less, never more.",
        )
    )
    payload_days: int = field(
        metadata=_about(
            "0",
            "Days after which stored bodies are erased; the records of the calls stay. "
            "0 keeps them for ever.",
        )
    )
    payload_readers: str = field(
        metadata=_about(
            "`admin`",
            "Who may read the bodies of other people's calls: `nobody`, `admin` or `analyst` "
            "(analysts and administrators). Every look is on record.",
        )
    )
    adjustment_usd_alone: int | None = field(
        metadata=_about(
            "no second one",
            "How many whole dollars one administrator may move by adjustments of balances within "
            "24 hours, given and taken added up. What goes beyond waits for a second one; with 0 "
            "every adjustment does. Set it where there are several administrators: without it "
            "none needs another.",
        )
    )
    api_rpm_per_user: int = field(
        metadata=_about(
            "600",
            "Calls of the REST API a minute by one user.",
        )
    )
    api_rpm_per_address: int = field(
        metadata=_about(
            "1200",
            "Calls of the REST API a minute from one address.",
        )
    )
    drain_seconds: float = field(
        metadata=_about(
            "30",
            "How long running calls get when the gateway is told to stop.",
        )
    )
    metrics_token: str = field(
        repr=False,
        metadata=_about(
            "none",
            "Who sends it (`Authorization: Bearer …`) may read `/metrics`: 16 to 256 letters, "
            "digits or `-._~+/=`. Without it only clients on the same machine may.",
        ),
    )


def read_environment() -> Environment:
    """Read and check every variable.

    Raises ImproperlyConfigured with one line that says what to change.
    """
    if (BASE_DIR / ".env").exists():
        environ.Env.read_env(str(BASE_DIR / ".env"))
    data_dir = Path(_text("DATA_DIR") or BASE_DIR / "data").resolve()
    try:
        stored = _stored_secrets(data_dir)
    except OSError as error:
        raise ImproperlyConfigured(
            f"DATA_DIR {data_dir} cannot be used: {error.strerror}. Name a directory that the "
            "gateway's user may write to."
        ) from error
    database_url = _text("DATABASE_URL") or f"sqlite:///{data_dir / 'db.sqlite3'}"
    found = Environment(
        port=_number("PORT", 8000, 1, 65_535),
        workers=_number("WORKERS", 1, 1, 64),
        database_url=database_url,
        redis_url=_text("REDIS_URL"),
        data_dir=data_dir,
        admin_username=_text("ADMIN_USERNAME") or "admin",
        admin_email=_text("ADMIN_EMAIL") or "admin@example.com",
        admin_password=_text("ADMIN_PASSWORD"),
        demo_api_key=_text("DEMO_API_KEY"),
        secret_key=_text("SECRET_KEY") or stored["SECRET_KEY"],
        encryption_key=_text("ENCRYPTION_KEY") or stored["ENCRYPTION_KEY"],
        private_upstreams=_private_upstreams(_text("PRIVATE_UPSTREAMS")),
        allowed_hosts=_words(_text("ALLOWED_HOSTS") or "localhost,127.0.0.1,[::1]"),
        cors_allowed_origins=_words(_text("CORS_ALLOWED_ORIGINS")),
        trusted_proxies=_words(_text("TRUSTED_PROXIES")),
        payloads=_text("PAYLOADS") or "full",
        payload_days=_number("PAYLOAD_DAYS", 0, 0, 36_500),
        payload_readers=_text("PAYLOAD_READERS") or "admin",
        adjustment_usd_alone=_number_or_none("ADJUSTMENT_USD_ALONE", 0, USD_MAX),
        api_rpm_per_user=_number("API_RPM_PER_USER", 600, 1, 1_000_000),
        api_rpm_per_address=_number("API_RPM_PER_ADDRESS", 1_200, 1, 1_000_000),
        drain_seconds=float(_number("DRAIN_SECONDS", 30, 1, 3_600)),
        metrics_token=_text("METRICS_TOKEN"),
    )
    _refuse_contradictions(found)
    return found


def make_private_file(path: Path) -> None:
    """Make the file of an embedded database for its owner's eyes only, where there is none.

    Whoever connects first would make it with the umask of the shell. What SQLite puts beside it
    gets the same mode. Where it cannot be made, connecting says why.
    """
    with suppress(OSError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def _refuse_contradictions(found: Environment) -> None:
    scheme = _scheme_of_database(found.database_url)
    if scheme == "sqlite" and found.workers > 1:
        raise ImproperlyConfigured(
            "WORKERS above 1 needs PostgreSQL: SQLite takes one gateway process."
        )
    if len(found.secret_key) < _SECRET_KEY_LENGTH_MIN:
        raise ImproperlyConfigured(
            f"SECRET_KEY must have at least {_SECRET_KEY_LENGTH_MIN} characters."
        )
    if "insecure" in found.secret_key or len(set(found.secret_key)) < 8:
        raise ImproperlyConfigured("SECRET_KEY must be random.")
    try:
        keys = parse_encryption_keys(found.encryption_key)
    except EncryptionKeyMalformed as error:
        raise ImproperlyConfigured(f"ENCRYPTION_KEY: {error}.") from error
    if any(len(set(key)) == 1 for key in keys):
        raise ImproperlyConfigured(
            "ENCRYPTION_KEY must be random: all bytes of a key are the same. Make one with "
            "openssl rand -base64 32."
        )
    if found.secret_key in found.encryption_key:
        raise ImproperlyConfigured("SECRET_KEY and ENCRYPTION_KEY must differ.")
    if "*" in found.allowed_hosts:
        raise ImproperlyConfigured("ALLOWED_HOSTS must name hosts; '*' lets anyone forge links.")
    if "*" in found.cors_allowed_origins:
        raise ImproperlyConfigured("CORS_ALLOWED_ORIGINS must name origins.")
    for origin in found.cors_allowed_origins:
        if not re.fullmatch(r"https?://[A-Za-z0-9.\-]+(:\d{1,5})?", origin):
            raise ImproperlyConfigured(f"CORS_ALLOWED_ORIGINS: {origin!r} is not an origin.")
    if found.demo_api_key and not re.fullmatch(r"sk-[A-Za-z0-9_\-]{4,252}", found.demo_api_key):
        raise ImproperlyConfigured("DEMO_API_KEY must be sk- and 4 to 252 letters, digits, - or _.")
    if found.admin_password and len(found.admin_password) < 8:
        raise ImproperlyConfigured("ADMIN_PASSWORD must have at least 8 characters.")
    if "@" not in found.admin_email:
        raise ImproperlyConfigured("ADMIN_EMAIL must be an e-mail address.")
    if found.redis_url and found.redis_url.partition(":")[0] not in ("redis", "rediss", "unix"):
        raise ImproperlyConfigured("REDIS_URL must start with redis://, rediss:// or unix://.")
    for network in found.trusted_proxies:
        try:
            ip_network(network, strict=False)
        except ValueError as error:
            raise ImproperlyConfigured(f"TRUSTED_PROXIES: {network!r} is no network.") from error
    if found.metrics_token and not re.fullmatch(r"[A-Za-z0-9._~+/=-]{16,256}", found.metrics_token):
        raise ImproperlyConfigured(
            "METRICS_TOKEN must be 16 to 256 letters, digits, -, ., _, ~, +, / or =."
        )
    if found.payload_readers not in _PAYLOAD_READERS:
        raise ImproperlyConfigured(f"PAYLOAD_READERS must be one of {', '.join(_PAYLOAD_READERS)}.")
    if found.payloads not in _PAYLOAD_MODES:
        raise ImproperlyConfigured(f"PAYLOADS must be one of {', '.join(_PAYLOAD_MODES)}.")


def _scheme_of_database(url: str) -> str:
    """Return the scheme of DATABASE_URL. What is refused may hold a password: it is not told."""
    scheme, mark, _ = url.partition("://")
    if scheme in ("mysql", "mariadb"):
        raise ImproperlyConfigured(
            "DATABASE_URL: MySQL is not supported yet; use PostgreSQL or SQLite."
        )
    if not mark or scheme not in ("sqlite", "postgres", "postgresql"):
        raise ImproperlyConfigured("DATABASE_URL must start with sqlite:// or postgresql://.")
    try:
        name = environ.Env.db_url_config(url).get("NAME")
    except ValueError as error:
        raise ImproperlyConfigured(
            "DATABASE_URL cannot be read. Write it as postgresql://user:password@host:5432/name, "
            "with what is special in a password percent-encoded."
        ) from error
    if not name:
        raise ImproperlyConfigured("DATABASE_URL names no database.")
    return scheme


def _text(name: str) -> str:
    """Return a variable as it stands, empty where there is none: a `$` in a password is no name."""
    return os.environ.get(name, "")


def _number(name: str, default: int, low: int, high: int) -> int:
    text = _text(name) or str(default)
    if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
        raise ImproperlyConfigured(f"{name} must be a whole number from {low} to {high}.")
    return int(text)


def _number_or_none(name: str, low: int, high: int) -> int | None:
    return _number(name, low, low, high) if _text(name) else None


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _private_upstreams(text: str) -> tuple[AllowedNetwork, ...]:
    try:
        return parse_private_upstreams(text)
    except ValueError as error:
        raise ImproperlyConfigured(f"PRIVATE_UPSTREAMS: {error}.") from error


def _stored_secrets(data_dir: Path) -> dict[str, str]:
    """Return the secrets kept in `data_dir`, made on first use.

    Several processes may start at once: the file appears whole (written aside, then linked), and
    who comes second reads what the first one wrote.
    """
    path = data_dir / "secrets.env"
    if not path.exists():
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        made = {
            "SECRET_KEY": secrets.token_urlsafe(48),
            "ENCRYPTION_KEY": base64.b64encode(secrets.token_bytes(32)).decode(),
        }
        aside = data_dir / f".secrets.{os.getpid()}.{secrets.token_hex(4)}"
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write("".join(f"{name}={value}\n" for name, value in made.items()))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(aside, path)
        except FileExistsError:
            pass  # Another process was first; its secrets count.
        finally:
            aside.unlink()
    if path.stat().st_mode & 0o077:
        raise ImproperlyConfigured(
            f"{path.name} in DATA_DIR is readable by others; run chmod 600 on it."
        )
    pairs = (line.partition("=") for line in path.read_text().splitlines() if "=" in line)
    stored = {name: value for name, _, value in pairs}
    if not {"SECRET_KEY", "ENCRYPTION_KEY"} <= stored.keys():
        raise ImproperlyConfigured(f"{path.name} in DATA_DIR is damaged; restore it from a backup.")
    return stored
