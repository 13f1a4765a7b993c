"""A provider that a test makes say what it likes, signed by keys of its own."""

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from unittest.mock import patch
from urllib.parse import parse_qs, urlsplit

import jwt
import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from django.test import Client, override_settings

from accounts import published
from accounts.sso.actions import LOGOUT_EVENT
from tests.world import unique

SECRET = "a client's secret, of which nobody else knows"


def _jwk(key: Any, kid: str) -> dict[str, Any]:
    made = jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return made | {"kid": kid, "use": "sig", "alg": "ES256"}


class FakeProvider:
    """Answers as `claims`, `userinfo` and `status` say; what isn't given is as it should be."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.reset()
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                self._say(*provider.get(self))

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                said = {k: v[0] for k, v in parse_qs(body.decode()).items()}
                self._say(*provider.token(said))

            def _say(self, status: int, body: Any) -> None:
                text = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.issuer = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))

    def reset(self) -> None:
        self.kid = "k1"
        self.person: dict[str, Any] = {}
        self.claims: dict[str, Any] = {}
        self.userinfo: dict[str, Any] = {}
        self.metadata: dict[str, Any] = {}
        self.signed: str | None = None
        self.status = 200
        self.refused = False
        self.refresh_tokens = True
        self.id_tokens_again = False
        self.codes: dict[str, dict[str, str]] = {}
        self.good_refresh: set[str] = set()
        self.calls: list[str] = []
        self.userinfo_fails = False

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def get(self, call: BaseHTTPRequestHandler) -> tuple[int, Any]:
        path = urlsplit(call.path).path
        if path == "/.well-known/openid-configuration":
            return 200, {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "userinfo_endpoint": f"{self.issuer}/userinfo",
                "end_session_endpoint": f"{self.issuer}/end",
                "jwks_uri": f"{self.issuer}/jwks",
            } | self.metadata
        if path == "/jwks":
            return 200, {"keys": [_jwk(self.key, self.kid)]}
        if path == "/userinfo":
            self.calls.append("userinfo")
            if self.status != 200 or self.userinfo_fails:
                return 500, {}
            if self.refused:
                return 401, {"error": "invalid_token"}
            return 200, {k: v for k, v in (self.person | self.userinfo).items() if v is not None}
        return 404, {}

    def token(self, said: dict[str, str]) -> tuple[int, Any]:
        self.calls.append(said.get("grant_type", ""))
        if self.status != 200:
            return self.status, {}
        answer: dict[str, Any] = {"access_token": secrets.token_urlsafe(), "token_type": "Bearer"}
        if said.get("grant_type") == "refresh_token":
            if self.refused or said.get("refresh_token") not in self.good_refresh:
                return 400, {"error": "invalid_grant"}
            self.good_refresh.discard(said["refresh_token"])
            if self.id_tokens_again:
                answer["id_token"] = self.id_token()
        else:
            asked = self.codes.pop(said.get("code", ""), None)
            proof = hashlib.sha256(said.get("code_verifier", "").encode()).digest()
            challenge = base64.urlsafe_b64encode(proof).rstrip(b"=").decode()
            if asked is None or asked["code_challenge"] != challenge:
                return 400, {"error": "invalid_grant"}
            answer["id_token"] = self.signed or self.id_token(nonce=asked["nonce"])
        if self.refresh_tokens:
            answer["refresh_token"] = secrets.token_urlsafe()
            self.good_refresh.add(answer["refresh_token"])
        return 200, answer

    def usual(self, **claims: Any) -> dict[str, Any]:
        now = int(time.time())
        made = {"iss": self.issuer, "aud": "keyturn", "iat": now, "exp": now + 300}
        return {k: v for k, v in (made | claims).items() if v is not None}

    def sign(self, claims: dict[str, Any], **header: Any) -> str:
        return jwt.encode(claims, self.key, "ES256", headers={"kid": self.kid} | header)

    def id_token(self, **claims: Any) -> str:
        return self.sign(self.usual(**(self.person | claims | self.claims)))

    def logout_token(self, **claims: Any) -> dict[str, Any]:
        return self.usual(**({"jti": unique(), "events": {LOGOUT_EVENT: {}}} | claims))

    def authorize(self, location: str) -> str:
        """What the browser is sent back with: `code` and `state`."""
        asked = {k: v[0] for k, v in parse_qs(urlsplit(location).query).items()}
        assert asked["code_challenge_method"] == "S256"
        code = secrets.token_urlsafe()
        self.codes[code] = asked
        return f"code={code}&state={asked['state']}"


@contextmanager
def configured(folder: Path, issuer: str, **said: Any) -> Iterator[str]:
    """With this provider in KEYTURN_SSO_FILE; its slug."""
    published._kept.clear()
    slug = f"acme-{unique()}"
    entry = {
        "slug": slug,
        "name": "Acme",
        "issuer": issuer,
        "client_id": "keyturn",
        "client_secret": SECRET,
        "domains": ["example.com"],
    } | said
    path = folder / f"{slug}.yaml"
    path.write_text(yaml.safe_dump({"providers": [entry]}))
    # A machine that is busy with tests takes longer than a provider may.
    with override_settings(KEYTURN_SSO_FILE=str(path)), patch.object(published, "TIMEOUT", 60.0):
        yield slug


def come_back(client: Client, slug: str, provider: FakeProvider, **query: str) -> Any:
    """Sign in by this provider, up to where the browser is sent on to."""
    away = client.get(f"/sso/{slug}/login/", query)
    assert away.status_code == 302, away
    return client.get(f"/sso/{slug}/callback/?{provider.authorize(away['Location'])}")
