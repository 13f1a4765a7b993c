"""Every setting, each from one environment variable (listed in .env.example).

Where a variable isn't set, `.env` beside manage.py is asked, then the `env` file that
`manage.py up` leaves in its state folder, so that commands in another terminal reach the servers
that `up` runs. Any variable X may be given as a file's path in X_FILE instead.
"""

import ipaddress
import os
from pathlib import Path
from urllib.parse import urlsplit

import environs
from csp.constants import NONE, SELF
from django.core.exceptions import ImproperlyConfigured
from kombu import Queue

BASE_DIR = Path(__file__).resolve().parent.parent
env = environs.FileAwareEnv(strip_whitespace=True)
env.read_env(BASE_DIR / ".env", recurse=False)
KEYTURN_STATE_DIR = Path(env.str("KEYTURN_STATE_DIR", str(BASE_DIR / ".keyturn"))).resolve()
env.read_env(KEYTURN_STATE_DIR / "env", recurse=False)


def _origin(name: str, default: str) -> str:
    """The origin (scheme://host[:port]) in variable `name`.

    Plain http is for loopback alone: a session cookie or a credential must not cross a network
    in clear.
    """
    value = env.str(name, default).rstrip("/")
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path or parts.query:
        raise ImproperlyConfigured(
            f"{name} is {value!r}: give scheme and host only, such as https://keyturn.example.com"
        )
    if parts.scheme == "http" and parts.hostname not in {"localhost", "127.0.0.1", "::1"}:
        raise ImproperlyConfigured(
            f"{name} is {value!r}: http is for localhost only, use https://{parts.netloc}"
        )
    return value


# What Keyturn is called from outside. Links are built from these, never from a Host header.
KEYTURN_BASE_URL = _origin("KEYTURN_BASE_URL", "http://localhost:8000")
KEYTURN_GATEWAY_URL = _origin("KEYTURN_GATEWAY_URL", "http://localhost:8080")

# The demo: sign-ins listed on the sign-in page, a demo upstream. `manage.py up` sets these.
KEYTURN_DEMO = env.bool("KEYTURN_DEMO", False)
KEYTURN_DEMO_UPSTREAM_URL = env.str("KEYTURN_DEMO_UPSTREAM_URL", "http://127.0.0.1:8090")
KEYTURN_DEMO_UPSTREAM_KEY = env.str("KEYTURN_DEMO_UPSTREAM_KEY", "")

# Ports of `manage.py up`, all on loopback.
KEYTURN_WEB_PORT = env.int("KEYTURN_WEB_PORT", 8000)
KEYTURN_GATEWAY_PORT = env.int("KEYTURN_GATEWAY_PORT", 8080)
KEYTURN_DEMO_UPSTREAM_PORT = env.int("KEYTURN_DEMO_UPSTREAM_PORT", 8090)
KEYTURN_POSTGRES_PORT = env.int("KEYTURN_POSTGRES_PORT", 55432)
KEYTURN_VALKEY_PORT = env.int("KEYTURN_VALKEY_PORT", 56379)
KEYTURN_OPENBAO_PORT = env.int("KEYTURN_OPENBAO_PORT", 58200)

# Vault or OpenBao: address, the broker's own namespace, this process's AppRole.
VAULT_ADDR = env.str("VAULT_ADDR", f"http://127.0.0.1:{KEYTURN_OPENBAO_PORT}")
VAULT_NAMESPACE = env.str("VAULT_NAMESPACE", "keyturn")
VAULT_CACERT = env.str("VAULT_CACERT", "")
VAULT_ROLE_ID = env.str("VAULT_ROLE_ID", "web")
VAULT_SECRET_ID = env.str("VAULT_SECRET_ID", "")
VAULT_TIMEOUT = env.int("VAULT_TIMEOUT", 5)  # seconds for one call, then its outcome is unknown

# Seconds for which whoever verifies JWTs may keep the keys that are published for it.
KEYTURN_JWKS_MAX_AGE = env.int("KEYTURN_JWKS_MAX_AGE", 300)
if not 1 <= KEYTURN_JWKS_MAX_AGE <= 86400:
    raise ImproperlyConfigured("KEYTURN_JWKS_MAX_AGE must be from 1 s to a day")

