"""What was filed before there were policies: give it its steps, and pending ones their routes."""

import pgtrigger
from django.db import migrations

STEPS = """
UPDATE accessrequests_accessrequest SET
    decide_by = pending_until,
    step_since = created_at,
    policy = policy || '{"steps": [{"name": "Review", "approvals": 1, "skipped": false,
        "reviewers": {"profile_reviewers": true}}], "automatic": false, "constraints": [],
        "policies": [{"slug": "default", "version": 0, "name": "One reviewer"}]}'::jsonb
    WHERE NOT policy ? 'steps'
"""
ROUTES = """
INSERT INTO accessrequests_route
    (request_id, step, via, group_id, escalated, waiting, sort_at, since)
SELECT request.id, 0, 'profile_reviewers', profile.reviewers_id, false,
    request.state = 'pending', request.pending_until, request.created_at
FROM accessrequests_accessrequest AS request
    JOIN endpoints_accessprofile AS profile ON profile.id = request.profile_id
ON CONFLICT DO NOTHING
"""


def forwards(apps, schema_editor):
    with pgtrigger.ignore("accessrequests.AccessRequest:request_fixed"):
        schema_editor.execute(STEPS)
    schema_editor.execute(ROUTES)


class Migration(migrations.Migration):

    dependencies = [
        ("accessrequests", "0003_policies_and_routes"),
    ]

    operations = [
        migrations.RunPython(forwards, migrations.RunPython.noop),
    ]
