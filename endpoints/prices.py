"""What models cost on an endpoint, for people to read."""

import datetime as dt
from typing import NamedTuple

from audit import clock
from endpoints.models import Endpoint, ModelPrice


class Priced(NamedTuple):
    """One model: what it costs today, what is announced, and what it cost before."""

    model: str
    now: ModelPrice | None
    to_come: list[ModelPrice]
    before: list[ModelPrice]


def price_list(endpoint: Endpoint) -> list[Priced]:
    """Every model of this endpoint that was ever given a price, by name."""
    today = clock.now().astimezone(dt.UTC).date()
    found: dict[str, Priced] = {}
    for row in endpoint.prices.select_related("set_by").order_by("model", "-since"):
        priced = found.setdefault(row.model, Priced(row.model, None, [], []))
        if row.since > today:
            priced.to_come.insert(0, row)
        elif priced.now is None:
            found[row.model] = priced._replace(now=row)
        else:
            priced.before.append(row)
    return list(found.values())
