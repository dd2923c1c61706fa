-- The design of the Python library, written anew from its description: a text table with two more
-- indexes, and plpgsql functions whose get writes accessed_at.
CREATE SCHEMA python;
GRANT USAGE ON SCHEMA python TO PUBLIC;

CREATE UNLOGGED TABLE python.cache (
    user_id     text NOT NULL,
    key         text NOT NULL,
    value       text NOT NULL,
    expires_at  timestamp,
    created_at  timestamp NOT NULL DEFAULT now(),
    accessed_at timestamp NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, key)
);
CREATE INDEX ON python.cache (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX ON python.cache (user_id);
GRANT SELECT, INSERT, UPDATE, DELETE ON python.cache TO PUBLIC;

CREATE FUNCTION python.cache_set(p_user_id text, p_key text, p_value text, p_ttl_seconds integer DEFAULT NULL)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_expires_at timestamp;
BEGIN
    IF p_ttl_seconds IS NOT NULL THEN
        v_expires_at := now() + (p_ttl_seconds || ' seconds')::interval;
    END IF;
    INSERT INTO python.cache (user_id, key, value, expires_at, created_at, accessed_at)
    VALUES (p_user_id, p_key, p_value, v_expires_at, now(), now())
    ON CONFLICT (user_id, key) DO UPDATE
    SET value = excluded.value, expires_at = excluded.expires_at, accessed_at = now();
    RETURN true;
END $$;

CREATE FUNCTION python.cache_get(p_user_id text, p_key text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v_value      text;
    v_expires_at timestamp;
BEGIN
    SELECT value, expires_at INTO v_value, v_expires_at
    FROM python.cache WHERE user_id = p_user_id AND key = p_key;
    IF NOT FOUND THEN RETURN NULL; END IF;
    IF v_expires_at IS NOT NULL AND v_expires_at <= now() THEN
        DELETE FROM python.cache WHERE user_id = p_user_id AND key = p_key;
        RETURN NULL;
    END IF;
    UPDATE python.cache SET accessed_at = now() WHERE user_id = p_user_id AND key = p_key;
    RETURN v_value;
END $$;

INSERT INTO python.cache (user_id, key, value, expires_at)
SELECT 'app', 10000000 + i, repeat('x', 100), now() + interval '3600 seconds' FROM generate_series(0, 99999) AS i;
