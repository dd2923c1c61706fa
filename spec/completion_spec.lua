-- completion_spec.lua -- completion in bash and zsh, and the manual page: they know what the program knows.
local core = require "fpcache.core"
local files = require "support.files"
local interpreter = require "support.interpreter"
local terminal = require "support.terminal"

local ROOT = assert(core.system.realpath("."))

--- Whether a program is there.
local function has(program)
  return core.run({ argv = { "/bin/sh", "-c", 'command -v "$0"', program } }).status == 0
end

--- Every command of the program, from its own table.
local function commands()
  local list = {}
  local main = assert(files.read("lua/fpcache/cli/main.lua"))
  for name, in_brackets in main:match("local COMMANDS = {(.-)\n}"):gmatch('([%w%["%]]+) = "()') do
    list[#list + 1] = in_brackets and name:match("%w+")
  end
  return list
end

local COMPLETE = {
  bash = [==[
    PATH="$1:$PATH"; file=$2/completion/fpcache.bash; shift 2
    . "$file"
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
    _fpcache fpcache
    printf '%s\n' "${COMPREPLY[@]}"]==],
  -- zsh's own functions exist only inside its line editor: they are replaced by what shows what they are told.
  zsh = [==[
    path=($1 $path); file=$2/completion/_fpcache; shift 2
    compadd() { local word; for word in ${(P)2}; do [[ $word == ${words[CURRENT]}* ]] && print -r -- $word; done; true }
    _files() { : }
    words=("$@"); CURRENT=$#
    source $file]==],
}

for shell, script in pairs(COMPLETE) do
  describe("completion in " .. shell, function()
    local tool

    setup(function() tool = interpreter.new() end)
    teardown(function() tool:remove() end)

    --- What the shell offers for the last word.
    local function offered(...)
      local answer = tool { program = shell, shell == "zsh" and "-fc" or "-c", script, "completion",
        interpreter.path:match("^(.*)/"), ROOT, "fpcache", ... }
      assert.equal("", answer.err)
      assert.equal(0, answer.code)
      local set = {}
      for word in answer.out:gmatch("[^\n]+") do set[word] = true end
      return set
    end

    it("offers every command, those inside of commands, and every option", function()
      if not has(shell) then return pending("there is no " .. shell) end
      local first = offered("")
      for _, name in ipairs(commands()) do assert.is_true(first[name], name) end
      assert.same({ warm = true }, offered("war"))
      assert.same({ ["--version"] = true }, offered("--v"))
      local admin = offered("admin", "")
      for _, name in ipairs { "setup", "status", "upgrade", "feed", "drop", "watch", "quota", "sweep" } do
        assert.is_true(admin[name], name)
      end
      assert.is_true(offered("local", "")["destroy"])
      assert.same({ show = true }, offered("token", "s"))
      local warm = offered("warm", "--")
      for _, option in ipairs { "--key", "--value-url", "--resume", "--max-errors", "--url", "--schema" } do
        assert.is_true(warm[option], option)
      end
      assert.is_true(offered("admin", "setup", "--")["--grant"])
      assert.same({ ["--rate"] = true }, offered("warm", "x.jsonl", "--ra"))
    end)
  end)
end

-- How each is started, and told of the completion, at a prompt.
local PROMPTS = {
  bash = { { "bash", "--norc", "--noprofile", "-i" }, ". %s/completion/fpcache.bash" },
  zsh = { { "zsh", "-f", "-i" },
    "fpath=(%s/completion $fpath); bindkey -e; autoload -Uz compinit; compinit -u -D; zstyle ':completion:*' menu no" },
}

describe("Tab at a real prompt", function()
  if rawget(_G, "jit") then return end -- there is nothing of LuaJIT in it
  for shell, how in pairs(PROMPTS) do
    it("completes commands and options in " .. shell, function()
      if not has(shell) then return pending("there is no " .. shell) end
      local t = terminal.start(how[1], { HOME = "/nowhere" })
      finally(function() t:stop() end)
      t:type(("PS1='ready> '; PATH=%s:$PATH; %s\n"):format(interpreter.path:match("^(.*)/"), how[2]:format(ROOT)))
      t:sees("\nready>\n")
      for _, one in ipairs { { "fpcache war", "fpcache warm " }, { "fpcache admin se", "fpcache admin setup " },
        { "fpcache warm x --max-e", "fpcache warm x --max-errors " }, { "fpcache token sh", "fpcache token show " },
        { "fpcache replay x --pla", "fpcache replay x --play " } } do
        t:type(one[1])
        t:sees("ready> " .. one[1])
        t:key("Tab")
        t:sees("ready> " .. one[2]:gsub(" $", ""))
        t:type("#end") -- a blank came behind the word, and the cursor after it
        t:sees("ready> " .. one[2] .. "#end")
        t:key("C-u")
      end
      t:type("fpcache local ")
      t:key("Tab")
      t:key("Tab")
      local screen = t:sees("destroy")
      for _, word in ipairs { "start", "status", "stop", "url" } do assert.matches("%f[%w]" .. word .. "%f[%W]", screen) end
    end)
  end
end)

describe("the manual page", function()
  it("is without faults, and names every command", function()
    if not has("mandoc") then return pending("there is no mandoc") end
    local lint = assert(core.run { argv = { "mandoc", "-T", "lint", "-W", "style", "docs/man/fpcache.1" } })
    assert.equal("", lint.output)
    local text = assert(core.run { argv = { "/bin/sh", "-c", "mandoc -T utf8 docs/man/fpcache.1 | sed 's/.\b//g'" } }).output
    local list = text:match("\nCOMMANDS\n(.-)\nOPTIONS\n")
    for _, name in ipairs(commands()) do assert.is_truthy(list:find("%f[%w]" .. name .. "%f[%W]"), name) end
    assert.matches("fpcache " .. core.version:gsub("%.", "%%."), text)
  end)
end)
