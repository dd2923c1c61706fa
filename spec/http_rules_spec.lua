-- http_rules_spec.lua -- what RFC 9110 and RFC 9111 say about caching, case by case; each names its section.
local conditional = require "fpcache.http.conditional"
local dates = require "fpcache.http.dates"
local directives = require "fpcache.http.directives"
local freshness = require "fpcache.http.freshness"
local headers = require "fpcache.http.headers"
local storing = require "fpcache.http.storing"

local NOW = 784111777 -- Sun, 06 Nov 1994 08:49:37 GMT
local function date(offset) return dates.format(NOW + (offset or 0)) end

--- The plan for a response to GET, or to what `request` says.
local function plan(status, fields, request, rules)
  request = request or {}
  return storing.plan({ method = request.method or "GET", fields = headers.read(request.fields) },
    { status = status, fields = headers.read(fields), received = NOW }, rules or {})
end

describe("dates (RFC 9110, 5.6.7)", function()
  for _, text in ipairs {
    "Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994",
  } do
    it("reads " .. text, function() assert.equal(NOW, dates.parse(text, NOW)) end)
  end

  it("sends the first form", function() assert.equal("Sun, 06 Nov 1994 08:49:37 GMT", dates.format(NOW)) end)

  it("reads two digits far ahead as past", function()
    local in_2026 = 1.79e9
    assert.equal("Thu, 10 Jul 1980 00:00:00 GMT", dates.format(dates.parse("Thursday, 10-Jul-80 00:00:00 GMT", in_2026)))
    assert.equal("Wed, 10 Jul 2069 00:00:00 GMT", dates.format(dates.parse("Wednesday, 10-Jul-69 00:00:00 GMT", in_2026)))
  end)

  it("goes there and back over 200 years", function()
    for seconds = -2208988800, 4102444800, 86400 * 13 + 3607 do
      assert.equal(seconds, dates.parse(dates.format(seconds), seconds))
    end
  end)

  for _, text in ipairs {
    "", "0", "-1", "Sun, 06 Nov 1994 08:49:37", "Sun, 32 Nov 1994 08:49:37 GMT", "Sun, 06 Non 1994 08:49:37 GMT",
    "Sun, 06 Nov 1994 24:49:37 GMT", "Sonntag, 06-Nov-94 08:49:37 GMT", ("x"):rep(5000),
  } do
    it("takes " .. text:sub(1, 40) .. " for none", function() assert.is_nil(dates.parse(text, NOW)) end)
  end
end)

describe("Cache-Control (RFC 9111, 5.2)", function()
  -- text, what is read
  local CASES = {
    { "", {} },
    { "no-cache", { ["no-cache"] = true } },
    { "Max-Age=60, PUBLIC", { ["max-age"] = "60", public = true } },
    { ' max-age="60" ,, no-store,', { ["max-age"] = "60", ["no-store"] = true } }, -- a list may have empty members (9110, 5.6.1)
    { 'private="Set-Cookie, X-A", max-age=1', { private = "Set-Cookie, X-A", ["max-age"] = "1" } },
    { 'ext="a \\" , no-store", public', { ext = 'a " , no-store', public = true } },
    { 'ext="never closed, no-store', { ext = "never closed, no-store" } },
    { "max-age=10, max-age=20", { ["max-age"] = "10" } }, -- 4.2.1
    { 'no-cache="a", no-cache', { ["no-cache"] = true } }, -- the more restrictive
    { "no-store; max-age=60;private", { ["no-store"] = true, ["max-age"] = "60", private = true } }, -- no list, and clear
    { 'private="a;b"; max-age=1', { private = "a;b", ["max-age"] = "1" } },
    { "max-age = 5", { ["max-age"] = "5" } }, -- not allowed, and clear
    { "community=\"UCI\"", { community = "UCI" } }, -- 5.2.3: extensions
  }
  for _, case in ipairs(CASES) do
    it("reads " .. case[1], function() assert.same(case[2], directives.parse(case[1])) end)
  end

  it("takes what is too large as 2^31, and what is no number as over (1.2.2, 4.2.1)", function()
    local found = directives.parse("max-age=99999999999999999999, s-maxage=soon, stale-if-error=-1, min-fresh=1.5, max-stale")
    assert.equal(2147483648, (directives.seconds(found, "max-age")))
    for _, name in ipairs { "s-maxage", "stale-if-error", "min-fresh", "max-stale" } do
      local seconds, is_valid = directives.seconds(found, name)
      assert.equal(0, seconds)
      assert.is_false(is_valid)
    end
    assert.is_nil(directives.seconds(found, "stale-while-revalidate"))
  end)
end)

