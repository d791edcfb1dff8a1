"""What a call is charged for, as far as it is not reported."""

from __future__ import annotations

import orjson
import pytest

from apps.core.ids import new_uuid7
from apps.proxy.admission import plan_call
from apps.proxy.call import Call
from apps.proxy.dialects.openai_answer import read_answer
from apps.proxy.dialects.openai_request import parse_request
from apps.proxy.gateway import Gateway
from apps.proxy.tests.values import NOW, make_caller, make_snapshot
from apps.proxy.weight import Weight


class Sent(bytes):
    """A body that counts how often its size is estimated."""

    estimates = 0

    def isascii(self) -> bool:
        """Return whether it is ASCII."""
        self.estimates += 1
        return super().isascii()


@pytest.mark.parametrize(
    ("reported", "estimates", "read", "source"),
    [({"prompt_tokens": 7, "completion_tokens": 1}, 0, 7, "reported"), (None, 1, 25, "estimated")],
)
def test_what_was_sent_is_estimated_once_and_only_where_no_usage_is_reported(
    reported: dict[str, int] | None, estimates: int, read: int, source: str
) -> None:
    gateway = Gateway()
    body = {"model": "gpt", "messages": [{"role": "user", "content": "x" * 200}]}
    call = Call(
        gateway,
        plan_call(
            make_snapshot(b"d" * 32), make_caller(), parse_request("chat/completions", body), NOW
        ),
        request_id=new_uuid7(),
        body=orjson.dumps(body),
        path="/v1/chat/completions",
        address="127.0.0.1",
        user_agent="tests",
        now=NOW,
        begun=0.0,
        weight=Weight(gateway, 1),
    )
    sent = call.upstream_body = Sent(b"x" * 100)
    choice = {"index": 0, "message": {"role": "assistant", "content": "Yes."}}
    document = {"choices": [{**choice, "finish_reason": "stop"}], "usage": reported}
    answer = read_answer("chat/completions", orjson.dumps(document))

    usages = [call.final_usage(answer) for _ in range(2)]

    assert [(usage.input, usage.source) for usage in usages] == [(read, source)] * 2
    assert sent.estimates == estimates
