"""What calls leave behind: a row each, and what their grants have spent.

Written in batches by a thread, so that no call waits for it. While PostgreSQL can't be reached
they wait in memory; calls are refused soon after, so there are never many.
"""

import json
import logging
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from django.db import DataError, connection, transaction

from gateway.dialects import Usage
from gateway.meter import Forgotten, Return, take_off

logger = logging.getLogger(__name__)

MOST_TOOLS = 50  # names kept of each call
HUNG_UP = 499  # nginx's number for it: HTTP has none


@dataclass(slots=True)
class Record:
    """One call, while it lasts and until it's written.

    `began`, `first_byte` and `ended` are seconds of this process's monotonic clock.
    """

    id: uuid.UUID
    trace: str
    at: float  # seconds of the Unix epoch, by this host
    began: float
    method: str
    path: str
    dialect: str
    client: str = ""
    parent: str = ""  # the caller's traceparent
    grant: uuid.UUID | None = None
    credential: uuid.UUID | None = None
    endpoint: uuid.UUID | None = None
    slug: str = ""
    model: str = ""
    streamed: bool = False
    tools_declared: list[str] = field(default_factory=list)
    tools_called: list[str] = field(default_factory=list)
    status: int = 0
    refusal: str = ""
    usage: Usage = field(default_factory=Usage)
    charged_tokens: int = 0
    charged_cost: int = 0
    is_reserved: bool = False
    is_forfeited: bool = False  # charged already, as what its silent process held
    request_bytes: int = 0
    response_bytes: int = 0
    first_byte: float = 0.0
    ended: float = 0.0


# One statement reads the batch, writes the calls and adds up what their grants have spent. What a
# batch costs is PostgreSQL's time then: in Python it would hold up every call meanwhile.
_WRITE = """
WITH batch AS (
    SELECT * FROM json_to_recordset(%(batch)s::json) AS r (
        id uuid, trace text, at float8, began float8, method text, path text, client text,
        "grant" uuid, credential uuid, endpoint uuid, model text, streamed boolean,
        tools_declared text[], tools_called text[], status int, refusal text, usage json,
        charged_tokens bigint, charged_cost bigint, is_forfeited boolean, request_bytes bigint,
        response_bytes bigint, first_byte float8, ended float8
    )
), written AS (
    INSERT INTO gateway_call (
        id, at, trace, grant_id, credential_id, endpoint_id, method, path, model, streamed,
        tools_declared, tools_called, status, refusal, input_tokens, output_tokens,
        charged_tokens, charged_cost, request_bytes, response_bytes, first_byte_ms, duration_ms,
        client
    ) SELECT
        -- Timed by the gateway's clock, which may be off: by as much as it is at this moment.
        id, clock_timestamp() + make_interval(secs => at - %(now)s), trace, "grant", credential,
        endpoint, method, left(path, 200), model, streamed,
        coalesce(tools_declared[:%(most)s], '{}'),
        coalesce(tools_called[:%(most)s], '{}'), status, refusal,
        (usage ->> 'input')::int, (usage ->> 'output')::int, charged_tokens, charged_cost,
        request_bytes, response_bytes, (nullif(first_byte, 0) - began) * 1000,
        (ended - began) * 1000, client
    FROM batch
)
INSERT INTO gateway_meter AS m (
    grant_id, calls, refused, input_tokens, output_tokens, charged_tokens, charged_cost,
    last_call_at, minute, taken, taken_before
) SELECT
    "grant", count(*), count(*) FILTER (WHERE refusal <> ''),
    coalesce(sum((usage ->> 'input')::bigint), 0), coalesce(sum((usage ->> 'output')::bigint), 0),
    coalesce(sum(charged_tokens) FILTER (WHERE NOT is_forfeited), 0),
    coalesce(sum(charged_cost) FILTER (WHERE NOT is_forfeited), 0),
    clock_timestamp(), 0, 0, 0
FROM batch GROUP BY "grant" ORDER BY "grant"
ON CONFLICT (grant_id) DO UPDATE SET
    calls = m.calls + excluded.calls,
    refused = m.refused + excluded.refused,
    input_tokens = m.input_tokens + excluded.input_tokens,
    output_tokens = m.output_tokens + excluded.output_tokens,
    charged_tokens = m.charged_tokens + excluded.charged_tokens,
    charged_cost = m.charged_cost + excluded.charged_cost,
    last_call_at = excluded.last_call_at
"""


def write(
    process: uuid.UUID,
    number: int,
    open_calls: int,
    keys: Mapping[str, int],
    records: list[Record],
    returns: list[Return],
) -> int:
    """Write these calls, charge their grants, take off what isn't held any more: all at once.

    `number` counts this process's writings: repeating one whose outcome is unknown changes
    nothing. `keys` are the versions of upstream keys in use. Returns how many gateways are alive.
    Raises Forgotten.
    """
    kept = [record for record in records if record.grant is not None]
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            # `keys` were looked at after the beat before was written, hence `keys_at`.
            "UPDATE gateway_process SET written = %s, open_calls = %s, keys = %s,"
            " keys_at = beat_at, beat_at = clock_timestamp() WHERE id = %s AND written < %s",
            [number, open_calls, json.dumps(keys), process, number],
        )
        if not cursor.rowcount:
            cursor.execute("SELECT written FROM gateway_process WHERE id = %s", [process])
            if cursor.fetchone() is None:
                raise Forgotten
        else:
            if kept:
                _insert(kept)
            take_off(process, returns)
        cursor.execute(
            "SELECT count(*) FROM gateway_process"
            " WHERE beat_at > clock_timestamp() - interval '10 seconds'"
        )
        alive: int = cursor.fetchone()[0]
        return alive


def _insert(records: list[Record]) -> None:
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(_WRITE, _values(records))
    except (DataError, TypeError):
        # One call that PostgreSQL can't take must not keep all others, and what they cost, out.
        logger.exception("wrote %d calls without what clients and models had named", len(records))
        for record in records:
            record.tools_declared, record.tools_called = [], []
            record.path = record.model = record.client = ""
        with connection.cursor() as cursor:
            cursor.execute(_WRITE, _values(records))


def _values(records: list[Record]) -> dict[str, Any]:
    # PostgreSQL's text has no NUL, and a model may call a tool by any name.
    batch = orjson.dumps(records).replace(b"\\u0000", b"\\ufffd").decode()
    return {"batch": batch, "now": time.time(), "most": MOST_TOOLS}


class Recorder:
    """What waits to be written, and who else wants to see each call."""

    def __init__(self) -> None:
        self.waiting: list[Record] = []
        self.observers: list[Callable[[Record], None]] = []

    def add(self, record: Record) -> None:
        """This call is over."""
        self.waiting.append(record)
        for observe in self.observers:
            observe(record)

    def take(self) -> list[Record]:
        """All that wait; whoever can't write them puts them back."""
        taken, self.waiting = self.waiting, []
        return taken
