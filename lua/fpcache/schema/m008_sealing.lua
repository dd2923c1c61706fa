--- Migration 8: what cannot read compressed ('z') and encrypted ('e') values says so instead of giving their bytes as text.
--
-- Places as in migration 1.
local sql = [==[
CREATE OR REPLACE FUNCTION {schema}.cache_get(p_user_id text, p_key text) RETURNS text LANGUAGE plpgsql STABLE AS {body}
DECLARE
    found_value  bytea;
    found_format "char";
BEGIN
    SELECT value, format INTO found_value, found_format FROM {schema}.cache
    WHERE user_id = p_user_id AND namespace = '' AND expires_at > statement_timestamp()
      AND key = {schema}.fpcache_stored_key(convert_to(p_key, 'UTF8'));
    IF found_format IN ('z', 'e') THEN
        RAISE EXCEPTION 'fpcache: this value is %, only fpcache can read it',
              CASE found_format WHEN 'z' THEN 'compressed' ELSE 'encrypted' END USING ERRCODE = 'feature_not_supported';
    END IF;
    RETURN convert_from(found_value, 'UTF8');
END {body};

CREATE OR REPLACE VIEW {schema}.valid_cache WITH (security_barrier) AS
SELECT user_id, namespace, {schema}.fpcache_text(coalesce(long_key, key)) AS key, format,
       CASE WHEN format NOT IN ('z', 'e') THEN {schema}.fpcache_text(value) END AS value,
       octet_length(value) AS bytes, version, expires_at,
       CASE WHEN expires_at = 'infinity' THEN -1
            ELSE extract(epoch FROM expires_at - statement_timestamp()) END AS ttl_seconds
FROM {schema}.cache
WHERE user_id = session_user::text AND expires_at > statement_timestamp();
]==]

return { version = 8, name = "compressed and encrypted values", sql = sql }
