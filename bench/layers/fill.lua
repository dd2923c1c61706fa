--- fill.lua COUNT -- leaves the role app with exactly COUNT keys.
local common = require("common")

local sql = common.superuser()
sql("SET fpcache.tells = 'on'; TRUNCATE public.cache, public.fpcache_feed")
sql(([[
INSERT INTO public.cache (user_id, namespace, key, value, format)
SELECT 'app', '', convert_to('user:' || i || ':profile', 'UTF8'), 'value', 's' FROM generate_series(1, %d) AS i]]):format(
  tonumber(arg[1])))
sql("VACUUM (ANALYZE) public.cache")
