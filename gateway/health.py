"""How an endpoint's upstreams answer, as the gateways see it."""

from accounts.models import User
from broker.errors import NotFound
from endpoints.models import Endpoint
from gateway.models import UpstreamHealth


def upstreams_of(by: User, endpoint: Endpoint) -> list[tuple[str, UpstreamHealth | None]]:
    """Its upstreams in the order in which they are tried; None for one that no gateway has called
    yet. Raises NotFound for all but its owner and those who see everything."""
    if not (by.sees_everything or endpoint.owner_id == by.pk):
        raise NotFound(kind="endpoint", id=endpoint.slug)
    known = {each.url: each for each in endpoint.health.all()}
    urls = [endpoint.upstream_url, *endpoint.further_upstreams]
    return [(url, known.get(url.rstrip("/")) or known.get(url)) for url in urls]