# Gateway: seconds that it serves known grants while the database can't be reached.
KEYTURN_GATEWAY_MAX_STALE = env.float("KEYTURN_GATEWAY_MAX_STALE", 5.0)
KEYTURN_GATEWAY_MAX_BODY = env.int("KEYTURN_GATEWAY_MAX_BODY", 10_000_000)  # bytes
KEYTURN_GATEWAY_METRICS = env.str("KEYTURN_GATEWAY_METRICS", "")  # host:port, apart from calls
KEYTURN_GATEWAY_UPSTREAM_TIMEOUT = env.float("KEYTURN_GATEWAY_UPSTREAM_TIMEOUT", 600.0)  # seconds
KEYTURN_CALL_DAYS = env.int("KEYTURN_CALL_DAYS", 90)
if KEYTURN_CALL_DAYS < 1:
    raise ImproperlyConfigured("KEYTURN_CALL_DAYS must be 1 or more: the days calls are kept for")

# What workers may call: networks, "public" and "private". Set here alone, so that nobody who enters
# an endpoint in the app can have what is inside of the deployment called.
KEYTURN_OUTGOING_NETWORKS = env.list("KEYTURN_OUTGOING_NETWORKS", ["public", "private"])
# Which of these webhooks may call that aren't an administrator's: anybody enters one, and reads in
# its log what listens there.
KEYTURN_WEBHOOK_NETWORKS = env.list("KEYTURN_WEBHOOK_NETWORKS", ["public"])
for _name, _listed in {
    "KEYTURN_OUTGOING_NETWORKS": KEYTURN_OUTGOING_NETWORKS,
    "KEYTURN_WEBHOOK_NETWORKS": KEYTURN_WEBHOOK_NETWORKS,
}.items():
    for _entry in {*_listed} - {"public", "private"}:
        try:
            ipaddress.ip_network(_entry)
        except ValueError as error:
            raise ImproperlyConfigured(
                f"{_name} has {_entry!r}: give networks such as 10.0.0.0/8, public, private"
            ) from error

# Calls of the API a minute, of each caller and of each address that is nobody's. 0: no limit.
KEYTURN_API_READS_PER_MINUTE = env.int("KEYTURN_API_READS_PER_MINUTE", 1200)
KEYTURN_API_WRITES_PER_MINUTE = env.int("KEYTURN_API_WRITES_PER_MINUTE", 300)
if min(KEYTURN_API_READS_PER_MINUTE, KEYTURN_API_WRITES_PER_MINUTE) < 0:
    raise ImproperlyConfigured("KEYTURN_API_*_PER_MINUTE must be 0 (no limit) or more")

# Who has it reads web's /metrics. Empty: there is no such page.
KEYTURN_METRICS_TOKEN = env.str("KEYTURN_METRICS_TOKEN", "")
if 0 < len(KEYTURN_METRICS_TOKEN) < 32:
    raise ImproperlyConfigured("KEYTURN_METRICS_TOKEN is too short: make it 32 characters or more")

# Calls of the API that may wait for a decision at once, in each web process: each holds one of its
# threads for up to a minute. A quarter of those that granian is started with.
KEYTURN_WAITING = env.int("KEYTURN_WAITING", 4)
if KEYTURN_WAITING < 0:
    raise ImproperlyConfigured("KEYTURN_WAITING must be 0 or more")

# An empty key is refused by Django itself, with the setting's name, by whatever needs it first.
SECRET_KEY = env.str("KEYTURN_SECRET_KEY", "")
DEBUG = False
ALLOWED_HOSTS = [
    urlsplit(KEYTURN_BASE_URL).hostname,
    *env.list("KEYTURN_ALLOWED_HOSTS", ["localhost", "127.0.0.1"]),
]
CSRF_TRUSTED_ORIGINS = [KEYTURN_BASE_URL]
# Proxies in front: networks whose X-Forwarded-For and X-Forwarded-Proto are believed.
KEYTURN_TRUSTED_PROXIES: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
for _entry in env.list("KEYTURN_TRUSTED_PROXIES", []):
    try:
        KEYTURN_TRUSTED_PROXIES.append(ipaddress.ip_network(_entry))
    except ValueError as error:
        raise ImproperlyConfigured(
            f"KEYTURN_TRUSTED_PROXIES has {_entry!r}: give addresses or networks such as 10.0.0.0/8"
        ) from error
