"""How to use a credential, ready to paste. The secret itself is in none of these."""

import json
import shlex
from dataclasses import dataclass
from urllib.parse import urlsplit

from django.conf import settings

from credentials.models import Credential
from endpoints.models import AccessProfile, Dialect, Endpoint


@dataclass(frozen=True)
class Snippet:
    """One way to use it."""

    key: str
    label: str
    text: str


def opens_gateway(profile: AccessProfile) -> bool:
    """Whether its credentials are for the gateway, rather than for what is behind it."""
    if profile.endpoint.is_direct:
        return False
    match profile.credential_kind:
        case "gateway_token":
            return True
        case "jwt":
            return not profile.kind_settings.get("audience")
    return False


def base_url(profile: AccessProfile) -> str:
    """Where its credentials are used: at the gateway, or at the endpoint's own address."""
    if opens_gateway(profile):
        return f"{settings.KEYTURN_GATEWAY_URL}/e/{profile.endpoint.slug}"
    return profile.endpoint.upstream_url.rstrip("/")


def snippets(profile: AccessProfile, model: str) -> list[Snippet]:
    """Environment variables first, then clients that read them."""
    base = base_url(profile)
    match profile.credential_kind:
        case "database":
            return _database(profile)
        case "client_certificate":
            return _certificate(base)
    if set(profile.endpoint.dialects) & {Dialect.OPENAI, Dialect.ANTHROPIC, Dialect.HTTP}:
        return _dialects(profile.endpoint, base, model)
    return _direct(profile.endpoint, base)


def unwrapping(credential: Credential) -> list[Snippet]:
    """How to read a wrapped secret, once: at Vault, or where that can't be reached, here."""
    ask = "printf 'Wrapping token: '; read -rs TOKEN; echo"
    place = f"BAO_ADDR={shlex.quote(settings.VAULT_ADDR)}"
    if settings.VAULT_NAMESPACE:
        place += f" BAO_NAMESPACE={shlex.quote(settings.VAULT_NAMESPACE)}"
    here = f"{settings.KEYTURN_BASE_URL}/api/v1/credentials/{credential.pk}/unwrap/"
    # The token is never an argument: those are in everybody's `ps`.
    return [
        Snippet(
            "bao",
            "OpenBao",
            f'export {place}\n{ask}; \\\nBAO_TOKEN="$TOKEN" bao unwrap -format=json',
        ),
        Snippet(
            "api",
            "Keyturn’s API",
            f"# KEYTURN_TOKEN is an API token of somebody who may see this grant.\n"
            f"{ask}; \\\n"
            'printf \'{"token": "%s"}\' "$TOKEN" | curl -s --json @- \\\n'
            "  -H @<(printf 'Authorization: Bearer %s' \"$KEYTURN_TOKEN\") \\\n"
            f"  {shlex.quote(here)}",
        ),
    ]


def _asked_for(what: str, *names: str) -> str:
    """Typed into a prompt, the credential stays out of the shell's history."""
    exports = " ".join(f'{name}="$KEY"' for name in names)
    return f"printf '{what}: '; read -rs KEY; echo; \\\nexport {exports}"


def _database(profile: AccessProfile) -> list[Snippet]:
    url = urlsplit(profile.kind_settings.get("target") or profile.endpoint.upstream_url)
    named = {
        "PGHOST": url.hostname or "",
        "PGPORT": str(url.port or 5432),
        "PGDATABASE": url.path.lstrip("/"),
        "PGSSLMODE": profile.kind_settings.get("sslmode", "verify-full"),
    }
    exports = " ".join(f"{name}={shlex.quote(value)}" for name, value in named.items())
    return [
        Snippet(
            "psql",
            "psql",
            f"export {exports}\n"
            "printf 'User name: '; read -r PGUSER; export PGUSER; \\\n"
            "printf 'Password: '; read -rs PGPASSWORD; echo; export PGPASSWORD\n"
            "psql",
        ),
        Snippet(
            "psycopg",
            "Python",
            "import psycopg\n\n"
            "# Everything is read from the variables that psql reads.\n"
            "with psycopg.connect() as database:\n"
            '    print(database.execute("SELECT current_user").fetchone())',
        ),
    ]


