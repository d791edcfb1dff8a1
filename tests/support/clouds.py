"""Vertex AI and Bedrock on loopback: they check who asks, and have a demo provider answer.

Signatures, claims and tokens are checked by code of its own, from the documentation of AWS and
Google. What is hosted in a cloud's own way is translated back, so that the answers are those that
all other tests know.
"""

from __future__ import annotations

import base64
import http.client
import re
import secrets
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, Final, Self
from urllib.parse import parse_qs, unquote, urlsplit

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.e2e.raw_upstream import Heard, RawUpstream, respond
from tests.support import amazon_frames
from tests.support.gateway import DemoThread
from tests.support.sigv4 import SignatureRefused, Signed, verify

REGION: Final = "eu-central-1"
ACCESS_KEY_ID: Final = "AKIAIOSFODNN7EXAMPLE"
SECRET_ACCESS_KEY: Final = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
SESSION_TOKEN: Final = "IQoJb3JpZ2luX2VjEXAMPLE/canary+token=="
EMAIL: Final = "gateway@a-project.iam.gserviceaccount.com"
KEY_ID: Final = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c"
PROJECT: Final = "/v1/projects/a-project/locations/global"
# What the control plane's library adds to a request; the data plane writes its requests itself.
_BY_LIBRARY: Final = frozenset(
    {"accept", "accept-encoding", "connection", "content-length", "user-agent"}
)
_SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
_GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_INVOKE: Final = re.compile(r"/model/(?P<model>[^/]+)/invoke(?P<stream>-with-response-stream)?")
_PREDICT: Final = re.compile(
    re.escape(PROJECT) + r"/publishers/anthropic/models/(?P<model>[^/]+):"
    r"(?P<method>rawPredict|streamRawPredict)"
)
_GOOGLE: Final = re.compile(re.escape(PROJECT) + r"/publishers/google(?P<rest>/models/.+)")
_LIST: Final = re.compile(r"/v1beta1/publishers/(?P<publisher>[a-z]+)/models")
_CLOCK: Final = "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable "


def make_private_key() -> rsa.RSAPrivateKey:
    """Return a key as Google makes them."""
    return rsa.generate_private_key(public_exponent=65_537, key_size=2_048)


