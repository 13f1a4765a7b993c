from django.db import migrations, models
from django.db.models import F

# The same meaning as Scope.beyond and Scope.opens_something: tests/endpoints/test_scope.py compares
# them. What can't be read is within nothing.
WITHIN = """
CREATE FUNCTION scope_within(narrow jsonb, wide jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE
        WHEN jsonb_typeof(narrow) IS DISTINCT FROM 'object'
            OR jsonb_typeof(wide) IS DISTINCT FROM 'object' THEN false
        ELSE NOT EXISTS (
            SELECT 1 FROM jsonb_each(narrow) AS held (key, value)
            WHERE CASE
                WHEN key IN ('models', 'tools', 'mcp_hosts', 'operations') THEN
                    jsonb_typeof(value) <> 'array' OR EXISTS (
                        SELECT 1 FROM jsonb_array_elements(
                            CASE jsonb_typeof(value) WHEN 'array' THEN value ELSE '[]' END
                        ) AS names (name)
                        WHERE jsonb_typeof(name) <> 'string' OR NOT COALESCE(
                            wide -> key @> name
                            OR (key = 'tools' AND wide -> 'tools' @> '"*"'
                                AND NOT starts_with(name #>> '{}', 'server:')),
                            false))
                ELSE key NOT IN ('max_output_tokens', 'requests_per_minute', 'concurrency',
                    'token_budget', 'cost_budget')
            END
        ) AND NOT EXISTS (
            SELECT 1 FROM unnest(ARRAY['max_output_tokens', 'requests_per_minute', 'concurrency',
                'token_budget', 'cost_budget']) AS limits (key)
            WHERE wide ->> key IS NOT NULL
                AND NOT COALESCE((narrow ->> key)::numeric <= (wide ->> key)::numeric, false)
        )
    END
$$
"""
OPENS_SOMETHING = """
CREATE FUNCTION scope_opens_something(scope jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT COALESCE(
        (jsonb_typeof(scope -> 'models') = 'array' AND scope -> 'models' <> '[]')
        OR (jsonb_typeof(scope -> 'operations') = 'array' AND scope -> 'operations' <> '[]'),
        false)
$$
"""


class Migration(migrations.Migration):

    dependencies = [("endpoints", "0002_upstreams_prices_stops")]

    operations = [
        migrations.RunSQL(WITHIN, "DROP FUNCTION scope_within(jsonb, jsonb)"),
        migrations.RunSQL(OPENS_SOMETHING, "DROP FUNCTION scope_opens_something(jsonb)"),
        migrations.RemoveConstraint("accessprofile", "profile_scope_has_models"),
        migrations.AddConstraint(
            "accessprofile",
            models.CheckConstraint(
                condition=models.Func(
                    F("scope"),
                    function="scope_opens_something",
                    output_field=models.BooleanField(),
                ),
                name="profile_scope_opens_something",
            ),
        ),
        migrations.AddField(
            "accessprofile",
            "defaults",
            models.JSONField(
                blank=True,
                default=dict,
                help_text="what the form starts with, as far as it isn't all of the ceiling's "
                "models and operations, none of its tools and hosts, and its limits",
            ),
        ),
        migrations.RunSQL(
            "UPDATE endpoints_accessprofile"
            " SET defaults = jsonb_build_object('models', to_jsonb(default_models))"
            " WHERE default_models <> '{}'",
            migrations.RunSQL.noop,
        ),
        migrations.RemoveField("accessprofile", "default_models"),
    ]
