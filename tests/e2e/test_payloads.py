"""Bodies of calls: kept as the strictest of deployment, provider and key says, cut and cleaned."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from django.test import Client

from apps.api_keys.models import APIKey
from apps.audit.models import AdminEvent, APIRequest, Payload
from apps.audit.payloads import BODY_BYTES_MAX, open_body, payload_digest
from tests.e2e.answers import HttpAnswer, ask
from tests.e2e.wire import LAST_CHUNK, body_of, open_stream
from tests.support.bench import Bench, Stage, open_bench
from tests.support.databases import Database
from tests.support.gateway import DemoThread
from tests.support.people import make_admin
from tests.support.processes import wait_until

CHAT = "/v1/chat/completions"
MODES = ("off", "metadata", "full")


def chat(stage: Stage, **values: object) -> tuple[bytes, HttpAnswer, APIRequest]:
    """Make a call and return what was sent, the answer and the row."""
    body = orjson.dumps(stage.body(**values))
    answer = ask(stage.bench.gateway, "POST", CHAT, headers=stage.caller.headers, body=body)
    assert answer.status == 200, answer.body
    return body, answer, stage.bench.request_row(answer.headers["x-request-id"])


def find_payload(row: APIRequest) -> Payload | None:
    """Return what is kept of a call."""
    return Payload.objects.filter(pk=row.pk).first()


def check_kept(row: APIRequest, sent: bytes, received: bytes, mode: str) -> None:
    """Check that of these bodies is kept what the mode says."""
    payload = find_payload(row)
    if mode == "off":
        assert payload is None
        assert row.payload_digest is None
        return
    assert payload is not None
    salt, digest = bytes(payload.salt), bytes(row.payload_digest or b"")
    assert digest == payload_digest(salt, sent, received)
    kept = (sent, received) if mode == "full" else (b"", b"")
    bodies = (bytes(payload.request_body), bytes(payload.response_body))
    assert (open_body(bodies[0]), open_body(bodies[1])) == kept
    if mode == "metadata":
        assert bodies == (b"", b"")


def _set_modes(stage: Stage, *, provider: str, key: str) -> None:
    model = stage.model.routes.get().provider
    type(model).objects.filter(pk=model.pk).update(payload_mode=provider)
    APIKey.objects.filter(pk=stage.caller.key.pk).update(payload_mode=key)
    later = stage.bench.make_model()
    stage.bench.wait_for_model(later, stage.caller)


@pytest.mark.parametrize("provider", MODES)
@pytest.mark.parametrize("key", MODES)
def test_the_strictest_of_provider_and_key_decides(bench: Bench, provider: str, key: str) -> None:
    stage = bench.stage(provider=bench.make_provider())
    _set_modes(stage, provider=provider, key=key)

    sent, answer, row = chat(stage)

    check_kept(row, sent, answer.body, min(provider, key, key=MODES.index))


@pytest.mark.parametrize("mode", ["off", "metadata"])
def test_the_deployment_decides_over_all_others(
    committed_db: Database, demo: DemoThread, tmp_path: Path, mode: str
) -> None:
    bench = open_bench(tmp_path, committed_db, demo, environment={"PAYLOADS": mode})
    try:
        sent, answer, row = chat(bench.stage())
    finally:
        bench.gateway.stop()

    check_kept(row, sent, answer.body, mode)


def test_a_stream_is_kept_as_the_client_saw_it(bench: Bench) -> None:
    stage = bench.stage("demo-chat:tokens=3")

    with open_stream(stage) as connection:
        received = body_of(connection.read_until(LAST_CHUNK))

    row = stage.settled().rows[0]
    payload = find_payload(row)
    assert payload is not None
    assert open_body(bytes(payload.response_body)) == received
    assert row.output_bytes == len(received)


def test_bodies_are_cut_at_256_kibibytes(bench: Bench) -> None:
    stage = bench.stage("demo-chat:fault=big_body(600000)")

    sent, answer, row = chat(stage, user="x" * 300_000)

    payload = find_payload(row)
    assert payload is not None
    assert len(answer.body) == 600_000
    assert open_body(bytes(payload.request_body)) == sent[:BODY_BYTES_MAX]
    assert open_body(bytes(payload.response_body)) == answer.body[:BODY_BYTES_MAX]
    assert (payload.is_request_truncated, payload.is_response_truncated) == (True, True)
    assert (row.input_bytes, row.output_bytes) == (len(sent), 600_000)
    digest = payload_digest(
        bytes(payload.salt), sent[:BODY_BYTES_MAX], answer.body[:BODY_BYTES_MAX]
    )
    assert bytes(row.payload_digest or b"") == digest


@pytest.mark.parametrize(
    "credential",
    [
        "sk-proj-abcdefghijklmnop0123",
        "Bearer abcdefghijklmnop.0123",
        "AIzaSyAbcdefghijklmnop0123",
        "pk_live_abcdefghijklmnop0123",
    ],
)
def test_credentials_in_prompts_are_not_kept(bench: Bench, credential: str) -> None:
    stage = bench.stage()

    sent, answer, row = chat(stage, user=f"my key is {credential} yes")

    cleaned = sent.replace(credential.encode(), b"[redacted]")
    assert cleaned != sent
    check_kept(row, cleaned, answer.body, "full")
    assert stage.upstream_calls[0]["body"]["user"] == f"my key is {credential} yes"


def test_a_call_that_failed_keeps_what_was_asked(bench: Bench) -> None:
    stage = bench.stage("demo-chat:fault=status(400)")
    body = orjson.dumps(stage.body())

    answer = ask(bench.gateway, "POST", CHAT, headers=stage.caller.headers, body=body)

    assert answer.status == 400
    row = stage.settled().rows[0]
    check_kept(row, body, b"", "full")


def test_opening_a_payload_in_the_admin_is_recorded(bench: Bench) -> None:
    stage = bench.stage()
    _, _, row = chat(stage, user="a prompt to be read")
    admin = make_admin()
    client = Client()
    client.force_login(admin)

    page = client.get(f"/admin/audit/payload/{row.pk}/change/")

    assert page.status_code == 200
    assert b"a prompt to be read" in page.content
    event = AdminEvent.objects.get(action="payload.read", actor_id=admin.pk)
    assert event.object_id == str(row.pk)


def test_a_payload_can_be_erased_and_its_digest_stays(bench: Bench) -> None:
    stage = bench.stage()
    _, _, row = chat(stage)
    wait_until(lambda: find_payload(row) is not None, timeout_seconds=5, what="the payload")

    Payload.objects.filter(pk=row.pk).delete()

    assert bytes(bench.request_row(str(row.pk)).payload_digest or b"") == bytes(
        row.payload_digest or b""
    )
