"""What `make up` has to look at: examples/, with passwords and the demo upstream."""

from django.conf import settings

from accessrequests.actions.policies import save_policy
from accessrequests.models import Policy
from accessrequests.policy.cases import SUFFIX
from accessrequests.policy.reading import read
from accounts.models import User
from broker import inventory
from credentials import vault
from credentials.actions import store_upstream_key
from endpoints.models import Endpoint

FILE = settings.BASE_DIR / "examples" / "inventory.yaml"
POLICIES = settings.BASE_DIR / "examples" / "policies"
PASSWORD = "turn-the-key-2026"  # noqa: S105 -- for loopback, and said on the sign-in page
SIGN_INS = [
    ("ana@example.com", PASSWORD, "asks for access"),
    ("ben@example.com", PASSWORD, "approves it"),
    ("chidi@example.com", PASSWORD, "runs security: sees everything"),
]


def create() -> None:
    """Make whatever of the demo isn't there yet, and point it at the demo upstream of today.

    Passwords, upstream keys and policies that were changed since are left alone.
    """
    demo = inventory.read(FILE.read_text())
    for entry in demo["endpoints"]:
        entry["upstream_url"] = settings.KEYTURN_DEMO_UPSTREAM_URL
    inventory.apply(demo, by=None)
    for path in sorted(POLICIES.glob("*.yaml")):
        for document in [] if path.name.endswith(SUFFIX) else read(path.read_text()):
            if not Policy.objects.filter(slug=document.slug).exists():
                save_policy(by=None, document=document, note="The demo's")
    for person in demo["people"]:
        user = User.objects.get(email=person["email"])
        if not user.has_usable_password():
            user.set_password(PASSWORD)
            user.save(update_fields=["password"])
    for entry in demo["endpoints"]:
        endpoint = Endpoint.objects.get(slug=entry["slug"])
        if not vault.upstream_version(endpoint.slug):
            store_upstream_key(by=None, endpoint=endpoint, key=settings.KEYTURN_DEMO_UPSTREAM_KEY)
