"""What calls leave behind: a row each, and what their grants have spent.

Written in batches by a thread, so that no call waits for it. While PostgreSQL can't be reached
they wait in memory; calls are refused soon after, so there are never many.
"""

import datetime as dt
import time
import uuid
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from django.db import connection, transaction

from gateway.dialects import Usage
from gateway.meter import Forgotten, Return, take_off

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


@dataclass(slots=True)
class _Sum:
    calls: int = 0
    refused: int = 0
    input: int = 0
    output: int = 0
    tokens: int = 0
    cost: int = 0


_COLUMNS = (
    "id, at, trace, grant_id, credential_id, endpoint_id, method, path, model, streamed,"
    " tools_declared, tools_called, status, refusal, input_tokens, output_tokens, charged_tokens,"
    " charged_cost, request_bytes, response_bytes, first_byte_ms, duration_ms, client"
)


def write(
    process: uuid.UUID, number: int, open_calls: int, records: list[Record], returns: list[Return]
) -> int:
    """Write these calls, charge their grants, take off what isn't held any more: all at once.

    `number` counts this process's writings: repeating one whose outcome is unknown changes
    nothing. Returns how many gateways are alive. Raises Forgotten.
    """
    kept = [record for record in records if record.grant is not None]
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            "UPDATE gateway_process SET written = %s, open_calls = %s,"
            " beat_at = clock_timestamp() WHERE id = %s AND written < %s",
            [number, open_calls, process, number],
        )
        if not cursor.rowcount:
            cursor.execute("SELECT written FROM gateway_process WHERE id = %s", [process])
            if cursor.fetchone() is None:
                raise Forgotten
        else:
            _charge(kept)
            take_off(process, returns)
            if kept:
                _copy(kept)
        cursor.execute(
            "SELECT count(*) FROM gateway_process"
            " WHERE beat_at > clock_timestamp() - interval '10 seconds'"
        )
        alive: int = cursor.fetchone()[0]
        return alive


def _charge(records: list[Record]) -> None:
    sums: dict[uuid.UUID, _Sum] = defaultdict(_Sum)
    for record in records:
        assert record.grant is not None  # noqa: S101 -- the caller's filter
        total = sums[record.grant]
        total.calls += 1
        total.refused += bool(record.refusal)
        total.input += record.usage.input or 0
        total.output += record.usage.output or 0
        if not record.is_forfeited:
            total.tokens += record.charged_tokens
            total.cost += record.charged_cost
    with connection.cursor() as cursor:
        for grant, total in sorted(sums.items()):
            cursor.execute(
                "INSERT INTO gateway_meter AS m (grant_id, calls, refused, input_tokens,"
                " output_tokens, charged_tokens, charged_cost, last_call_at, minute, taken,"
                " taken_before) VALUES (%s, %s, %s, %s, %s, %s, %s, clock_timestamp(), 0, 0, 0)"
                " ON CONFLICT (grant_id) DO UPDATE SET calls = m.calls + excluded.calls,"
                " refused = m.refused + excluded.refused,"
                " input_tokens = m.input_tokens + excluded.input_tokens,"
                " output_tokens = m.output_tokens + excluded.output_tokens,"
                " charged_tokens = m.charged_tokens + excluded.charged_tokens,"
                " charged_cost = m.charged_cost + excluded.charged_cost,"
                " last_call_at = excluded.last_call_at",
                [grant, total.calls, total.refused, total.input, total.output, total.tokens,
                 total.cost],
            )  # fmt: skip


def _copy(records: list[Record]) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT extract(epoch FROM clock_timestamp())::float8")
        # Calls are timed by this host's clock, which may be off: theirs by how much it is now.
        offset = cursor.fetchone()[0] - time.time()
        with cursor.cursor.copy(f"COPY gateway_call ({_COLUMNS}) FROM STDIN") as copy:
            for record in records:
                copy.write_row(_row(record, offset))


def _row(record: Record, offset: float) -> tuple[object, ...]:
    return (
        record.id,
        dt.datetime.fromtimestamp(record.at + offset, dt.UTC),
        record.trace,
        record.grant,
        record.credential,
        record.endpoint,
        record.method,
        record.path[:200],
        record.model,
        record.streamed,
        record.tools_declared[:MOST_TOOLS],
        [name.replace("\0", "\ufffd") for name in record.tools_called[:MOST_TOOLS]],
        record.status,
        record.refusal,
        record.usage.input,
        record.usage.output,
        record.charged_tokens,
        record.charged_cost,
        record.request_bytes,
        record.response_bytes,
        (record.first_byte - record.began) * 1000 if record.first_byte else None,
        (record.ended - record.began) * 1000,
        record.client,
    )


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
