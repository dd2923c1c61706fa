-- interleavings.lua -- runs the actors of a scenario in every order, or in orders drawn from a seed.
--
-- A scenario is { before = function(world), actors = { function(world), ... } }.  Every run starts from nothing and
-- repeats its choices (actors are coroutines and cannot be copied).  Runs that differ only in the order of steps that do
-- not touch the same count as one: sleep sets, which leave out no state.
local simulation = require "support.simulation"

local interleavings = {}

local function start(world, actors)
  local started = {}
  for i, run in ipairs(actors) do
    local actor = { co = coroutine.create(function() run(world) end) }
    local ok, touches, may = coroutine.resume(actor.co)
    if not ok then error(touches, 0) end
    actor.touches, actor.may = touches, may
    started[i] = actor
  end
  return started
end

local function has_ended(actor) return coroutine.status(actor.co) == "dead" end
local function is_ready(actor) return not has_ended(actor) and (actor.may == nil or actor.may()) end

--- One step.  Nil, or the promise that was broken.
local function advance(world, actor)
  world.now = world.now + 1
  local ok, touches, may = coroutine.resume(actor.co)
  if ok then
    actor.touches, actor.may = touches, may
    ok, touches = pcall(world.judge_all, world)
    if ok then return nil end
  end
  if type(touches) ~= "table" then error(debug.traceback(actor.co, tostring(touches)), 0) end
  return touches.violation
end

--- A world after the scenario's `before`, its actors, and the promise that was broken by then.
local function begin(scenario, mutation)
  local world = simulation.new(mutation)
  local first = start(world, { scenario.before })[1]
  while first and not has_ended(first) do
    local violation = advance(world, first)
    if violation then return world, {}, violation end
  end
  return world, start(world, scenario.actors)
end

local conflicts = {}

--- Whether two steps touch the same, and one of them writes it.
local function conflict(a, b)
  local pair = a .. "/" .. b
  if conflicts[pair] == nil then
    local found = false
    for letter in a:gmatch(".") do
      local writes = letter == letter:upper()
      if b:find(letter:upper(), 1, true) or (writes and b:find(letter:lower(), 1, true)) then found = true end
    end
    conflicts[pair] = found
  end
  return conflicts[pair]
end

local function choices_of(actors, asleep)
  local choices, any_ready, all_ended = {}, false, true
  for i, actor in ipairs(actors) do
    if not has_ended(actor) then all_ended = false end
    if is_ready(actor) then
      any_ready = true
      if not asleep[i] then choices[#choices + 1] = i end
    end
  end
  return choices, not any_ready and not all_ended
end

local function add_counts(result, world)
  for what, count in pairs(world.counts) do result.counts[what] = (result.counts[what] or 0) + count end
end

--- How a run ended, as far as the process can tell.
local function describe_end(world)
  local parts = { world.epoch, world.incarnation or "none", world.wipes, world.filter and "loaded" or "no filter" }
  for _, keys in ipairs { world.filter or {}, world.stamps } do
    local names = {}
    for key, value in pairs(keys) do names[#names + 1] = key .. "=" .. tostring(value) end
    table.sort(names)
    parts[#parts + 1] = table.concat(names, ",")
  end
  return table.concat(parts, " ")
end

--- Every order.  { runs, steps, counts, ends: a set, violation or nil, order: the actors' numbers that led to it };
--- nil when there are more than `max_runs`.  `all`: without sleep sets, to check them.
function interleavings.explore(scenario, mutation, max_runs, all)
  local result, nodes = { runs = 0, steps = 0, counts = {}, ends = {} }, {}
  repeat
    local world, actors, violation = begin(scenario, mutation or {})
    local depth = 0
    local asleep = {}
    while not violation do
      depth = depth + 1
      local node = nodes[depth]
      if not node then
        local choices, is_stuck = choices_of(actors, asleep)
        if is_stuck then violation = "nobody can go on" end
        if #choices == 0 then
          if not next(asleep) then result.ends[describe_end(world)] = true end
          break
        end
        node = { choices = choices, at = 1, asleep = asleep }
        nodes[depth] = node
      end
      local chosen = node.choices[node.at]
      if not nodes[depth + 1] then
        asleep = {}
        for i in pairs(node.asleep) do
          asleep[i] = not all and not conflict(actors[i].touches, actors[chosen].touches) or nil
        end
      end
      violation = advance(world, actors[chosen])
      result.steps = result.steps + 1
    end
    result.runs = result.runs + 1
    add_counts(result, world)
    if violation then
      result.violation, result.order = violation, {}
      for i, node in ipairs(nodes) do result.order[i] = node.choices[node.at] end
      return result
    end
    if max_runs and result.runs >= max_runs then return nil, "more than " .. max_runs .. " runs" end
    while #nodes > 0 do
      local last = nodes[#nodes]
      last.asleep[last.choices[last.at]] = true -- what follows from it was run
      last.at = last.at + 1
      if last.choices[last.at] then break end
      nodes[#nodes] = nil
    end
  until #nodes == 0
  return result
end

--- `runs` orders drawn from `seed` (1 to 2147483646); Park and Miller's generator, exact in a double.
function interleavings.sample(scenario, mutation, runs, seed)
  local result, state = { runs = 0, steps = 0, counts = {} }, seed
  for _ = 1, runs do
    local world, actors, violation = begin(scenario, mutation or {})
    local order = {}
    result.runs = result.runs + 1
    while not violation do
      local choices, is_stuck = choices_of(actors, {})
      if is_stuck then violation = "nobody can go on" end
      if #choices == 0 then break end
      state = state * 16807 % 2147483647
      order[#order + 1] = choices[state % #choices + 1]
      violation = advance(world, actors[order[#order]])
      result.steps = result.steps + 1
    end
    add_counts(result, world)
    if violation then
      result.violation, result.order = violation, order
      return result
    end
  end
  return result
end

return interleavings
