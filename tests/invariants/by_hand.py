"""What somebody with a connection to PostgreSQL could try, past all Python."""

from collections.abc import Sequence
from typing import Any

from django.db import connection, transaction


def by_hand(sql: str, values: Sequence[Any] = ()) -> None:
    """Run this statement, and undo nothing but this statement when it's refused."""
    with transaction.atomic(), connection.cursor() as cursor:
        # What is still to be checked at commit would hinder DDL and TRUNCATE by itself.
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute(sql, values)