def _certificate(base: str) -> list[Snippet]:
    return [
        Snippet(
            "curl",
            "curl",
            "# client.pem is the key and the certificate in one file.\n"
            f"chmod 600 client.pem\ncurl --cert client.pem {shlex.quote(base + '/')}",
        ),
        Snippet(
            "python",
            "Python",
            "import ssl\n\nimport httpx\n\n"
            "context = ssl.create_default_context()\n"
            'context.load_cert_chain("client.pem")\n'
            f"print(httpx.get({json.dumps(base + '/')}, verify=context).text)",
        ),
    ]


def _direct(endpoint: Endpoint, base: str) -> list[Snippet]:
    address = f"export KEYTURN_ADDRESS={shlex.quote(base)}"
    found = [
        Snippet("env", "Environment", f"{address}\n{_asked_for('Credential', 'KEYTURN_KEY')}"),
    ]
    if urlsplit(base).scheme in {"http", "https"} and endpoint.key_header != "none":
        found.append(
            Snippet("curl", "curl", f"curl {shlex.quote(base + '/')} \\\n  {_header(endpoint)}")
        )
    return found


def _header(endpoint: Endpoint, key: str = "KEYTURN_KEY") -> str:
    if endpoint.key_header:
        return f'-H "{endpoint.key_header}: ${key}"'
    return f'-H "Authorization: Bearer ${key}"'


def _dialects(endpoint: Endpoint, base: str, model: str) -> list[Snippet]:
    found = []
    lines: list[str] = []
    keys: list[str] = []
    if Dialect.OPENAI in endpoint.dialects:
        lines.append(f"export OPENAI_BASE_URL={shlex.quote(base + '/v1')}")
        keys.append("OPENAI_API_KEY")
    if Dialect.ANTHROPIC in endpoint.dialects:
        lines.append(f"export ANTHROPIC_BASE_URL={shlex.quote(base)}")
        keys.append("ANTHROPIC_API_KEY")
    if Dialect.HTTP in endpoint.dialects:
        keys.append("KEYTURN_KEY")
    lines.append(_asked_for("Credential", *keys))
    found.append(Snippet("env", "Environment", "\n".join(lines)))
    if Dialect.OPENAI in endpoint.dialects:
        found.append(
            Snippet(
                "curl",
                "curl",
                f"""curl {shlex.quote(base + "/v1/chat/completions")} \\
  -H "Authorization: Bearer $OPENAI_API_KEY" \\
  -H "Content-Type: application/json" \\
  -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello"}}]}}'""",
            )
        )
        found.append(
            Snippet(
                "openai",
                "OpenAI SDK",
                f"""from openai import OpenAI

# The credential is read from OPENAI_API_KEY.
client = OpenAI(base_url={json.dumps(base + "/v1")})
answer = client.chat.completions.create(
    model="{model}",
    messages=[{{"role": "user", "content": "Hello"}}],
)
print(answer.choices[0].message.content)""",
            )
        )
    if Dialect.ANTHROPIC in endpoint.dialects:
        found.append(
            Snippet(
                "anthropic",
                "Anthropic SDK",
                f"""from anthropic import Anthropic

# The credential is read from ANTHROPIC_API_KEY.
client = Anthropic(base_url={json.dumps(base)})
answer = client.messages.create(
    model="{model}",
    max_tokens=500,
    messages=[{{"role": "user", "content": "Hello"}}],
)
print(answer.content[0].text)""",
            )
        )
    if Dialect.HTTP in endpoint.dialects:
        found.append(
            Snippet(
                "http",
                "HTTP",
                f"""curl {shlex.quote(base + "/")} \\
  -H "Authorization: Bearer $KEYTURN_KEY\"""",
            )
        )
    return found
