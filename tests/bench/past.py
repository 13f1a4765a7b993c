"""A company's past, a million requests long, written by SQL: what its age must not slow."""

from typing import Any

from django.db import connection

from accounts.models import Group, User
from endpoints.models import AccessProfile

TABLES = ("accessrequest", "review", "grant")
# As the built-in policy's snapshot has it, which is what the triggers would check.
POLICY = """{"steps": [{"name": "Review", "approvals": 1, "skipped": false,
    "reviewers": {"profile_reviewers": true}}], "automatic": false, "constraints": [],
    "policies": [{"slug": "default", "version": 0, "name": "One reviewer"}]}"""

# `n` counts backwards in time: one request each 60 seconds.
REQUESTS = """
INSERT INTO accessrequests_accessrequest (id, profile_id, requester_id, state, scope, duration,
    justification, policy, created_at, pending_until, decided_at, decided_by, ticket, automatic,
    break_glass, run, task, step, step_since, decide_by, escalations)
SELECT lpad(to_hex(%(first)s + n), 32, '0')::uuid,
    (%(profiles)s::uuid[])[1 + n %% %(profile_count)s],
    (%(requesters)s::uuid[])[1 + n %% %(requester_count)s],
    CASE WHEN %(pending)s THEN 'pending' WHEN n %% 10 = 0 THEN 'denied'
        WHEN n %% 10 = 1 THEN 'expired' ELSE 'approved' END,
    '{"models": ["demo-small"]}', interval '1 hour', 'Find out why an answer was wrong.',
    %(policy)s::jsonb, at.filed, at.filed + interval '1 day',
    CASE WHEN %(pending)s THEN NULL ELSE at.filed + interval '20 minutes' END,
    CASE WHEN %(pending)s THEN '' ELSE 'Somebody' END, '', false, false,
    '', '', 0, at.filed,
    at.filed + interval '1 day', 0
FROM generate_series(1, %(count)s) AS n,
    LATERAL (SELECT clock_timestamp() - CASE WHEN %(pending)s THEN interval '1 second'
        ELSE interval '60 seconds' END * (%(count)s - n) - CASE WHEN %(pending)s
        THEN interval '0' ELSE interval '1 day' END AS filed) AS at
"""
ROUTES = """
INSERT INTO accessrequests_route (request_id, step, via, group_id, escalated, waiting, sort_at,
    since)
SELECT id, 0, 'profile_reviewers', %(group)s, false, state = 'pending', decide_by, created_at
FROM accessrequests_accessrequest WHERE id BETWEEN %(low)s AND %(high)s
"""
REVIEWS = """
INSERT INTO accessrequests_review (id, request_id, reviewer_id, step, verdict, reason, at)
SELECT id, id, (%(reviewers)s::uuid[])[1 + (hashtext(id::text) & 1023) %% %(reviewer_count)s], 0,
    CASE state WHEN 'denied' THEN 'deny' ELSE 'approve' END, 'Because.', decided_at
FROM accessrequests_accessrequest
WHERE id BETWEEN %(low)s AND %(high)s AND state IN ('approved', 'denied')
"""
GRANTS = """
INSERT INTO accessrequests_grant (id, request_id, holder_id, state, scope, starts_at, ends_at,
    ended_at, ended_by, end_reason)
SELECT id, id, requester_id, 'ended', scope, decided_at, decided_at + duration,
    decided_at + duration, 'Keyturn', 'expired'
FROM accessrequests_accessrequest
WHERE id BETWEEN %(low)s AND %(high)s AND state = 'approved'
"""
TALLIES = """
INSERT INTO accessrequests_tally (day, profile_id, reviewer_id, outcome, wait, count)
SELECT request.decided_at::date, request.profile_id, review.reviewer_id, request.state, 2, count(*)
FROM accessrequests_accessrequest AS request
    LEFT JOIN accessrequests_review AS review ON review.request_id = request.id
WHERE request.id BETWEEN %(low)s AND %(high)s AND request.state <> 'pending'
GROUP BY 1, 2, 3, 4
ON CONFLICT DO NOTHING
"""


def fill(
    *,
    past: int,
    pending: int,
    profiles: list[AccessProfile],
    reviewers: Group,
    requesters: list[User],
    first: int,
) -> None:
    """Write so many decided and waiting requests, with all that belongs to them.

    Triggers are off while it does: everything here is as they would have it.
    """
    members = list(reviewers.members.values_list("pk", flat=True))
    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = 0")
        for name in TABLES:
            cursor.execute(f"ALTER TABLE accessrequests_{name} DISABLE TRIGGER USER")
        for count, waits, start in ((past, False, first), (pending, True, first + past)):
            low, high = (f"{start + n:032x}" for n in (1, count))
            values: dict[str, Any] = {
                "count": count,
                "pending": waits,
                "first": start,
                "profiles": [profile.pk for profile in profiles],
                "profile_count": len(profiles),
                "requesters": [user.pk for user in requesters],
                "requester_count": len(requesters),
                "policy": POLICY,
                "group": reviewers.pk,
                "reviewers": members,
                "reviewer_count": len(members),
                "low": low,
                "high": high,
            }
            for statement in (REQUESTS, ROUTES, REVIEWS, GRANTS, TALLIES):
                cursor.execute(statement, values)
        for name in TABLES:
            cursor.execute(f"ALTER TABLE accessrequests_{name} ENABLE TRIGGER USER")
        cursor.execute("VACUUM ANALYZE")
        cursor.execute("RESET statement_timeout")