describe("what may be stored (RFC 9111, 3)", function()
  -- name, status, fields, request, stored for so long (false: not), rules
  local FRESH = { ["Cache-Control"] = "max-age=60" }
  local function control(text) return { ["Cache-Control"] = text } end
  local CASES = {
    { "3: GET with max-age", 200, FRESH, {}, 60 },
    { "3: HEAD as GET", 200, FRESH, { method = "HEAD" }, 60 },
    { "3: not POST, though 9110, 9.3.3 would allow it with freshness", 200, FRESH, { method = "POST" }, false },
    { "3: an unknown method", 200, FRESH, { method = "get" }, false },
    { "3: a status that is not understood", 299, FRESH, {}, false },
    { "3: a part of a body is not for us", 206, FRESH, {}, false },
    { "3: 304 is an update and no response to keep", 304, FRESH, {}, false },
    { "3: 1xx is not final", 103, FRESH, {}, false },
    { "3: 404 with freshness", 404, FRESH, {}, 60 },
    { "3: 302 with freshness", 302, FRESH, {}, 60 },
    { "3: 503 with freshness", 503, FRESH, {}, 60 },
    { "9110, 15.3.7: 206 of a range that nobody asked for", 206,
      { ["Cache-Control"] = "max-age=60", ["Content-Range"] = "bytes 0-1/9" }, {}, false },
    { "6585, 3: 428", 428, FRESH, {}, false },
    { "6585, 4: 429", 429, FRESH, {}, false },
    { "6585, 5: 431", 431, FRESH, {}, false },
    { "6585, 6: 511", 511, FRESH, {}, false },
    { "5.4: Pragma says nothing", 200, { ["Cache-Control"] = "max-age=60", Pragma = "no-cache" },
      { fields = { Pragma = "no-cache" } }, 60 },
    { "5.5: Warning says nothing", 200, { ["Cache-Control"] = "max-age=60", Warning = '110 - "stale"' }, {}, 60 },
    { "5.2.3: extensions say nothing", 200, control('max-age=60, community="UCI"'), {}, 60 },
    { "5.2.1.5: request no-store", 200, FRESH, { fields = control("no-store") }, false },
    { "5.2.2.5: no-store", 200, control("no-store, max-age=60"), {}, false },
    { "5.2.2.3: no-store beside must-understand, status known", 200, control("must-understand, no-store, max-age=60"), {}, 60 },
    { "5.2.2.3: the same, status unknown", 299, control("must-understand, no-store, max-age=60"), {}, false },
    { "5.2.2.7: private", 200, control("private, max-age=60"), {}, false },
    { "5.2.2.7: private, when told", 200, control("private, max-age=60"), {}, 60, { store_private = true } },
    { "5.2.2.7: private fields", 200, { ["Cache-Control"] = 'private="set-cookie", max-age=60', ["Set-Cookie"] = "a=b" },
      {}, 60 },
    { "5.2.2.7: private with an empty list", 200, control('private="", max-age=60'), {}, false },
    { "7.3: Set-Cookie", 200, { ["Cache-Control"] = "max-age=60, public", ["Set-Cookie"] = "a=b" }, {}, false },
    { "5.2.2.4: Set-Cookie among the fields of no-cache", 200,
      { ["Cache-Control"] = 'no-cache="set-cookie", max-age=60', ["Set-Cookie"] = "a=b" }, {}, 60 },
    { "7.3: Set-Cookie, when told", 200, { ["Cache-Control"] = "max-age=60", ["Set-Cookie"] = "a=b" }, {}, 60,
      { store_set_cookie = true } },
    { "3.5: Authorization", 200, FRESH, { fields = { Authorization = "Basic eDp5" } }, false },
    { "3.5: Authorization and public", 200, control("public, max-age=60"), { fields = { Authorization = "x" } }, 60 },
    { "3.5: Authorization and s-maxage", 200, control("s-maxage=60"), { fields = { Authorization = "x" } }, 60 },
    { "3.5: Authorization and must-revalidate", 200, control("must-revalidate, max-age=60"),
      { fields = { Authorization = "x" } }, 60 },
    { "4.1: Vary: *", 200, { ["Cache-Control"] = "max-age=60", Vary = "*" }, {}, false },
    { "4.1: Vary: a, *", 200, { ["Cache-Control"] = "max-age=60", Vary = { "Accept", "*" } }, {}, false },
    { "4.2.1: s-maxage before max-age", 200, control("max-age=60, s-maxage=600"), {}, 600 },
    { "4.2.1: max-age before Expires", 200, { ["Cache-Control"] = "max-age=60", Expires = date(9) }, {}, 60 },
    { "4.2.1: Expires less Date", 200, { Date = date(-5), Expires = date(10) }, {}, 15 },
    { "5.3: Expires without Date counts from when it came", 200, { Expires = date(10) }, {}, 10 },
    { "4.2.1: of two Expires the first", 200, { Expires = { date(10), date(99) } }, {}, 10 },
    { "4.2.1: max-age in quotes", 200, control('max-age="60"'), {}, 60 },
    { "5.3: Expires: 0 is in the past", 200, { Expires = "0", Date = date() }, {}, 0 },
    { "5.3: Expires in the past", 200, { Expires = date(-10), Date = date() }, {}, 0 },
    { "4.2.1: max-age without number is over", 200, control("max-age=soon"), {}, 0 },
    { "3: nothing says for how long", 200, { Date = date() }, {}, false },
    { "5.2.2.9: public says not for how long", 200, control("public"), {}, false },
    { "4.2.2: no guess unless told", 200, { ["Last-Modified"] = date(-1000), Date = date() }, {}, false },
    { "4.2.2: a tenth of the time since Last-Modified", 200, { ["Last-Modified"] = date(-1000), Date = date() }, {}, 100,
      { heuristic = 0.1 } },
    { "4.2.2: no more than told", 200, { ["Last-Modified"] = date(-1000), Date = date() }, {}, 20,
      { heuristic = 0.1, heuristic_max = 20 } },
    { "4.2.2: no guess where the status does not allow it", 302, { ["Last-Modified"] = date(-1000) }, {}, false,
      { heuristic = 0.1, default_ttl = 5 } },
    { "4.2.2: unless public", 302, control("public"), {}, 5, { default_ttl = 5 } },
    { "4.2.2: a default counts where nothing is said", 200, {}, {}, 5, { default_ttl = 5 } },
    { "4.2.2: and not where something is", 200, control("max-age=0"), {}, 0, { default_ttl = 5 } },
    { "a server's error gets no default", 503, control("public"), {}, false, { default_ttl = 5 } },
    { "5.2.2.4: no-cache is kept and asked for each time", 200, control("no-cache"), {}, 0 },
    { "5.2.2.4: no-cache with fields keeps the rest", 200, { ["Cache-Control"] = 'no-cache="X-A", max-age=60', ["X-A"] = "1" },
      {}, 60 },
  }
  for _, case in ipairs(CASES) do
    local name, status, fields, request, expected, rules = case[1], case[2], case[3], case[4], case[5], case[6]
    it(name, function()
      local made = plan(status, fields, request, rules)
      assert.equal(expected, made.store and made.lifetime, made.reason)
    end)
  end

  it("5.2.2.4: says what must be asked for each time", function()
    assert.is_true(plan(200, control("no-cache, max-age=60")).revalidate)
    assert.is_false(plan(200, control('no-cache="x-a", max-age=60')).revalidate)
    assert.same({ "x-a" }, plan(200, control('no-cache="x-a", max-age=60')).drop)
  end)

  it("3.1: keeps no fields of one hop, nor what Connection names", function()
    local kept = headers.storable(headers.read {
      Connection = "close, X-Hop", ["X-Hop"] = "1", ["Keep-Alive"] = "5", ["Transfer-Encoding"] = "chunked", TE = "x",
      ["Proxy-Authenticate"] = "Basic", ["Proxy-Authentication-Info"] = "x", ["Proxy-Authorization"] = "x", Upgrade = "h2c",
      Trailer = "x", ["X-Stays"] = { "a", "b" },
    })
    assert.same({ ["x-stays"] = { name = "X-Stays", "a", "b" } }, kept)
  end)

  it("4.4: a successful unsafe request invalidates", function()
    for _, case in ipairs {
      { "POST", 200, true }, { "PUT", 204, true }, { "DELETE", 302, true }, { "PATCH", 200, true }, { "POST", 400, false },
      { "POST", 500, false }, { "GET", 200, false }, { "HEAD", 200, false }, { "OPTIONS", 200, false }, { "STRANGE", 200, true },
    } do
      assert.equal(case[3], storing.invalidates(case[1], case[2]), case[1] .. case[2])
    end
  end)
end)

