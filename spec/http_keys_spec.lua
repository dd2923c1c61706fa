-- http_keys_spec.lua -- which requests share an answer: keys, Vary, tags; the stored form; no bytes break what reads them.
local conditional = require "fpcache.http.conditional"
local core = require "fpcache.core"
local dates = require "fpcache.http.dates"
local directives = require "fpcache.http.directives"
local draws = require "support.draws"
local headers = require "fpcache.http.headers"
local keys = require "fpcache.http.keys"
local record = require "fpcache.http.record"
local vary = require "fpcache.http.vary"

describe("keys (RFC 9110, 4.2.3; RFC 3986, 6.2)", function()
  for _, case in ipairs {
    { "EXAMPLE.org", "http", "example.org" }, { "example.org:80", "http", "example.org" },
    { "example.org:443", "https", "example.org" },
    { "example.org:80", "https", "example.org:80" }, { "example.org.", "http", "example.org." },
    { "example.org:", "http", "example.org" },
    { "10.0.0.1", "http", "10.0.0.1" }, { "10.0.0.1:8080", "http", "10.0.0.1:8080" }, { "[::1]", "http", "[::1]" },
    { "[::1]:80", "http", "[::1]" }, { "12", "http", "12" }, { nil, "http", "" },
  } do
    it(("host %s by %s"):format(tostring(case[1]), case[2]), function() assert.equal(case[3], keys.host(case[1], case[2])) end)
  end

  for _, case in ipairs {
    { "/a", "/a" }, { "", "/" }, { "?x=1", "/?x=1" }, { "/%7euser", "/~user" }, { "/%7Euser", "/~user" }, { "/a%2fb", "/a%2Fb" },
    { "/a/b", "/a/b" }, { "/a#frag", "/a#frag" }, { "/a#%41?b", "/a#A?b" }, { "/a?", "/a?" }, { "/a?b=1&a=2", "/a?b=1&a=2" },
    { "/%zz%4", "/%zz%4" },
    { "/%41?%41=%26", "/A?A=%26" }, { "/a?utm_x=1&b=2&utm_y", "/a?b=2", true }, { "/a?utm_x=1", "/a", true },
    { "/a?fb=1&b", "/a?b", true },
    { "/a?utm_x=1;b=2&fb", "/a?utm_x=1;b=2", true }, { "/a?fb=1%3bb=2", "/a?fb=1%3Bb=2", true }, { "/a?%75tm_x=1", "/a", true },
  } do
    it("uri " .. case[1], function()
      assert.equal(case[2], keys.uri(case[1], case[3] and { ["utm_*"] = true, fb = true } or nil))
    end)
  end

  it("differ by scheme, host, URI and chosen fields, and by nothing else", function()
    local function key(scheme, host, uri, fields, names)
      return keys.primary(keys.place({ scheme = scheme, host = host, uri = uri }), names or {}, headers.read(fields))
    end
    local seen = {}
    for _, one in ipairs {
      key("http", "a", "/"), key("https", "a", "/"), key("http", "b", "/"), key("http", "a", "/x"),
      key("http", "a", "/", { X = "1" }, { "x" }), key("http", "a", "/", { X = "2" }, { "x" }),
      key("http", "a", "/", {}, { "x" }),
      key("http", "a", "/", { X = "" }, { "x" }),
    } do
      assert.is_nil(seen[one], one)
      seen[one] = true
    end
    assert.equal(key("http", "a", "/"), key("HTTP", "A:80", "", { X = "1" }))
  end)

  for _, case in ipairs {
    { { Location = "/b?c" }, "/b?c" }, { { Location = "http://A.org:80/b#x" }, "/b" },
    { { ["Content-Location"] = "HTTP://a.org" }, "" },
    { { Location = "/b", ["Content-Location"] = "/c" }, "/b /c" }, { { Location = "/b", ["Content-Location"] = "/b" }, "/b" },
    { { Location = "/a" }, nil }, { { Location = "https://a.org/b" }, nil }, { { Location = "http://b.org/b" }, nil },
    { { Location = "http://a.org:8080/b" }, nil }, { { Location = "//b.org/b" }, nil }, { { Location = "b" }, nil }, { {}, nil },
    { { Location = "http://a.org@b.org/b" }, nil },
  } do
    local location, content_location = tostring(case[1].Location), tostring(case[1]["Content-Location"])
    it(("named by an answer (RFC 9111, 4.4): %s %s"):format(location, content_location), function()
      local named = keys.named({ scheme = "http", host = "a.org", uri = "/a" }, headers.read(case[1]))
      assert.equal(case[2], named[1] and table.concat(named, " "))
    end)
  end

  it("of Vary ignore space and lines, and see order and absence (RFC 9111, 4.1)", function()
    local function key(value) return vary.key({ "accept" }, headers.read { Accept = value }) end
    assert.equal(key("a,b"), key(" a , b "))
    assert.equal(key("a,b"), key({ "a", "b" }))
    assert.not_equal(key("a,b"), key("b,a"))
    assert.not_equal(key(nil), key(""))
    assert.not_equal(key('"a, b"'), key('"a,b"'))
    -- No value can look like two fields.
    local names = { "a", "b" }
    assert.not_equal(vary.key(names, headers.read { A = "1\nb=1:2" }), vary.key(names, headers.read { A = "1", B = "2" }))
  end)

  it("of Vary see every byte of what is no list", function()
    local function key(value) return vary.key({ "cookie" }, headers.read { Cookie = value }) end
    assert.equal(key("a=1"), key(" a=1 "))
    assert.not_equal(key("a=1,2"), key("a=1,,2"))
    assert.not_equal(key("a=1 2"), key("a=1  2"))
  end)

  it("tell apart by Accept-Encoding what is encoded, whether its Vary says so or not", function()
    assert.same({ "accept-encoding" }, vary.names(headers.read { ["Content-Encoding"] = "gzip" }))
    assert.same({ "accept-encoding", "cookie" },
      vary.names(headers.read { ["Content-Encoding"] = "gzip", Vary = "Cookie, Accept-Encoding" }))
  end)

  it("take the names of Vary in order, each once", function()
    assert.same({ "accept", "cookie" }, vary.names(headers.read { Vary = { "Cookie, Accept", "accept" } }))
    assert.same({}, vary.names({}))
    assert.equal("*", vary.names(headers.read { Vary = "a b" }))
    local many = {}
    for i = 1, 21 do many[i] = "x" .. i end
    assert.equal("*", vary.names(headers.read { Vary = table.concat(many, ",") }))
    local all, is_more = vary.union({ "a" }, { "b", "a" })
    assert.same({ "a", "b" }, all)
    assert.is_true(is_more)
    assert.is_false(select(2, vary.union({ "a", "b" }, { "b" })))
  end)

  for _, case in ipairs {
    { nil, nil }, { "", nil }, { "gzip", "gzip" }, { "br, gzip;q=0.5", "gzip" }, { "gzip;q=0", nil }, { "*", "gzip" },
    { "*;q=0", nil }, { "gzip;q=0, *", nil }, { "identity", nil }, { "X-GZIP ; Q=1", "gzip" }, { "gzip;q=x", nil },
  } do
    it("Accept-Encoding " .. tostring(case[1]), function() assert.equal(case[2], vary.encoding(case[1])) end)
  end

  it("take tags from Surrogate-Key and Cache-Tag", function()
    local fields = headers.read { ["Surrogate-Key"] = "a  b,c a", ["Cache-Tag"] = "d e, f,, " .. ("x"):rep(256) }
    assert.same({ "a", "b", "c", "d e", "f" }, keys.tags(fields, 10))
    assert.same({ "a", "b" }, keys.tags(fields, 2))
  end)
end)

