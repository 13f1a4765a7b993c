"""`.env.example` says what broker/settings.py reads, and bad values are refused by name."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = ast.parse((ROOT / "broker" / "settings.py").read_text())
# Read by the servers that run web and gateway, with those servers' own defaults.
OF_SERVERS = {
    "GRANIAN_HOST": "127.0.0.1",
    "GRANIAN_PORT": "8000",
    "UVICORN_HOST": "127.0.0.1",
    "UVICORN_PORT": "8000",
}


class Unreadable(Exception):
    """An expression in the settings that this test doesn't understand."""


def value(node: ast.expr, known: dict[str, Any]) -> Any:
    """What a default in the settings is: constants, names of other settings, paths from them."""
    match node:
        case ast.Constant():
            return node.value
        case ast.List():
            return [value(item, known) for item in node.elts]
        case ast.Name():
            return known[node.id]
        case ast.JoinedStr():
            return "".join(str(value(part, known)) for part in node.values)
        case ast.FormattedValue():
            return value(node.value, known)
        case ast.BinOp(op=ast.Div()):
            return value(node.left, known) / value(node.right, known)
        case ast.Call(func=ast.Name(id="str"), args=[only]):
            return str(value(only, known))
    raise Unreadable(ast.unparse(node))


def reads(node: ast.AST) -> tuple[str, ast.expr | None] | None:
    """The variable and the default of `env.type("NAME", default)`, if this is such a call."""
    match node:
        case ast.Call(
            func=ast.Attribute(value=ast.Name(id="env")) | ast.Name(id="_origin"),
            args=[ast.Constant(value=str(name)), default, *_],
        ):
            return name, default
        case ast.Call(
            func=ast.Attribute(attr="get", value=ast.Attribute(attr="environ")),
            args=[ast.Constant(value=str(name)), *_],
        ):
            return name, None
        case ast.Call(
            func=ast.Attribute(value=ast.Name(id="env")), args=[ast.Constant(value=str(name))]
        ):
            raise AssertionError(f"{name} has no default: everything must run on defaults")
    return None


def in_words(default: Any) -> str:
    """A default as an environment variable would say it."""
    if default is None:
        return ""
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, list):
        return ",".join(default)
    return str(default)


def of_settings() -> dict[str, str]:
    """Each variable that the settings read, with its default."""
    known: dict[str, Any] = {"BASE_DIR": Path()}
    found = {}
    for statement in SETTINGS.body:
        for node in ast.walk(statement):
            variable = reads(node)
            if variable is None:
                continue
            name, expression = variable
            default = None if expression is None else value(expression, known)
            found[name] = in_words(default)
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                known.setdefault(statement.targets[0].id, default)
    return found


def of_compose() -> dict[str, str]:
    """Each variable that docker-compose.yml takes from its caller, with its default there."""
    text = (ROOT / "docker-compose.yml").read_text()
    return dict(re.findall(r"\$\{([A-Z_]+):-([^}]*)\}", text))


def of_example() -> dict[str, str]:
    """Each variable of .env.example, with its value there."""
    lines = (ROOT / ".env.example").read_text().splitlines()
    matches = [match for line in lines if (match := re.fullmatch(r"#([A-Z_]+)=(.*)", line))]
    found = {match[1]: match[2] for match in matches}
    assert len(found) == len(matches), "a variable has two lines"
    return found


def test_the_settings_were_understood():
    found = of_settings()
    assert {"KEYTURN_BASE_URL", "DATABASE_URL", "VAULT_SECRET_ID", "KEYTURN_STATE_DIR"} <= set(
        found
    )
    text = (ROOT / "broker" / "settings.py").read_text()
    assert set(re.findall(r'"((?:KEYTURN|VAULT|REDIS|DATABASE)_[A-Z_]+)"', text)) == set(found)


def test_the_example_has_every_variable_with_its_default_and_no_other():
    assert of_example() == of_settings() | OF_SERVERS | of_compose()


def test_each_line_of_the_example_is_a_comment_or_a_variable_that_is_off():
    # Copied to .env as it is, it must change nothing: a DATABASE_URL there stops `make up` from
    # starting its own PostgreSQL.
    for line in (ROOT / ".env.example").read_text().splitlines():
        assert re.fullmatch(r"|#|# .*|#[A-Z_]+=.*", line), line


def test_each_variable_of_the_example_follows_a_comment():
    before = ""
    for line in (ROOT / ".env.example").read_text().splitlines():
        if re.match("#[A-Z]", line):
            assert before.startswith("#"), f"nothing says what {line} is"
        before = line


def test_the_servers_variables_are_those_of_the_supervisor():
    supervisor = (ROOT / "broker" / "embedded" / "supervisor.py").read_text()
    assert set(re.findall(r'"((?:GRANIAN|UVICORN)_[A-Z_]+)"', supervisor)) == set(OF_SERVERS)


def load(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("KEYTURN_", "VAULT_"))}
    for name in ("DATABASE_URL", "REDIS_URL"):
        clean.pop(name, None)
    return subprocess.run(
        [sys.executable, "-c", f"from broker import settings; {script}"],
        env=clean | {"KEYTURN_STATE_DIR": "/nonexistent"} | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("KEYTURN_WEB_PORT", "eighty"),
        ("KEYTURN_DEMO", "perhaps"),
        ("KEYTURN_BASE_URL", "http://keyturn.example.com"),
        ("KEYTURN_BASE_URL", "https://keyturn.example.com/portal"),
        ("KEYTURN_GATEWAY_URL", "gateway.example.com"),
        ("DATABASE_URL", "sqlite:///db.sqlite3"),
        ("KEYTURN_EMAIL_URL", "mail.example.com:25"),
        ("KEYTURN_EMAIL_URL", "smtp://keyturn:s3cret@mail.example.com"),
        ("KEYTURN_EMAIL_URL", "smtp://mail.example.com:port"),
        ("KEYTURN_CHAT_URL", "slack://s3cret/b/c"),
        ("KEYTURN_OUTGOING_NETWORKS", "public,10.0.0.1/8"),
        ("KEYTURN_OUTGOING_NETWORKS", "everything"),
        ("KEYTURN_WEBHOOK_NETWORKS", "inside"),
        ("KEYTURN_TRUSTED_PROXIES", "10.0.0.1/8"),
    ],
)
def test_a_bad_value_stops_the_start_and_is_named(name, bad):
    assert load("pass").returncode == 0
    done = load("pass", **{name: bad})
    assert done.returncode != 0
    assert name in done.stderr.splitlines()[-1]
    assert "s3cret" not in done.stderr


def test_a_value_can_come_from_a_file(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("from-a-file\n")
    done = load("print(settings.VAULT_SECRET_ID)", VAULT_SECRET_ID_FILE=str(secret))
    assert done.stdout == "from-a-file\n"


def test_with_tls_cookies_are_bound_to_the_host():
    told = (
        "s = settings; print(s.SESSION_COOKIE_NAME, s.CSRF_COOKIE_NAME, s.SESSION_COOKIE_SECURE,"
        " s.CSRF_COOKIE_SECURE, s.SESSION_COOKIE_HTTPONLY, s.CSRF_COOKIE_HTTPONLY,"
        " s.SESSION_COOKIE_SAMESITE, s.SECURE_HSTS_SECONDS > 31_536_000)"
    )
    done = load(told, KEYTURN_BASE_URL="https://keyturn.example.com")
    names = "__Host-keyturn __Host-keyturn-csrf"
    assert done.stdout.strip() == f"{names} True True True True Lax True", done.stderr
