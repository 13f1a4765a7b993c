"""What is proved before issuers and rules are changed, in words."""

from accounts.door import fetch
from accounts.models import TrustedIssuer, User, WorkloadRule
from broker.errors import NotFound


def in_words(reader: User, about: str) -> str:
    """What is to be proved, to whoever changes who signs for workloads and which come in."""
    if not about:
        return "Trust another issuer of workloads"
    try:
        return f"Change the issuer {fetch(TrustedIssuer.objects.visible_to(reader), about)}"
    except NotFound:
        rows = WorkloadRule.objects.select_related("issuer").visible_to(reader)
        rule = fetch(rows, about)
        return f"Change the rule {rule} of {rule.issuer}"
