-- The source "aws": where keys come from, how they are kept, and what the token is.
local clouds = require "support.clouds"
local core = require "fpcache.core"
local sigv4 = require "support.sigv4"
local workspace = require "support.workspace"
local system = core.system

local HOST = "db.abc123.eu-west-1.rds.amazonaws.com"
local SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"

describe("the token source aws", function()
  local ws, desk, dir

  setup(function()
    ws, desk = workspace.start(), clouds.desk()
    dir = desk.dir
  end)
  teardown(function()
    ws:stop()
    desk:remove()
  end)
  before_each(function() ws:reset() end)
  after_each(function() desk:tidy() end)

  local function write(name, text) return desk:write(name, text) end

  local function all(settings)
    local merged = { host = HOST, port = 5432, user = "app" }
    for name, value in pairs(settings or {}) do merged[name] = value end
    return merged
  end

  local function make(environment, settings) return desk:make("aws", all(settings), environment) end
  local function fetch(environment, settings) return desk:fetch("aws", all(settings), environment) end

  -- A refusal, without a secret in it; the words and whether it stays.
  local function refused(environment, settings)
    local secrets = ws:secrets()
    secrets[#secrets + 1] = SECRET
    return desk:refused(secrets, "aws", all(settings), environment)
  end

  local function instance(more)
    local environment = { AWS_EC2_METADATA_SERVICE_ENDPOINT = ws.plain_url }
    for name, value in pairs(more or {}) do environment[name] = value end
    return environment
  end

  local function container(more)
    local environment = { AWS_CONTAINER_CREDENTIALS_FULL_URI = ws.plain_url .. "/ecs",
      AWS_CONTAINER_AUTHORIZATION_TOKEN = ws.control.clouds.container_secret }
    for name, value in pairs(more or {}) do environment[name] = value ~= "" and value or nil end
    return environment
  end

  -- The token is signed with the keys that the stand-in gives.
  local function assert_from_stand_in(token)
    local keys = ws.control.clouds.keys
    local fields = sigv4.check_url(token.password, keys.secret)
    assert.equal(keys.id, fields.id)
    assert.equal(keys.session, fields["X-Amz-Security-Token"])
  end

  it("signs with the environment's keys, for host, port, user and region", function()
    local before = os.time()
    local token = assert(fetch({ AWS_ACCESS_KEY_ID = "AKIA1", AWS_SECRET_ACCESS_KEY = SECRET }, { user = "a b@c" }))
    local fields = sigv4.check_url(token.password, SECRET)
    assert.equal(HOST .. ":5432", fields.host)
    assert.equal("connect", fields.Action)
    assert.equal("a b@c", fields.DBUser)
    assert.equal("AKIA1", fields.id)
    assert.equal("900", fields["X-Amz-Expires"])
    assert.equal(fields["X-Amz-Date"]:sub(1, 8) .. "/eu-west-1/rds-db/aws4_request", fields.scope)
    assert.is_true(fields["X-Amz-Date"] >= os.date("!%Y%m%dT%H%M%SZ", before))
    assert.is_nil(fields["X-Amz-Security-Token"])
    assert.is_true(token.valid_for > 890 and token.valid_for < 901)
    token = assert(fetch { AWS_ACCESS_KEY_ID = "AKIA1", AWS_SECRET_ACCESS_KEY = SECRET, AWS_SESSION_TOKEN = "t/o==" })
    assert.equal("t/o==", sigv4.check_url(token.password, SECRET)["X-Amz-Security-Token"])
  end)

  it("takes the region from the setting, the host, the environment, the profile, in this order", function()
    local config = write("config", "[default]\nregion = eu-north-1\n")
    local function region(settings, environment)
      environment.AWS_ACCESS_KEY_ID, environment.AWS_SECRET_ACCESS_KEY = "AKIA1", SECRET
      environment.AWS_CONFIG_FILE = config
      return sigv4.check_url(assert(fetch(environment, settings)).password, SECRET).scope:match("/(.-)/")
    end
    local elsewhere = { AWS_REGION = "us-east-1", AWS_DEFAULT_REGION = "us-east-2" }
    assert.equal("ap-south-1", region({ region = "ap-south-1" }, elsewhere))
    assert.equal("eu-west-1", region({}, elsewhere))
    assert.equal("us-east-1", region({ host = "db.example.com" }, elsewhere))
    assert.equal("us-east-2", region({ host = "db.example.com" }, { AWS_DEFAULT_REGION = "us-east-2" }))
    assert.equal("eu-north-1", region({ host = "db.example.com" }, {}))
    local err, why = refused({ AWS_ACCESS_KEY_ID = "a", AWS_SECRET_ACCESS_KEY = SECRET }, { host = "db.example.com" })
    assert.truthy(err:find("the region of \"db.example.com\" is not known", 1, true))
    assert.is_true(why.permanent)
  end)

  it("signs for DSQL without port and user", function()
    local keys = { AWS_ACCESS_KEY_ID = "AKIA1", AWS_SECRET_ACCESS_KEY = SECRET }
    local host = "abc.dsql.us-east-1.on.aws"
    local fields = sigv4.check_url(assert(fetch(keys, { host = host, user = "admin" })).password, SECRET)
    assert.same({ host, "DbConnectAdmin" }, { fields.host, fields.Action })
    assert.truthy(fields.scope:find("/us-east-1/dsql/", 1, true))
    assert.is_nil(fields.DBUser)
    fields = sigv4.check_url(assert(fetch(keys, { host = host })).password, SECRET)
    assert.equal("DbConnect", fields.Action)
  end)

  it("refuses settings that no token can be made from", function()
    for wrong, said in pairs { ["host="] = "host must be", ["host=/run/x"] = "host must be", ["user="] = "user is missing",
      ["port=1,2"] = "port is not", ["service=ec2"] = "service is", ["regoin=x"] = "no setting \"regoin\"" } do
      local name, value = wrong:match("(.-)=(.*)")
      local source, err = make({}, { [name] = value })
      assert.is_nil(source)
      assert.truthy(err:find("^invalid: auth aws: ") and err:find(said, 1, true), err)
    end
  end)

  it("takes a profile's keys, and reads them anew", function()
    local path = write("credentials", "[default]\naws_access_key_id = AKIA2\naws_secret_access_key = " .. SECRET
      .. "\n[other]\naws_access_key_id = AKIA3\naws_secret_access_key = " .. SECRET .. "\naws_session_token = tok\n")
    local source = make { AWS_SHARED_CREDENTIALS_FILE = path }
    assert.equal("AKIA2", sigv4.check_url(source:fetch().password, SECRET).id)
    write("credentials", "[default]\naws_access_key_id = AKIA4\naws_secret_access_key = x" .. SECRET .. "\n")
    assert.equal("AKIA4", sigv4.check_url(source:fetch().password, "x" .. SECRET).id)
  end)

  it("lets a named profile win over the environment's keys only when our settings name it", function()
    local path = write("credentials", "[other]\naws_access_key_id = AKIA3\naws_secret_access_key = " .. SECRET .. "\n")
    local environment = { AWS_SHARED_CREDENTIALS_FILE = path, AWS_PROFILE = "other", AWS_ACCESS_KEY_ID = "AKIA1",
      AWS_SECRET_ACCESS_KEY = SECRET }
    assert.equal("AKIA1", sigv4.check_url(fetch(environment).password, SECRET).id)
    assert.equal("AKIA3", sigv4.check_url(fetch(environment, { profile = "other" }).password, SECRET).id)
    local err, why = refused(environment, { profile = "nobody" })
    assert.truthy(err:find("there is no AWS profile \"nobody\"", 1, true))
    assert.is_true(why.permanent)
    write("credentials", "[other]\naws_access_key_id = AKIA3\n")
    assert.truthy(refused(environment, { profile = "other" }):find("aws_secret_access_key is missing", 1, true))
    write("credentials", SECRET .. "\n")
    assert.truthy(refused(environment, { profile = "other" }):find("line 1 is neither", 1, true))
  end)

  it("asks the metadata service of the instance, version 2", function()
    assert_from_stand_in(assert(fetch(instance())))
    local err = refused(instance { AWS_EC2_METADATA_DISABLED = "TRUE" })
    assert.truthy(err:find("AWS_ACCESS_KEY_ID is not set; the profile \"default\" has no keys; "
      .. "AWS_CONTAINER_CREDENTIALS_* is not set; AWS_EC2_METADATA_DISABLED is set", 1, true), err)
    ws.control.clouds.role = nil
    ws:apply()
    err = refused(instance())
    assert.truthy(err:find("this EC2 instance has no role attached", 1, true), err)
  end)

  it("keeps temporary keys until they are near their end", function()
    local source = make(instance())
    local function asked() return ws:count("PUT /latest/api/token") end
    local before = asked()
    for _ = 1, 3 do assert_from_stand_in(assert(source:fetch())) end
    assert.equal(before + 1, asked())
    ws.control.clouds.keys.id = "ASIANEW" -- nobody looks before the half of their life
    ws:apply()
    assert.equal("ASIAEXAMPLE", sigv4.check_url(source:fetch().password, ws.control.clouds.keys.secret).id)
    assert.equal("ASIANEW", sigv4.check_url(source:fetch(10, true).password, ws.control.clouds.keys.secret).id)
    assert.equal(before + 2, asked())
  end)

  it("ends the token with the keys, and uses them on while new ones cannot be had", function()
    ws.control.clouds.keys.life = 300
    ws:apply()
    local source = make(instance())
    local token = assert(source:fetch())
    assert.is_true(token.valid_for > 290 and token.valid_for <= 300)
    ws.control.clouds.keys.life = 2 -- too short to be used on
    ws:apply()
    token = assert(source:fetch(10, true))
    assert.is_true(token.valid_for <= 2 + 1e-6, tostring(token.valid_for)) -- a sum of fractions
    system.sleep(1.1)
    ws:fault { path = "latest/api/token", status = 503 }
    local none, err, why = source:fetch()
    assert.is_nil(none)
    assert.truthy(err:find("503", 1, true), err)
    assert.is_false(why.permanent)
    ws.control.clouds.keys.life = -5
    ws:apply()
    none, err, why = source:fetch(10, true)
    assert.is_nil(none)
    assert.truthy(err:find("the AWS keys that were given have expired", 1, true), err)
    assert.is_false(why.permanent)
  end)

  it("asks the endpoint of a container, with its secret", function()
    assert_from_stand_in(assert(fetch(container())))
    local file = write("container-token", ws.control.clouds.container_secret .. "\n")
    assert_from_stand_in(assert(fetch(container { AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE = file,
      AWS_CONTAINER_AUTHORIZATION_TOKEN = "the file wins" })))
    local err, why = refused(container { AWS_CONTAINER_AUTHORIZATION_TOKEN = "wrong-secret-0123456789" })
    assert.truthy(err:find("^denied: the container's credentials endpoint"), err)
    assert.is_true(why.permanent)
    assert.truthy(refused(container { AWS_CONTAINER_AUTHORIZATION_TOKEN = "a\r\nX-Evil: b" }):find("more than one line", 1, true))
    assert.truthy(refused(container { AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE = dir .. "/none" }):find(dir .. "/none", 1, true))
  end)

  it("gives a container's secret to no other address", function()
    for _, url in ipairs { "http://10.0.0.1/ecs", "http://169.254.170.20/ecs", "http://169.254.170.2.example.com/ecs",
      "http://example.com/ecs", "http://169.254.169.254/ecs", "ftp://localhost/ecs" } do
      local err = refused(container { AWS_CONTAINER_CREDENTIALS_FULL_URI = url })
      assert.truthy(err:find("AWS_CONTAINER_CREDENTIALS_FULL_URI must begin with https://", 1, true)
        or url:find("^ftp") and err:find("^invalid"), err)
    end
  end)

  it("trades a web identity for keys, read from its file each time", function()
    local file = write("jwt", workspace.SUBJECT_TOKEN .. "\n")
    local environment = { AWS_WEB_IDENTITY_TOKEN_FILE = file, AWS_ROLE_ARN = "arn:aws:iam::1:role/app",
      AWS_ROLE_SESSION_NAME = "pod", AWS_ENDPOINT_URL_STS = ws.plain_url }
    assert_from_stand_in(assert(fetch(environment)))
    local requests = ws:report().requests
    local body = requests[#requests].body
    assert.truthy(body:find("RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fapp&RoleSessionName=pod", 1, true), body)
    assert.is_nil(requests[#requests].headers.authorization)
    ws.control.clouds.sts_json = true
    ws:apply()
    assert_from_stand_in(assert(fetch(environment)))
    write("jwt", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ3cm9uZyJ9.")
    local err, why = refused(environment)
    assert.truthy(err:find("InvalidIdentityToken", 1, true), err)
    assert.is_nil(err:find("eyJhbGci", 1, true))
    assert.is_true(why.permanent)
    environment.AWS_ROLE_ARN = nil
    assert.truthy(refused(environment):find("AWS_ROLE_ARN is not", 1, true))
  end)

  it("assumes a profile's role with the keys of another, signed", function()
    local config = write("config", ([[
[profile app]
role_arn = arn:aws:iam::1:role/app
source_profile = base
external_id = ext/1
duration_seconds = 900
[profile base]
aws_access_key_id = AKIABASE
aws_secret_access_key = %s
[profile loop]
role_arn = arn:aws:iam::1:role/loop
source_profile = loop2
[profile loop2]
role_arn = arn:aws:iam::1:role/loop
source_profile = loop
[profile mfa]
role_arn = arn:aws:iam::1:role/app
source_profile = base
mfa_serial = arn:aws:iam::1:mfa/ann
[profile env]
role_arn = arn:aws:iam::1:role/app
credential_source = Environment
[profile sso]
sso_session = work
[profile lost]
role_arn = arn:aws:iam::1:role/app
source_profile = nowhere
]]):format(SECRET))
    local environment = { AWS_CONFIG_FILE = config, AWS_ENDPOINT_URL_STS = ws.plain_url .. "/",
      AWS_ACCESS_KEY_ID = "AKIAENV", AWS_SECRET_ACCESS_KEY = SECRET, AWS_SESSION_TOKEN = "env/session==" }
    assert_from_stand_in(assert(fetch(environment, { profile = "app" })))
    local requests = ws:report().requests
    local last = requests[#requests]
    assert.equal("AKIABASE", sigv4.check_post(last, SECRET))
    assert.truthy(last.body:find("ExternalId=ext%2F1&DurationSeconds=900", 1, true), last.body)
    assert_from_stand_in(assert(fetch(environment, { profile = "env" })))
    requests = ws:report().requests
    assert.equal("AKIAENV", sigv4.check_post(requests[#requests], SECRET))
    assert.equal("env/session==", requests[#requests].headers["x-amz-security-token"])
    for profile, said in pairs { loop = "follow each other", mfa = "mfa_serial", sso = "credential_process = aws configure",
      lost = "no profile \"nowhere\"" } do
      local err, why = refused(environment, { profile = profile })
      assert.truthy(err:find(said, 1, true), err)
      assert.is_true(why.permanent)
    end
    environment.AWS_ENDPOINT_URL_STS = ws.plain_url .. "/path"
    assert.truthy(refused(environment, { profile = "app" }):find("without a path", 1, true))
  end)

  it("runs a profile's credential_process without a shell", function()
    local program = write("give keys", "#!/bin/sh\necho noise >&2\n[ \"$1\" = 'a;b $HOME' ] || exit 3\n"
      .. "cat '" .. dir .. "/keys.json'\n")
    assert(system.chmod(program, tonumber("755", 8)))
    local config = write("config", ("[profile p]\ncredential_process = \"%s\" 'a;b $HOME'\n[profile q]\n"
      .. "credential_process = \"%s\" other\n[profile r]\ncredential_process = /no/such/program\n"):format(program, program))
    write("keys.json", ('{"Version":1,"AccessKeyId":"AKIAP","SecretAccessKey":"%s","SessionToken":"t","Expiration":"%s"}'):format(
      SECRET, os.date("!%Y-%m-%dT%H:%M:%SZ", os.time() + 600)))
    local environment = { AWS_CONFIG_FILE = config }
    local token = assert(fetch(environment, { profile = "p" }))
    assert.equal("AKIAP", sigv4.check_url(token.password, SECRET).id)
    assert.is_true(token.valid_for > 590 and token.valid_for <= 601)
    assert.truthy(refused(environment, { profile = "q" }):find("exit status 3", 1, true))
    assert.truthy(refused(environment, { profile = "r" }):find("/no/such/program", 1, true))
    write("keys.json", '{"Version":2,"SecretAccessKey":"' .. SECRET .. '"}')
    assert.truthy(refused(environment, { profile = "p" }):find("did not write keys", 1, true))
  end)

  it("says what went wrong at the other side, and whether to come again", function()
    local file = write("jwt", workspace.SUBJECT_TOKEN)
    local web = { AWS_WEB_IDENTITY_TOKEN_FILE = file, AWS_ROLE_ARN = "arn:x", AWS_ENDPOINT_URL_STS = ws.plain_url }
    for name, environment in pairs { imds = instance(), ecs = container(), sts = web } do
      local path = name == "imds" and "security%-credentials/." or name == "ecs" and "/ecs" or "POST /$"
      for _, case in ipairs { { status = 401, permanent = true }, { status = 500 }, { status = 503 },
        { status = 429, headers = { ["Retry-After"] = "7" }, after = 7 }, { body = "{\"AccessKeyId\":", status = 200 },
        { body = "<html>" .. SECRET .. "</html>", status = 200 },
        { body_size = 3 * 1024 * 1024 }, { cut = "before", times = 2 }, { cut = "middle" } } do
        case.path = path
        ws:fault(case)
        local err, why = refused(environment)
        assert.equal(case.permanent or false, why.permanent, name .. ": " .. err)
        assert.equal(case.after or 0, why.retry_after, name .. ": " .. err)
        ws:reset()
      end
    end
    ws:fault { path = "latest/api/token", delay = 20 }
    local token, err = make(instance()):fetch(0.3)
    assert.is_nil(token)
    assert.truthy(err:find("^timeout: "), err)
  end)
end)
