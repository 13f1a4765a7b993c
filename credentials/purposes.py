"""What a second factor is proved for here, in words for whoever proves it.

Each takes the reader and an id, and raises NotFound for what they can't see.
"""

from accessrequests.models import Grant
from accounts.door import fetch
from accounts.models import User
from endpoints.models import EmergencyStop, Endpoint


def _endpoint(reader: User, about: str) -> Endpoint:
    return fetch(Endpoint.objects.visible_to(reader), about)


def checking_out(reader: User, about: str) -> str:
    """A credential of a grant."""
    rows = Grant.objects.visible_to(reader).select_related("request__profile__endpoint")
    profile = fetch(rows, about).request.profile
    return f"Check out {profile.name} on {profile.endpoint}"


def stopping(reader: User, about: str) -> str:
    """A stop of an endpoint or of everything, or the end of all that is live there."""
    if not about:
        return "Stop everything, or end all that is live"
    return f"Stop {_endpoint(reader, about)}, or end all that is live on it"


def lifting(reader: User, about: str) -> str:
    """The end of a stop."""
    row = fetch(EmergencyStop.objects.visible_to(reader).select_related("endpoint"), about)
    return f"Lift the stop of {row.endpoint if row.endpoint else 'everything'}"


def rotating(reader: User, about: str) -> str:
    """Whatever is done to the keys of an endpoint."""
    return f"Rotate or store the keys of {_endpoint(reader, about)}"