describe("the stored form", function()
  local function response(body)
    return {
      status = 200, received = 1763870000.125, initial_age = 0.5, lifetime = 60, while_revalidate = 2147483648, if_error = 0,
      revalidate = false, fields = headers.read { ["X-A"] = { "1", "2: 3" }, Empty = "" }, body = body,
    }
  end

  it("gives back what went in", function()
    for _, body in ipairs { "", "\n\n", "a\0b\r\n", ("x"):rep(100000) } do
      assert.same(response(body), record.unpack(record.pack(response(body))))
    end
  end)

  it("lets no field add another, nor end the head", function()
    local bad = response("body")
    bad.fields = headers.read { ["X-A"] = "1\nX-B: 2", ["X C"] = "1", ["X-D"] = "a\0", ["X-E"] = "ok" }
    assert.same({ ["x-e"] = { name = "X-E", "ok" } }, record.unpack(record.pack(bad)).fields)
  end)

  it("reads nothing else", function()
    local good = record.pack(response("body"))
    for _, bad in ipairs {
      1, {}, "", "x", "fpcache-http 1\n", "fpcache-http 1\n\n\n", "fpcache-http 1\nx\n\n", (good:gsub("200", "2x0")),
    } do
      assert.is_nil(record.unpack(bad))
    end
    assert.is_nil(record.unpack(nil))
    assert.is_nil(record.read_mark(good))
    assert.is_nil(record.read_mark(nil))
  end)

  it("has marks", function()
    assert.same({ "vary", { "a", "b" } }, { record.read_mark(record.mark("vary", { "a", "b" })) })
    assert.same({ "pass", {} }, { record.read_mark(record.mark("pass")) })
    assert.is_nil(record.unpack(record.mark("pass")))
  end)
end)