# A proxy at an unknown address that ends TLS and sets X-Forwarded-Proto itself, which is believed
# from anybody then; who called isn't.
KEYTURN_BEHIND_PROXY = env.bool("KEYTURN_BEHIND_PROXY", False)
if KEYTURN_BEHIND_PROXY or KEYTURN_TRUSTED_PROXIES:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")

INSTALLED_APPS = [
    "broker",
    "audit",
    "accounts",
    "notifications",
    "endpoints",
    "accessrequests",
    "credentials",
    "gateway",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.postgres",
    "django.contrib.staticfiles",
    "allauth",
    "allauth.account",
    "allauth.socialaccount",
    "allauth.socialaccount.providers.openid_connect",
    "csp",
    "django_filters",
    "django_htmx",
    "django_otp",
    "django_otp_webauthn",
    "drf_spectacular",
    "pgtrigger",
    "rest_framework",
]
MIDDLEWARE = [
    "broker.middleware.forwarded",
    "broker.tls.programs_by_tls",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    # Before sessions, which note the address of their last call.
    "broker.middleware.audit_context",
    "broker.token_in_url.no_token_in_url",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "broker.middleware.Slashes",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "accounts.middleware.session_window",
    "accounts.middleware.own_time_zone",
    "accounts.middleware.SecondFactorFirst",
    "broker.middleware.Problems",
]
ROOT_URLCONF = "broker.urls"
WSGI_APPLICATION = "broker.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "broker.context.portal",
            ]
        },
    }
]

DATABASES = {
    "default": env.dj_db_url(
        "DATABASE_URL",
        f"postgresql://keyturn@127.0.0.1:{KEYTURN_POSTGRES_PORT}/keyturn",
        conn_max_age=60,
        conn_health_checks=True,
    )
}
if DATABASES["default"]["ENGINE"] != "django.db.backends.postgresql":
    raise ImproperlyConfigured("DATABASE_URL must start with postgresql://")
# A server that hangs without closing its connections counts as down.
DATABASES["default"]["OPTIONS"] = {"connect_timeout": 3, "tcp_user_timeout": 5000} | DATABASES[
    "default"
].get("OPTIONS", {})
# A row lock that can't be had in 10 s is an error, not a queue of stuck requests.
DATABASES["default"]["OPTIONS"].setdefault(
    "options",
    "-c lock_timeout=10s -c statement_timeout=30s -c idle_in_transaction_session_timeout=30s",
)
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

REDIS_URL = env.str("REDIS_URL", f"redis://127.0.0.1:{KEYTURN_VALKEY_PORT}/0")
CELERY_BROKER_URL = REDIS_URL
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_TASK_TIME_LIMIT = 50
CELERY_TASK_SOFT_TIME_LIMIT = 45
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_DB_REUSE_MAX = 1000
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_TRANSPORT_OPTIONS = {
    # Without the two unacked_* a killed worker's message comes back only after 100 s.
    "visibility_timeout": 60,
    "unacked_restore_interval": 5,
    "unacked_restore_throttle": 1,
    "socket_timeout": 5,
    "socket_connect_timeout": 2,
    # Queues are read in this order, so that a flood of others holds up no revocation.
    "queue_order_strategy": "priority",
}
CELERY_TASK_QUEUES = (Queue("revocations"), Queue("celery"))
CELERY_TASK_ROUTES = {"credentials.tasks.*": {"queue": "revocations"}}
CELERY_BEAT_SCHEDULE = {
    # The sweep is idempotent: a second beat is harmless, and a tick that waited is worthless.
    "sweep": {
        "task": "credentials.tasks.sweep",
        "schedule": 1.0,
        "options": {"expires": 5},
    },
    "tidy": {
        "task": "accounts.tasks.tidy",
        "schedule": 3600.0,
        "options": {"expires": 3600},
    },
    "forget-notifications": {
        "task": "notifications.tasks.forget",
        "schedule": 3600.0,
        "options": {"expires": 3600},
    },
}

# Mail: off unless there is a server to hand it to.
_mail = env.dj_email_url("KEYTURN_EMAIL_URL", "")
KEYTURN_EMAIL = bool(_mail.get("EMAIL_HOST") or _mail.get("EMAIL_FILE_PATH"))
if KEYTURN_EMAIL and "EMAIL_BACKEND" not in _mail:
    raise ImproperlyConfigured("KEYTURN_EMAIL_URL must start with smtp:// or submission://")
