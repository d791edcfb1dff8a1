"""Log lines: one JSON object a line, bounded in length, credentials masked."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

from apps.core.crypto import redact

LINE_CHARACTERS_MAX = 8_000


class LineFormatter(logging.Formatter):
    """Formats a record as one line of JSON, so that no message can forge a second line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line for `record`."""
        text = record.getMessage()
        if record.exc_info:
            text = f"{text}\n{self.formatException(record.exc_info)}"
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redact(text)[:LINE_CHARACTERS_MAX],
        }
        request_id = getattr(record, "request_id", None)
        if request_id:
            line["request_id"] = str(request_id)
        return json.dumps(line, ensure_ascii=False)
