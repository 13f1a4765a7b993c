"""The one door to a row: fetch, lock and authorise together."""

import uuid
from typing import TypeVar

from django.db.models import Model, QuerySet

from broker.errors import NotFound

Row = TypeVar("Row", bound=Model)


def fetch(visible: QuerySet[Row], pk: uuid.UUID | str, *, lock: bool = False) -> Row:
    """The row with this id among those that the caller may see, locked until commit if asked.

    Raises NotFound alike for an id that doesn't exist, is malformed or belongs to somebody else,
    so that a stranger learns nothing.
    """
    try:
        key = pk if isinstance(pk, uuid.UUID) else uuid.UUID(pk)
    except ValueError:
        raise NotFound from None
    rows = visible.select_for_update(of=("self",)) if lock else visible
    row = rows.filter(pk=key).first()
    if row is None:
        raise NotFound(kind=visible.model._meta.model_name, id=str(key))
    return row