describe("age and staleness", function()
  -- fields, response delay, expected initial age
  for _, case in ipairs {
    { "no Date, no Age", {}, 0, 0 },
    { "apparent age", { Date = date(-7) }, 0, 7 },
    { "a Date ahead of us", { Date = date(7) }, 0, 0 },
    { "Age", { Date = date(), Age = "30" }, 0, 30 },
    { "Age and the delay", { Date = date(), Age = "30" }, 2, 32 },
    { "the larger of both", { Date = date(-60), Age = "30" }, 0, 60 },
    { "of two Ages the first (5.1)", { Date = date(), Age = "30, 40" }, 0, 30 },
    { "an Age that is none", { Date = date(), Age = "-30" }, 0, 0 },
  } do
    it("4.2.3: " .. case[1], function()
      assert.equal(case[4], freshness.initial_age(headers.read(case[2]), NOW - case[3], NOW))
    end)
  end

  it("4.2.3: time at our side counts", function()
    assert.equal(42, freshness.age({ received = NOW, initial_age = 30 }, NOW + 12))
    assert.equal(30, freshness.age({ received = NOW, initial_age = 30 }, NOW - 5)) -- a clock that was set back
  end)

  local OWN = { stale_while_revalidate = 5, stale_if_error = 50 }
  for _, case in ipairs {
    { "the place's own times", "max-age=1", 5, 50 },
    { "5861: the response's go first", "max-age=1, stale-while-revalidate=2, stale-if-error=3", 2, 3 },
    { "5.2.2.2: must-revalidate", "max-age=1, must-revalidate, stale-if-error=3", 0, 0 },
    { "5.2.2.8: proxy-revalidate", "max-age=1, proxy-revalidate", 0, 0 },
    { "5.2.2.4: no-cache", "no-cache", 0, 0 },
    { "5.2.2.4: no-cache of fields is none of the response", 'no-cache="a", max-age=1', 5, 50 },
    { "5.2.2.10: s-maxage", "s-maxage=1", 0, 0 },
    { "5.2.2.10: s-maxage with times of its own", "s-maxage=1, stale-while-revalidate=2, stale-if-error=3", 2, 3 },
  } do
    it("4.2.4: " .. case[1], function()
      assert.same({ case[3], case[4] }, { freshness.stale_times(directives.parse(case[2]), OWN) })
    end)
  end

  for _, case in ipairs {
    { "", "give" }, { "no-cache", "revalidate" }, { "max-age=60", "revalidate" }, { "max-age=60, max-stale", "give" },
    { "max-age=60, max-stale=10", "give" }, { "max-age=60, max-stale=9", "revalidate" },
    { "max-age=39, max-stale", "revalidate" }, { "max-age=60, max-stale=x", "revalidate" },
    { "min-fresh=0", "revalidate" }, { "max-stale=1", "give" },
  } do
    it("5.2.1: a request with '" .. case[1] .. "' at age 40 of 30, where the origin lets it be given", function()
      assert.equal(case[2], freshness.asked(directives.parse(case[1]), 40, 30))
    end)
  end

  for _, case in ipairs {
    { "", "give" }, { "no-cache", "revalidate" }, { "max-age=30", "give" }, { "max-age=29", "revalidate" },
    { "max-age=0", "revalidate" }, { "min-fresh=30", "give" }, { "min-fresh=31", "revalidate" }, { "max-stale=100", "give" },
    { "only-if-cached", "give" },
  } do
    it("5.2.1: a request with '" .. case[1] .. "' at age 30 of 60", function()
      assert.equal(case[2], freshness.asked(directives.parse(case[1]), 30, 60))
    end)
  end
end)

