-- Prepares a PostgreSQL database (14 or later) for credentials of the kind `database`.
-- Run it in that database, as a superuser; running it again does no harm:
--   psql --set=ON_ERROR_STOP=1 --single-transaction --dbname=orders --file=target.sql
--
-- keyturn_engine   OpenBao logs in with it, makes users and ends them
-- keyturn_monitor  Keyturn's worker logs in with it and asks who is there
-- keyturn_reader   what a credential opens: grant to it what its holders may do

DO $$
DECLARE
    who text;
BEGIN
    FOREACH who IN ARRAY ARRAY['keyturn_engine', 'keyturn_monitor', 'keyturn_reader'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = who) THEN
            EXECUTE format('CREATE ROLE %I', who);
        END IF;
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), who);
    END LOOP;
END
$$;

-- Neither has a password yet: README.md says who gives them one.
ALTER ROLE keyturn_engine LOGIN CREATEROLE;
ALTER ROLE keyturn_monitor LOGIN CONNECTION LIMIT 30;
-- To end the sessions of those whom it made.
GRANT pg_signal_backend TO keyturn_engine;
-- To put users into the one, and to change the password of the other.
GRANT keyturn_reader, keyturn_monitor TO keyturn_engine WITH ADMIN OPTION;

CREATE SCHEMA IF NOT EXISTS keyturn;
REVOKE ALL ON SCHEMA keyturn FROM PUBLIC;
GRANT USAGE ON SCHEMA keyturn TO keyturn_engine, keyturn_monitor;

-- Raises unless this is the name of a credential's user. What makes users asks it first, so that
-- there are none whom nothing below would end.
CREATE OR REPLACE FUNCTION keyturn.check_user(who text) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF who IS NULL OR who !~ '^kt-[0-9a-z]{26}(-[A-Za-z0-9_.-]+)?$' THEN
        RAISE EXCEPTION '% does not have the name of a credential', quote_nullable(who);
    END IF;
END
$$;

-- Ends a user with the name of a credential, and nobody else. OpenBao revokes with it; Keyturn's
-- worker calls it for users whom OpenBao has forgotten. Repeating it does no harm.
-- Nobody can log in as the user any more, whatever they left behind; where that keeps the user
-- from being dropped, the answer says what it is.
CREATE OR REPLACE FUNCTION keyturn.end_user(who text) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s'
AS $$
DECLARE
    session record;
    left_behind text;
BEGIN
    PERFORM keyturn.check_user(who);
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = who) THEN
        EXECUTE format('ALTER ROLE %I NOLOGIN PASSWORD NULL', who);
        -- Waits for each to be over, as its locks would hold up the next step.
        PERFORM pg_terminate_backend(pid, 2000) FROM pg_stat_activity WHERE usename = who;
        BEGIN
            -- Only with its rights can what it owns be dropped.
            EXECUTE format('GRANT %I TO %I', who, current_user);
            -- With all that depends on it: else two users could keep one another.
            EXECUTE format('DROP OWNED BY %I CASCADE', who);
            EXECUTE format('DROP ROLE %I', who);
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS left_behind = PG_EXCEPTION_DETAIL;
            left_behind := SQLERRM || ' ' || left_behind;
        END;
    END IF;
    -- A session that began while its user was being dropped outlives it: the next call ends it.
    -- Each is looked at twice, as a user who was made after the first look isn't one that's gone.
    PERFORM pg_stat_clear_snapshot();
    FOR session IN
        SELECT pid, usesysid FROM pg_stat_activity
        WHERE usesysid IS NOT NULL AND usesysid NOT IN (SELECT oid FROM pg_roles)
    LOOP
        PERFORM pg_terminate_backend(session.pid)
        WHERE NOT EXISTS (SELECT FROM pg_roles WHERE oid = session.usesysid);
    END LOOP;
    RETURN left_behind;
END
$$;

-- Lets a user's password work for longer. OpenBao asks for 5 s more than its lease lasts, which
-- would be 5 s more than was granted.
CREATE OR REPLACE FUNCTION keyturn.extend_user(who text, until timestamptz) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM keyturn.check_user(who);
    EXECUTE format('ALTER ROLE %I VALID UNTIL %L', who, until - interval '5 seconds');
END
$$;

ALTER FUNCTION keyturn.check_user(text) OWNER TO keyturn_engine;
ALTER FUNCTION keyturn.end_user(text) OWNER TO keyturn_engine;
ALTER FUNCTION keyturn.extend_user(text, timestamptz) OWNER TO keyturn_engine;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA keyturn FROM PUBLIC;
GRANT EXECUTE ON FUNCTION keyturn.end_user(text) TO keyturn_monitor;
