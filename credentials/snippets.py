"""How to use a credential, ready to paste. The secret itself is in none of these."""

from dataclasses import dataclass

from endpoints.models import Dialect, Endpoint


@dataclass(frozen=True)
class Snippet:
    """One way to use it."""

    key: str
    label: str
    text: str


def snippets(endpoint: Endpoint, gateway: str, model: str) -> list[Snippet]:
    """Environment variables first, then clients that read them.

    `gateway` is the gateway's origin, without a slash at its end.
    """
    base = f"{gateway}/e/{endpoint.slug}"
    found = []
    lines: list[str] = []
    keys: list[str] = []
    if Dialect.OPENAI in endpoint.dialects:
        lines.append(f"export OPENAI_BASE_URL={base}/v1")
        keys.append("OPENAI_API_KEY")
    if Dialect.ANTHROPIC in endpoint.dialects:
        lines.append(f"export ANTHROPIC_BASE_URL={base}")
        keys.append("ANTHROPIC_API_KEY")
    if Dialect.HTTP in endpoint.dialects:
        keys.append("KEYTURN_KEY")
    # Typed into a prompt, the credential stays out of the shell's history.
    lines.append("printf 'Credential: '; read -rs KEY; echo; \\")
    lines.append("export " + " ".join(f'{key}="$KEY"' for key in keys))
    found.append(Snippet("env", "Environment", "\n".join(lines)))
    if Dialect.OPENAI in endpoint.dialects:
        found.append(
            Snippet(
                "curl",
                "curl",
                f"""curl {base}/v1/chat/completions \\
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
client = OpenAI(base_url="{base}/v1")
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
client = Anthropic(base_url="{base}")
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
                f"""curl {base}/ \\
  -H "Authorization: Bearer $KEYTURN_KEY\"""",
            )
        )
    return found