EMAIL_BACKEND = _mail.get("EMAIL_BACKEND", "django.core.mail.backends.dummy.EmailBackend")
EMAIL_HOST = _mail.get("EMAIL_HOST") or "localhost"
EMAIL_PORT = _mail.get("EMAIL_PORT") or 25
EMAIL_HOST_USER = _mail.get("EMAIL_HOST_USER") or ""
EMAIL_HOST_PASSWORD = _mail.get("EMAIL_HOST_PASSWORD") or ""
EMAIL_USE_TLS = _mail.get("EMAIL_USE_TLS", False)
EMAIL_USE_SSL = _mail.get("EMAIL_USE_SSL", False)
EMAIL_FILE_PATH = _mail.get("EMAIL_FILE_PATH") or None
EMAIL_TIMEOUT = _mail.get("EMAIL_TIMEOUT") or 10  # seconds for each step of handing a mail over
if EMAIL_HOST_PASSWORD and not (
    EMAIL_USE_TLS or EMAIL_USE_SSL or EMAIL_HOST in {"localhost", "127.0.0.1", "::1"}
):
    raise ImproperlyConfigured(
        "KEYTURN_EMAIL_URL would send its password in clear: use submission://, or add ?ssl=true"
    )
DEFAULT_FROM_EMAIL = env.str("KEYTURN_EMAIL_FROM", "Keyturn <keyturn@localhost>")
# Chat: a URL of apprise's with {handle} where the person's name there goes. It is a secret.
KEYTURN_CHAT_URL = env.str("KEYTURN_CHAT_URL", "")
if KEYTURN_CHAT_URL and "{handle}" not in KEYTURN_CHAT_URL:
    raise ImproperlyConfigured("KEYTURN_CHAT_URL must have {handle} where a person's name goes")

AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend"]
LOGIN_URL = "sign-in"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "sign-in"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.Argon2PasswordHasher"]
AUTH_PASSWORD_VALIDATORS = [
    {
        "NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator",
        "OPTIONS": {"user_attributes": ["email", "full_name"]},
    },
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 12},
    },
    {"NAME": "accounts.passwords.NotLeaked"},
    {"NAME": "accounts.passwords.NotFromContext"},
]
# Words that no password may be made of, such as the company's name.
KEYTURN_PASSWORD_WORDS: list[str] = env.list("KEYTURN_PASSWORD_WORDS", [])

# Single sign-on: a file of OpenID providers, and whether people may sign in by password beside it.
KEYTURN_SSO_FILE = env.str("KEYTURN_SSO_FILE", "")
KEYTURN_PASSWORD_SIGN_IN = env.bool("KEYTURN_PASSWORD_SIGN_IN", True)
if not KEYTURN_PASSWORD_SIGN_IN and not KEYTURN_SSO_FILE:
    raise ImproperlyConfigured("KEYTURN_PASSWORD_SIGN_IN is false: then KEYTURN_SSO_FILE is needed")
# allauth speaks to the providers and does nothing else: accounts are ours.
SOCIALACCOUNT_ADAPTER = "accounts.sso.adapter.Adapter"
SOCIALACCOUNT_ONLY = True
SOCIALACCOUNT_STORE_TOKENS = False
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*"]

# Passkeys are bound to the portal's own host and origin.
OTP_WEBAUTHN_RP_ID = urlsplit(KEYTURN_BASE_URL).hostname
OTP_WEBAUTHN_RP_NAME = "Keyturn"
OTP_WEBAUTHN_ALLOWED_ORIGINS = [KEYTURN_BASE_URL]
OTP_WEBAUTHN_TIMEOUT_SECONDS = 120

