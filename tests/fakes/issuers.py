"""Issuers of workloads' JWTs that a test runs: discovery, keys, and claims as the vendors publish
them."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.world import unique

AUDIENCE = "https://keyturn.acme.example"


class Issuer:
    """Serves on a port of loopback from `with` to its end, and signs what a test says."""

    def __init__(self, algorithm: str = "ES256") -> None:
        self.algorithm = algorithm
        self.served: dict[str, Any] = {}
        self.calls: list[str] = []
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                issuer.calls.append(self.path)
                found = issuer.served.get(self.path, issuer.usual().get(self.path, 404))
                if callable(found):
                    found = found(self)
                status, body = (found, b"{}") if isinstance(found, int) else (200, found)
                text = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", f"{issuer.url}/moved")
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.rotate()

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def rotate(self) -> None:
        """Sign by another key, and publish no other."""
        self.key: Any = (
            ec.generate_private_key(ec.SECP256R1())
            if self.algorithm.startswith("ES")
            else rsa.generate_private_key(public_exponent=65537, key_size=2048)
        )
        self.kid = unique()

    def jwk(self) -> dict[str, Any]:
        """Its public key."""
        kind = jwt.get_algorithm_by_name(self.algorithm)
        made: dict[str, Any] = kind.to_jwk(self.key.public_key(), as_dict=True)
        return made | {"kid": self.kid, "use": "sig", "alg": self.algorithm}

    def usual(self) -> dict[str, Any]:
        return {
            "/.well-known/openid-configuration": {
                "issuer": self.url,
                "jwks_uri": f"{self.url}/keys",
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": [self.algorithm],
            },
            "/keys": {"keys": [self.jwk()]},
            "/moved": {"keys": [self.jwk()]},
        }

    @contextmanager
    def serving(self, path: str, answer: Any) -> Iterator[None]:
        """Answer otherwise there: a status, a body, or what makes one of the call."""
        self.served[path] = answer
        try:
            yield
        finally:
            del self.served[path]

    def sign(self, claims: dict[str, Any], **header: Any) -> str:
        """A JWT of these claims, but for those that are None."""
        said = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(said, self.key, self.algorithm, headers={"kid": self.kid} | header)

    def github(self, **claims: Any) -> str:
        """As a job of GitHub Actions gets one."""
        now = int(time.time())
        return self.sign(
            {
                "jti": unique(),
                "sub": "repo:octo-org/octo-repo:environment:prod",
                "environment": "prod",
                "aud": AUDIENCE,
                "ref": "refs/heads/main",
                "sha": "83e1c8b5d2a94f6c9f0a7f2b6d1f0c3e5a4b7d90",
                "repository": "octo-org/octo-repo",
                "repository_owner": "octo-org",
                "actor_id": "12",
                "repository_visibility": "private",
                "repository_id": "74",
                "repository_owner_id": "65",
                "run_id": "4711",
                "run_number": "10",
                "run_attempt": "2",
                "runner_environment": "github-hosted",
                "actor": "octocat",
                "workflow": "nightly",
                "head_ref": "",
                "base_ref": "",
                "event_name": "schedule",
                "enterprise": "avocado-corp",
                "enterprise_id": "2",
                "ref_type": "branch",
                "ref_protected": "true",
                "job_workflow_ref": "octo-org/octo-repo/.github/workflows/oidc.yml@refs/heads/main",
                "iss": self.url,
                "nbf": now - 600,
                "exp": now + 300,
                "iat": now,
            }
            | claims,
            typ="JWT",
            x5t="example-thumbprint",
        )

    def gitlab(self, **claims: Any) -> str:
        """As a job of GitLab gets one by `id_tokens`."""
        now = int(time.time())
        return self.sign(
            {
                "namespace_id": "72",
                "namespace_path": "my-group",
                "project_id": "20",
                "project_path": "my-group/my-project",
                "user_id": "1",
                "user_login": "sample-user",
                "user_email": "sample-user@example.com",
                "user_access_level": "developer",
                "user_identities": [{"provider": "github", "extern_uid": "2435223452345"}],
                "pipeline_id": "574",
                "pipeline_source": "push",
                "job_id": "302",
                "ref": "main",
                "ref_type": "branch",
                "ref_path": "refs/heads/main",
                "ref_protected": "true",
                "groups_direct": ["mygroup/mysubgroup", "myothergroup"],
                "environment": "test-environment2",
                "environment_protected": "false",
                "deployment_tier": "testing",
                "environment_action": "start",
                "runner_id": 1,
                "runner_environment": "self-hosted",
                "sha": "714a629c0b401fdce83e847fc9589983fc6f46bc",
                "project_visibility": "public",
                "ci_config_ref_uri": (
                    "gitlab.example.com/my-group/my-project//.gitlab-ci.yml@refs/heads/main"
                ),
                "ci_config_sha": "714a629c0b401fdce83e847fc9589983fc6f46bc",
                "jti": unique(),
                "iss": self.url,
                "iat": now,
                "nbf": now - 5,
                "exp": now + 3600,
                "sub": "project_path:my-group/my-project:ref_type:branch:ref:main",
                "aud": AUDIENCE,
            }
            | claims,
            typ="JWT",
        )

    def kubernetes(self, **claims: Any) -> str:
        """As a pod gets one by a projected volume."""
        now = int(time.time())
        return self.sign(
            {
                "aud": [AUDIENCE],
                "exp": now + 607,
                "iat": now,
                "iss": self.url,
                "jti": unique(),
                "kubernetes.io": {
                    "namespace": "evaluation",
                    "node": {"name": "worker-1", "uid": "646e7c5e-32d6-4d42-9dbd-e504e6cbe6b1"},
                    "pod": {"name": "nightly-x7k2p", "uid": "5e0bd49b-f040-43b0-99b7-22765a53f7f3"},
                    "serviceaccount": {
                        "name": "nightly",
                        "uid": "14ee3fa4-a7e2-420f-9f9a-dbc4507c3798",
                    },
                },
                "nbf": now,
                "sub": "system:serviceaccount:evaluation:nightly",
            }
            | claims
        )
