"""A record as long as a company's past, written by SQL: ten rows for each request."""

from django.db import connection

# What happens to a request that is approved and used, in order.
EVENTS = (
    "access_request:filed",
    "access_request:reviewed",
    "access_request:approved",
    "grant:started",
    "credential:issuing",
    "credential:issued",
    "credential:revoking",
    "grant:ended",
    "credential:revoked",
    "access:refused",
)
ROWS = """
INSERT INTO audit_auditevent (at, event, actor_id, actor, via, trace, subject_kind, subject_id,
    subject, related, data)
SELECT request.created_at + event.n * interval '1 minute', event.name, request.requester_id,
    'Somebody', 'api', request.id, 'accessrequest', request.id, 'Somebody on something',
    ARRAY[request.id, request.requester_id, request.profile_id, profile.endpoint_id],
    '{"scope": {"models": ["demo-small"]}}'
FROM accessrequests_accessrequest AS request
    JOIN endpoints_accessprofile AS profile ON profile.id = request.profile_id,
    unnest(%s::text[]) WITH ORDINALITY AS event (name, n)
WHERE request.id BETWEEN %s AND %s
ORDER BY request.id, event.n
"""
# As the trigger would have them.
CONCERNS = """
INSERT INTO audit_concern (concerned, event_id)
SELECT one, event.id FROM audit_auditevent AS event, LATERAL unnest(event.related) AS one
WHERE event.id > %s
"""
INDEXES = """
SELECT indexname, indexdef FROM pg_indexes
WHERE tablename = 'audit_auditevent' AND indexname <> 'audit_auditevent_pkey'
"""


def fill_record(*, low: str, high: str) -> None:
    """Write the record of the requests between these ids, indexes last: so it takes minutes, not
    hours."""
    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = 0")
        cursor.execute("SET maintenance_work_mem = '1GB'")
        cursor.execute("ALTER TABLE audit_auditevent DISABLE TRIGGER USER")
        cursor.execute("ALTER TABLE audit_concern DROP CONSTRAINT audit_concern_pkey")
        cursor.execute(INDEXES)
        indexes = cursor.fetchall()
        for name, _ in indexes:
            cursor.execute(f'DROP INDEX "{name}"')
        cursor.execute("SELECT coalesce(max(id), 0) FROM audit_auditevent")
        (last,) = cursor.fetchone()
        cursor.execute(ROWS, [list(EVENTS), low, high])
        cursor.execute(CONCERNS, [last])
        for _, definition in indexes:
            cursor.execute(definition)
        cursor.execute("ALTER TABLE audit_concern ADD PRIMARY KEY (concerned, event_id)")
        cursor.execute("ALTER TABLE audit_auditevent ENABLE TRIGGER USER")
        cursor.execute("VACUUM ANALYZE audit_auditevent, audit_concern")
        cursor.execute("RESET maintenance_work_mem")
        cursor.execute("RESET statement_timeout")