_tls = KEYTURN_BASE_URL.startswith("https://")
SESSION_ENGINE = "accounts.sessions"
# `__Host-` needs Secure; browsers take Secure cookies from http://localhost too, other clients
# of `make up` don't, so the prefix comes with TLS.
SESSION_COOKIE_NAME = "__Host-keyturn" if _tls else "keyturn"
SESSION_COOKIE_SECURE = _tls
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_AGE = 30 * 60  # idle, seconds; renewed by use
SESSION_SAVE_EVERY_REQUEST = True
KEYTURN_SESSION_MAX = 12 * 60 * 60  # from sign-in, seconds
CSRF_COOKIE_NAME = "__Host-keyturn-csrf" if _tls else "keyturn-csrf"
CSRF_COOKIE_SECURE = _tls
CSRF_COOKIE_HTTPONLY = True
CSRF_FAILURE_VIEW = "broker.views.csrf_failure"
SECURE_SSL_REDIRECT = _tls
SECURE_HSTS_SECONDS = 63_072_000 if _tls else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = _tls
SECURE_HSTS_PRELOAD = _tls
SECURE_REDIRECT_EXEMPT = [r"^healthz/$"]
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        # Tabler draws the arrow of a select and the tick of a checkbox as data: images.
        "img-src": [SELF, "data:"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
        "base-uri": [NONE],
        "manifest-src": [SELF],
    }
}

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = False
STATIC_URL = "static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
# Names with a hash, kept by browsers for ever, once `collectstatic` has run (the image does);
# before that, files come straight from static/.
_collected = BASE_DIR / "staticfiles"
_hashed = (_collected / "staticfiles.json").exists() or bool(os.environ.get("KEYTURN_COLLECTING"))
STATIC_ROOT = _collected if _hashed else None
WHITENOISE_USE_FINDERS = not _hashed
STORAGES = {
    "staticfiles": {
        "BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"
        if _hashed
        else "django.contrib.staticfiles.storage.StaticFilesStorage"
    }
}

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "accounts.authentication.TokenAuthentication",
        "accounts.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": [
        "rest_framework.permissions.IsAuthenticated",
        "accounts.scope_permission.InScope",
        "accounts.factor_in_call.FactorInCall",
    ],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_PAGINATION_CLASS": "broker.pagination.Cursor",
    "DEFAULT_FILTER_BACKENDS": ["accounts.filters.StrictFilterBackend"],
    "DEFAULT_SCHEMA_CLASS": "broker.schema.Schema",
    "EXCEPTION_HANDLER": "broker.problems.problem_response",
    "PAGE_SIZE": 50,
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Keyturn",
    "DESCRIPTION": "Just-in-time privileged access to LLM endpoints. "
    "File an access request, have it reviewed, check a credential out, give it back.",
    "VERSION": "1",
    "OAS_VERSION": "3.1.1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
    "APPEND_COMPONENTS": {
        "securitySchemes": {
            "secondFactor": {
                "type": "apiKey",
                "in": "header",
                "name": "Keyturn-Second-Factor",
                "description": "beside a person's own API token: a code of their authenticator or "
                "a recovery code, for this call alone",
            }
        }
    },
    "GET_LIB_DOC_EXCLUDES": "broker.schema.doc_excludes",
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "notifications.webhooks.documented.add_webhooks",
        "broker.schema.add_examples",
        "broker.schema.link",
    ],
    "ENUM_NAME_OVERRIDES": {
        "RequestState": "accessrequests.states.RequestState",
        "EmailChoice": "notifications.kinds.Email",
        "CommentKind": "accessrequests.models.Comment.Kind",
        "GrantState": "accessrequests.states.GrantState",
        "CredentialState": "credentials.states.CredentialState",
        "RotationState": "credentials.states.RotationState",
        "TokenKind": "accounts.models.ApiToken.Kind",
        "Verb": "accounts.scopes.Verb",
        "WorkloadVerb": "accounts.api_workloads.VERBS",
    },
}

KEYTURN_LOG_LEVEL = env.str("KEYTURN_LOG_LEVEL", "INFO").upper()
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"redact": {"()": "audit.redaction.Redact"}},
    "formatters": {
        "line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"},
    },
    "handlers": {
        "stderr": {
            "class": "logging.StreamHandler",
            "formatter": "line",
            "filters": ["redact"],
        },
        "nowhere": {"class": "logging.NullHandler"},
    },
    "root": {"handlers": ["stderr"], "level": KEYTURN_LOG_LEVEL},
    "loggers": {
        "django": {"handlers": [], "level": "INFO", "propagate": True},
        "django.server": {"handlers": [], "propagate": True},
        # These two write the addresses that they call, and a chat's has its secret in it.
        "apprise": {"handlers": ["nowhere"], "propagate": False},
        "urllib3": {"level": "WARNING"},
        "celery": {"level": "INFO"},
        # A line for each of the sweep's ticks would bury everything else.
        "celery.app.trace": {"level": "WARNING"},
        "celery.worker.strategy": {"level": "WARNING"},
        "celery.beat": {"level": "WARNING"},
    },
}
