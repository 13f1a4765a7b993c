"""A dashboard behind the gateway, and ways to call it that no HTTP client tidies up."""

import http.client
import json
from dataclasses import dataclass, field
from typing import Any

from accessrequests.models import Grant
from credentials.actions import check_out
from endpoints.models import Endpoint
from tests.conftest import RunningGateway
from tests.world import World

ORIGIN = "http://localhost:8080"  # what the `gateway` fixture's process takes for its own
OPERATIONS = ["GET /admin/", "POST /admin/api", "* /admin/echo", "WEBSOCKET /admin/ws"]


@dataclass
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes
    sent: dict[str, str] = field(default_factory=dict)

    def header(self, name: str) -> str:
        return ", ".join(v for n, v in self.headers if n.lower() == name)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        code: str = self.json["error"]["code"]
        return code


@dataclass
class Dashboard:
    """One grant on one plain HTTP endpoint, with its credential."""

    gateway: RunningGateway
    grant: Grant
    secret: str

    @property
    def endpoint(self) -> Endpoint:
        return self.grant.request.profile.endpoint

    @property
    def slug(self) -> str:
        return self.endpoint.slug

    def send(
        self,
        path: str,
        method: str = "GET",
        headers: dict[str, str] | list[tuple[str, str]] = (),  # type: ignore[assignment]
        body: bytes | None = None,
        *,
        key: bool = True,
    ) -> Answer:
        """`path` goes out as it is."""
        wire = http.client.HTTPConnection(self.gateway.url.removeprefix("http://"), timeout=20)
        pairs = list(headers.items()) if isinstance(headers, dict) else list(headers)
        if key:
            pairs.append(("Authorization", f"Bearer {self.secret}"))
        wire.putrequest(method, f"/e/{self.slug}{path}", skip_accept_encoding=True)
        if body is not None:
            pairs.append(("Content-Length", str(len(body))))
        for name, value in pairs:
            wire.putheader(name, value)
        wire.endheaders(body)
        got = wire.getresponse()
        answer = Answer(got.status, got.getheaders(), got.read())
        wire.close()
        assert self.secret not in str(answer)
        return answer


def dashboard(
    world: World,
    gateway: RunningGateway,
    operations: list[str] | None = None,
    *,
    dialects: list[str] | None = None,
    limits: dict[str, Any] | None = None,
    **fields: Any,
) -> Dashboard:
    """A live grant of these operations on an endpoint of its own."""
    endpoint = world.endpoint(dialects=dialects or ["http"], kind="dashboard", **fields)
    scope = {"operations": OPERATIONS if operations is None else operations} | (limits or {})
    if "openai" in endpoint.dialects:
        scope["models"] = ["demo-small"]
    grant = world.grant(profile=world.profile(endpoint=endpoint, models=None, scope=scope))
    return Dashboard(gateway, grant, check_out(by=grant.holder, grant_id=grant.pk).secret)
