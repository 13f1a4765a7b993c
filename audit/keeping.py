"""Tables whose rows are kept."""

import pgtrigger


def refuse_truncate(name: str) -> pgtrigger.Trigger:
    """A trigger for tables that refuse to delete rows: triggers of rows don't see a TRUNCATE."""
    return pgtrigger.Trigger(
        name=name,
        level=pgtrigger.Statement,
        when=pgtrigger.Before,
        operation=pgtrigger.Truncate,
        func="RAISE EXCEPTION 'pgtrigger: Cannot truncate rows from % table', TG_TABLE_NAME;",
    )