describe("conditional requests", function()
  local KEPT = headers.read { ETag = '"a"', ["Last-Modified"] = date(-100), Date = date(-10) }
  local WEAK = headers.read { ETag = 'W/"a"' }
  local DATED = headers.read { Date = date(-10) }
  for _, case in ipairs {
    { "9110, 13.1.2: the same tag", { ["If-None-Match"] = '"a"' }, KEPT, true },
    { "13.1.2: another", { ["If-None-Match"] = '"b"' }, KEPT, false },
    { "13.1.2: in a list", { ["If-None-Match"] = '"b", W/"c" , "a"' }, KEPT, true },
    { "13.1.2: in two lines", { ["If-None-Match"] = { '"b"', '"a"' } }, KEPT, true },
    { "13.1.2: a comma inside a tag", { ["If-None-Match"] = '"b,\\"' .. ', "a"' }, KEPT, true },
    { "13.1.2: *", { ["If-None-Match"] = "*" }, DATED, true },
    { "8.8.3.2: weak against strong", { ["If-None-Match"] = 'W/"a"' }, KEPT, true },
    { "8.8.3.2: strong against weak", { ["If-None-Match"] = '"a"' }, WEAK, true },
    { "13.1.2: nothing kept to compare", { ["If-None-Match"] = '"a"' }, DATED, false },
    { "13.1.2: no tag at all", { ["If-None-Match"] = "a" }, KEPT, false },
    { "13.1.3: not modified since", { ["If-Modified-Since"] = date(-100) }, KEPT, true },
    { "13.1.3: modified since", { ["If-Modified-Since"] = date(-101) }, KEPT, false },
    { "9111, 4.3.2: by Date without Last-Modified", { ["If-Modified-Since"] = date(-10) }, DATED, true },
    { "13.1.3: no date", { ["If-Modified-Since"] = "yesterday" }, KEPT, false },
    { "13.2.2: If-None-Match before If-Modified-Since", { ["If-None-Match"] = '"b"', ["If-Modified-Since"] = date() },
      KEPT, false },
    { "without a condition", {}, KEPT, false },
  } do
    it(case[1], function()
      assert.equal(case[4], conditional.is_not_modified("GET", headers.read(case[2]), 200, case[3], NOW))
    end)
  end

  it("13.2.1: only of 200, GET and HEAD", function()
    local asked = headers.read { ["If-None-Match"] = '"a"' }
    assert.is_true(conditional.is_not_modified("HEAD", asked, 200, KEPT, NOW))
    assert.is_false(conditional.is_not_modified("GET", asked, 404, KEPT, NOW))
    assert.is_false(conditional.is_not_modified("POST", asked, 200, KEPT, NOW))
  end)

  it("9111, 4.3.1: asks the origin by what is kept", function()
    assert.same({ ["If-None-Match"] = '"a"', ["If-Modified-Since"] = date(-100) }, conditional.questions(KEPT))
    assert.is_nil(conditional.questions(DATED))
  end)

  for _, case in ipairs {
    { '"a"', KEPT, true }, { '"b"', KEPT, false }, { '"a"', WEAK, true }, { '"b"', WEAK, false },
    { 'W/"a"', KEPT, true }, { 'W/"a"', WEAK, true }, { 'W/"b"', WEAK, false },
    { nil, KEPT, true },
  } do
    it("9111, 4.3.4: a 304 with ETag " .. tostring(case[1]) .. " is about it: " .. tostring(case[3]), function()
      assert.equal(case[3], conditional.is_about(case[2], headers.read { ETag = case[1] }))
    end)
  end

  it("9111, 4.3.4: a 304 with another Last-Modified is not about it", function()
    assert.is_true(conditional.is_about(KEPT, headers.read { ["Last-Modified"] = date(-100) }))
    assert.is_false(conditional.is_about(KEPT, headers.read { ["Last-Modified"] = date(-99) }))
  end)

  it("9110, 8.8.1: a weak tag stays weak, whatever a 304 says of it", function()
    assert.equal('W/"a"', conditional.freshened(WEAK, headers.read { ETag = '"a"' }).etag[1])
    assert.equal('W/"a"', conditional.freshened(KEPT, headers.read { ETag = 'W/"a"' }).etag[1])
  end)

  it("9111, 3.2: a 304 renews the fields, and not those of the body", function()
    local kept = headers.read {
      ETag = '"a"', ["Content-Type"] = "text/plain", ["Content-Length"] = "5", Age = "9", ["X-A"] = "1",
    }
    local told = headers.read { ETag = '"a"', ["Content-Length"] = "0", ["X-A"] = "2", Date = date(), Connection = "close" }
    local fields = conditional.freshened(kept, told)
    assert.equal("5", fields["content-length"][1])
    assert.equal("2", fields["x-a"][1])
    assert.equal(date(), fields.date[1])
    assert.is_nil(fields.connection)
    assert.is_nil(fields.age)
  end)
end)
