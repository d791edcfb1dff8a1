"""nginx as a yardstick: `proxy_pass` in one process, and answers of its own.

The answers are there to compare the benchmark's upstream with.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from bench.upstream import EVENTS, make_answer, make_content, make_end

PROGRAM: Final = "nginx"
JSON_PATH: Final = "/static/json"
STREAM_PATH: Final = "/static/stream"
# nginx takes no longer words than 4 KiB in its configuration.
_WORD_LENGTH: Final = 3_000

# One process in the foreground, as one gateway is one process. Streams must not be gathered.
_CONFIGURATION: Final = """
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log {directory}/nginx-error.log warn;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    upstream raw {{
        server 127.0.0.1:{upstream_port};
        keepalive 1024;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location /v1/ {{
            proxy_pass http://raw;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
        }}
        location = {json_path} {{
            default_type application/json;
            {json_parts}
        }}
        location = {stream_path} {{
            default_type text/event-stream;
            {stream_parts}
        }}
    }}
}}
"""


def make_command(directory: Path, *, port: int, upstream_port: int) -> list[str]:
    """Write the configuration and return the command that runs it."""
    answer = make_answer().partition(b"\r\n\r\n")[2]
    stream = _without_chunks(make_content(" token") * EVENTS + make_end(EVENTS, has_usage=True))
    path = directory / "nginx.conf"
    path.write_text(
        _CONFIGURATION.format(
            directory=directory,
            port=port,
            upstream_port=upstream_port,
            json_path=JSON_PATH,
            json_parts=_return(answer.decode()),
            stream_path=STREAM_PATH,
            stream_parts=_return(stream.decode()),
        )
    )
    error_log = directory / "nginx-error.log"
    return [PROGRAM, "-p", str(directory), "-c", str(path), "-e", str(error_log)]


def _return(text: str) -> str:
    """Return directives that answer with a text, which has no quotes of one stroke in it."""
    parts = [text[at : at + _WORD_LENGTH] for at in range(0, len(text), _WORD_LENGTH)]
    sets = "".join(f"set $part{number} '{part}'; " for number, part in enumerate(parts))
    names = "".join(f"$part{number}" for number in range(len(parts)))
    return f'{sets} return 200 "{names}";'


def _without_chunks(data: bytes) -> bytes:
    parts = []
    while data:  # each turn takes a chunk away
        size, _, data = data.partition(b"\r\n")
        parts.append(data[: int(size, 16)])
        data = data[int(size, 16) + 2 :]
    return b"".join(parts)