describe("whatever bytes come", function()
  local SEED = draws.seed(20261123)
  local PIECES = {
    ",", " ", "\t", "=", '"', "\\", "*", ";", "q=", "max-age", "no-cache", "private", "W/", "%", "&", "?", "#", ":",
    "\0", "\255", "0", "9", "a", "gzip", "GMT", "Sun, 06 Nov 1994 08:49:37 GMT",
  }

  --- Numbers from 0 to below a bound.
  local function generator(seed)
    local draw = draws.new(seed)
    return function(bound) return draw(bound) - 1 end
  end

  local function text(draw)
    local parts = {}
    for i = 1, draw(40) do
      parts[i] = draw(4) == 0 and string.char(draw(256)) or PIECES[draw(#PIECES) + 1]
    end
    return table.concat(parts)
  end

  local function read_all(given)
    local fields = headers.read {
      ["Cache-Control"] = given, Vary = given, ["If-None-Match"] = given, ["Surrogate-Key"] = given, ["Cache-Tag"] = given,
      Connection = given,
    }
    local found = directives.of(fields)
    for name in pairs(found) do
      directives.seconds(found, name)
      directives.fields(found, name)
    end
    local names = vary.names(fields)
    if names ~= "*" then vary.key(names, fields) end
    vary.key({ "vary" }, fields)
    vary.encoding(given)
    conditional.tags(given)
    dates.parse(given, 0)
    headers.storable(fields)
    keys.tags(fields, 100)
    keys.named({ scheme = "http", host = given, uri = given }, headers.read { Location = given })
    keys.place({ scheme = given, host = given, uri = given }, { ["utm_*"] = true })
    record.unpack("fpcache-http 1\n" .. given)
    record.read_mark(given)
    return found
  end

  it("nothing raises", function()
    local draw = generator(SEED)
    for _ = 1, 20000 do
      local given = text(draw)
      local ok, err = pcall(read_all, given)
      if not ok then error(("seed %d, text %q: %s"):format(SEED, given, err)) end
    end
  end)

  it("what is written from directives is read back", function()
    local draw = generator(SEED)
    for _ = 1, 5000 do
      local wanted, parts = {}, {}
      for i = 1, draw(6) do
        local name, value = "d" .. i, nil
        if draw(2) == 0 then
          value = text(draw)
          parts[#parts + 1] = name .. '="' .. value:gsub('["\\]', "\\%0") .. '"'
        else
          parts[#parts + 1] = name
        end
        wanted[name] = value or true
      end
      assert.same(wanted, directives.parse(table.concat(parts, " , ")))
    end
  end)

  it("256 KiB of the worst takes no longer than their length asks for", function()
    for _, piece in ipairs { " ", ",", '"', '\\', '="', "a ", "a=", ' "a', "W/", "%41", "a\t\t", "1" } do
      local long = "a" .. piece:rep(math.floor(262144 / #piece)) .. "b"
      local began = core.system.now()
      read_all(long)
      local took = core.system.now() - began
      assert.is_true(took < 5, ("%q: %.1f s"):format(piece, took)) -- quadratic time would take minutes
    end
  end)
end)