def pem_of(key: rsa.RSAPrivateKey) -> str:
    """Return a private key as it stands in a service account's file."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


def aws_key(**changes: Any) -> str:
    """Return an AWS key as it is typed."""
    members = {
        "access_key_id": ACCESS_KEY_ID,
        "secret_access_key": SECRET_ACCESS_KEY,
        "region": REGION,
        **changes,
    }
    return orjson.dumps(members, option=orjson.OPT_INDENT_2).decode()


class Refused(Exception):
    """The cloud refuses a request."""

    def __init__(self, status: int, body: dict[str, Any], headers: tuple[str, ...] = ()) -> None:
        super().__init__(status)
        self.status, self.body, self.headers = status, body, headers


class Cloud:
    """Both clouds at one address. Use it as a context manager."""

    def __init__(self, demo: DemoThread, private_key: rsa.RSAPrivateKey | None = None) -> None:
        self._demo = urlsplit(demo.base_url)
        self._upstream = RawUpstream(self._say, pause_seconds=0.0005)
        self.private_key = private_key or make_private_key()
        self.clock = timedelta(0)  # how far its clock is ahead of ours
        self.sessions: dict[str, str] = {}  # session tokens by access key id
        self.token_seconds = 3_600
        self.token_refusal: tuple[int, dict[str, str]] | None = None
        self.tokens: list[str] = []  # that it gave, oldest first
        self.revoked: set[str] = set()
        self.used: list[str] = []  # tokens and key ids that calls came with
        self.refused: list[int] = []  # statuses
        # What is sent in the place of a stream's frames.
        self.mangle: Callable[[list[bytes]], Sequence[bytes]] = lambda frames: frames
        self.bodies: list[dict[str, Any]] = []  # of calls, as they came
        self.heads: list[Heard] = []

    def __enter__(self) -> Self:
        self._upstream.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._upstream.__exit__(*error)

    @property
    def origin(self) -> str:
        """Where it is reached."""
        return f"http://127.0.0.1:{self._upstream.port}"

    def service_account(self, **changes: Any) -> str:
        """Return a service account's key as it is typed."""
        members = {
            "type": "service_account",
            "project_id": "a-project",
            "private_key_id": KEY_ID,
            "private_key": pem_of(self.private_key),
            "client_email": EMAIL,
            "client_id": "1234567890",
            "token_uri": f"{self.origin}/token",
            "universe_domain": "googleapis.com",
            **changes,
        }
        return orjson.dumps(members, option=orjson.OPT_INDENT_2).decode()

    # ---- what it says

    def _say(self, heard: Heard) -> Iterable[bytes]:
        try:
            return self._answer(heard)
        except Refused as refusal:
            self.refused.append(refusal.status)
            headers = list(refusal.headers)
            headers.append(f"Date: {format_datetime(self._now(), usegmt=True)}")
            status = f"{refusal.status} Refused"
            return [respond(orjson.dumps(refusal.body), *headers, status=status)]

    def _answer(self, heard: Heard) -> Iterable[bytes]:
        method, target, _ = heard.lines[0].split(" ")
        path = target.partition("?")[0]
        if path == "/token":
            return [self._give_token(heard)]
        self.heads.append(heard)
        if (found := _INVOKE.fullmatch(path)) is not None:
            self._check_signature(heard)
            return self._invoke(heard, unquote(found["model"]), is_stream=bool(found["stream"]))
        if path == "/foundation-models":
            self._check_signature(heard)
            return [respond(b'{"modelSummaries":[{"modelId":"a.model-v1:0"},{"modelId":"b"}]}')]
        if path.startswith("/openai/v1/"):
            self._check_signature(heard)
            return [self._forward(method, target.removeprefix("/openai"), heard.body)]
        self._check_token(heard)
        if (found := _LIST.fullmatch(path)) is not None:
            name = f"publishers/{found['publisher']}/models/a-model"
            return [respond(orjson.dumps({"publisherModels": [{"name": name}]}))]
        if (found := _PREDICT.fullmatch(path)) is not None:
            is_stream = found["method"] == "streamRawPredict"
            body = self._hosted_body(heard, "vertex-2023-10-16", found["model"])
            if body.pop("stream", False) is not is_stream:
                raise Refused(400, {"error": {"message": "stream does not match the method"}})
            return [self._forward_message(body, is_stream=is_stream)]
        if (found := _GOOGLE.fullmatch(path)) is not None:
            query = target.partition("?")[2]
            rest = f"/v1beta{found['rest']}" + (f"?{query}" if query else "")
            return [self._forward(method, rest, heard.body)]
        if path == f"{PROJECT}/endpoints/openapi/chat/completions":
            return [self._forward(method, "/v1/chat/completions", heard.body)]
        raise Refused(404, {"error": {"code": 404, "message": "not found"}})

    def _now(self) -> datetime:
        return datetime.now(UTC) + self.clock

    # ---- AWS

    def _check_signature(self, heard: Heard) -> None:
        method, target, _ = heard.lines[0].split(" ")
        pairs = [line.partition(":") for line in heard.lines[1:]]
        request = Signed(
            method, target, [(name, value.strip()) for name, _, value in pairs], heard.body
        )
        try:
            key_id = verify(
                request,
                secrets={ACCESS_KEY_ID: SECRET_ACCESS_KEY},
                tokens=self.sessions,
                region=REGION,
                service="bedrock",
                now=self._now(),
                unsigned=_BY_LIBRARY if request.values("user-agent") else frozenset(),
            )
        except SignatureRefused as error:
            told = f"x-amzn-ErrorType: {error.name}:http://internal.amazon.com/coral/"
            raise Refused(403, {"message": str(error)}, (told,)) from error
        self.used.append(key_id)

    def _invoke(self, heard: Heard, model: str, *, is_stream: bool) -> Iterable[bytes]:
        body = self._hosted_body(heard, "bedrock-2023-05-31", model)
        if "stream" in body:
            told = {
                "message": "Malformed input request: #: extraneous key [stream] is not permitted"
            }
            raise Refused(400, told)
        answered = self._forward_message(body, is_stream=is_stream)
        if not is_stream or b"text/event-stream" not in answered.partition(b"\r\n\r\n")[0].lower():
            return [answered]
        events = [
            orjson.loads(event.partition(b"data: ")[2])
            for event in answered.partition(b"\r\n\r\n")[2].split(b"\n\n")
            if event.strip()
        ]
        events[-1]["amazon-bedrock-invocationMetrics"] = {"inputTokenCount": 1}
        return _chunked(self.mangle([amazon_frames.chunk(event) for event in events]))

    # ---- Google

    def _give_token(self, heard: Heard) -> bytes:
        if self.token_refusal is not None:
            raise Refused(*self.token_refusal)
        form = parse_qs(heard.body.decode("ascii"))
        if form.get("grant_type") != [_GRANT] or len(form["assertion"]) != 1:
            raise Refused(400, {"error": "unsupported_grant_type"})
        self._check_assertion(form["assertion"][0])
        token = f"ya29.{secrets.token_urlsafe(24)}"
        self.tokens.append(token)
        given = {"access_token": token, "expires_in": self.token_seconds, "token_type": "Bearer"}
        return respond(orjson.dumps(given))

    def _check_assertion(self, assertion: str) -> None:
        head, claim, signature = assertion.split(".")
        try:
            self.private_key.public_key().verify(
                _decode(signature), f"{head}.{claim}".encode(), padding.PKCS1v15(), hashes.SHA256()
            )
        except InvalidSignature as error:
            told = {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}
            raise Refused(400, told) from error
        assert orjson.loads(_decode(head)) == {"alg": "RS256", "kid": KEY_ID, "typ": "JWT"}
        claimed = orjson.loads(_decode(claim))
        assert (claimed["iss"], claimed["scope"]) == (EMAIL, _SCOPE)
        assert claimed["aud"] == f"{self.origin}/token"
        now = self._now().timestamp()
        if not claimed["iat"] - 300 <= now < claimed["exp"] <= claimed["iat"] + 3_600:
            told = {
                "error": "invalid_grant",
                "error_description": f"{_CLOCK}timeframe. Check your iat and exp values.",
            }
            raise Refused(400, told)

    def _check_token(self, heard: Heard) -> None:
        given = [line for line in heard.lines if line.lower().startswith("authorization:")]
        token = given[0].partition(" Bearer ")[2] if given else ""
        if token not in self.tokens or token in self.revoked:
            error = {"code": 401, "message": f"Not this: {token}", "status": "UNAUTHENTICATED"}
            raise Refused(401, {"error": error})
        self.used.append(token)

    # ---- the demo provider

    def _hosted_body(self, heard: Heard, version: str, model: str) -> dict[str, Any]:
        body = heard.json
        self.bodies.append(dict(body))
        if body.pop("anthropic_version", None) != version or "model" in body:
            raise Refused(400, {"message": "anthropic_version is required, model is not permitted"})
        return {**body, "model": unquote(model)}

    def _forward_message(self, body: dict[str, Any], *, is_stream: bool) -> bytes:
        body.pop("anthropic_beta", None)
        sent = orjson.dumps({**body, "stream": is_stream})
        return self._forward("POST", "/v1/messages", sent, ("anthropic-version", "2023-06-01"))

    def _forward(self, method: str, target: str, body: bytes, *headers: tuple[str, str]) -> bytes:
        caller = http.client.HTTPConnection(str(self._demo.hostname), self._demo.port, timeout=15)
        try:
            sent = {"content-type": "application/json", "x-goog-api-key": "x", **dict(headers)}
            caller.request(method, target, body=body, headers=sent)
            with caller.getresponse() as response:
                kind = response.getheader("content-type", "")
                status = f"{response.status} {response.reason}"
                return respond(response.read(), status=status, kind=kind)
        finally:
            caller.close()


def _chunked(frames: Iterable[bytes]) -> list[bytes]:
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.amazon.eventstream\r\n"
        b"Transfer-Encoding: chunked\r\nx-amzn-RequestId: 6b4b4d6c\r\n\r\n"
    )
    pieces = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in frames if piece]
    return [head, *pieces, b"0\r\n\r\n"]


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
