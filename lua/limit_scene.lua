-- What a limit's turn is applied under, and by whom: the turn as it was sent, the frame that counts now, the fleet, and
-- what is kept back for gateways that have not said what they used.
--
-- Keys: none of its own. Arguments: those of limit_turn.lua, which follows. Result: none; gives `read_turn`, `set_frame`,
-- `set_shares`, `circle` and smaller things to what follows. TTL: nothing is stored. Complexity: O(g) for g gateways.

-- From so many microseconds after its life began a partition grants without having heard from everyone.
local YOUNG = 1000000
-- A key is not in use that has so small a part of a share used in two windows. Half a share pools it.
local LITTLE_OF_SHARE = 4

-- One part in so many of a window's free shares is for gateways that come while it is under way.
local SPARE = 4

local sub, struct_pack, struct_unpack = string.sub, struct.pack, struct.unpack
local floor, max, min = math.floor, math.max, math.min

-- Who is in the fleet: until when that is sure, and from when on who the members are, oldest first.
local function read_fleet(bytes)
  local sure_until, size, at = struct_unpack('>I8I2', bytes)
  local fleet = { sure_until = sure_until, changes = {} }
  for change = 1, size do
    local from, count
    from, count, at = struct_unpack('>I8I2', bytes, at)
    local members = {}
    for member = 1, count do
      members[member] = sub(bytes, at, at + 7)
      at = at + 8
    end
    fleet.changes[change] = { from = from, members = members }
  end
  return fleet
end

-- What the limit allows, and what follows from that: see `terms` in src/store/redis/wire.rs.
local function read_terms(turn, bytes, at)
  local whole, dated
  turn.allows, turn.length, turn.frame, turn.capacity, turn.free, turn.lag, turn.short_life, turn.long_life, turn.span,
    turn.cell, whole, dated, at = struct_unpack('>I8I8I8I8I8BI8I8I8I8BB', bytes, at)
  turn.whole = whole == 1
  if dated == 1 then
    local dates = {}
    dates.index, dates[0], dates[1], dates[2], dates[3], at = struct_unpack('>I8I8I8I8I8', bytes, at)
    turn.dates = dates
  end
  return at
end

-- The turn without what it says of its keys, which begins at `said_at`.
local function read_turn(bytes)
  local turn, said_all, fleet_size, at = {}, nil, nil, nil
  turn.gateway, turn.sequence, turn.epoch, said_all, turn.cursor, at = struct_unpack('>c8I8I8BI8', bytes)
  turn.said_all = said_all == 1
  at = read_terms(turn, bytes, at)
  fleet_size, at = struct_unpack('>I4', bytes, at)
  turn.fleet = sub(bytes, at, at + fleet_size - 1)
  turn.size, at = struct_unpack('>I4', bytes, at + fleet_size)
  turn.keys_at, turn.said_at = at, at + 16 * turn.size
  return turn
end

local function members_at(fleet, start)
  for change = #fleet.changes, 1, -1 do
    if fleet.changes[change].from <= start then
      return fleet.changes[change].members
    end
  end
  return fleet.changes[1] and fleet.changes[1].members or {}
end

-- Who has which free share in a frame: `give` is told of each. The members at its start divide the steady part; who comes
-- later has a piece of the spare one, and pieces halve with every so many as there were members. If there was nobody at
-- the start, the first to come are the members. Nobody has any while it is not sure.
local function free_in(frame, fleet, turn, give)
  frame = max(frame - turn.lag, 0)
  local start, ends = start_of(frame, turn), start_of(frame + 1, turn)
  if start > fleet.sure_until then
    return
  end
  local spare = turn.lag == 0 and floor_div(turn.free, SPARE) or 0
  local members, seen, given = members_at(fleet, start), {}, 0
  local count = #members
  local function divide(amount, who)
    for _, gateway in ipairs(who) do
      if not seen[gateway] then
        seen[gateway] = true
        local pieces = amount and count or 2 ^ floor(given / count) * count
        give(gateway, floor_div(amount or spare, pieces))
        given = given + 1
      end
    end
  end
  if count > 0 then
    divide(turn.free - spare, members)
  end
  for number = 2, spare > 0 and #fleet.changes or 0 do
    local change = fleet.changes[number]
    if change.from > start and change.from < ends and change.from <= fleet.sure_until and #change.members > 0 then
      if count == 0 then
        count = #change.members
        divide(turn.free - spare, change.members)
      else
        divide(nil, change.members)
      end
    end
  end
end

-- What each gateway may use of its free shares; and all of them together, as if everyone were silent.
local function reserves(fleet, scene)
  local turn, shares = scene.turn, {}
  local function share(frame, which)
    free_in(frame, fleet, turn, function(gateway, amount)
      shares[gateway] = shares[gateway] or { prev = 0, cur = 0, next = 0 }
      shares[gateway][which] = amount
    end)
  end
  share(scene.index, 'cur')
  if scene.index > 0 then
    share(scene.index - 1, 'prev')
  end
  if turn.lag > 0 then
    share(scene.index + 1, 'next')
  end
  local prev, cur, next, blended, least = 0, 0, 0, 0, nil
  for _, of in pairs(shares) do
    -- In a straight line from the share before to the share now, rounded up.
    if of.cur == of.prev then
      of.blended = of.cur
    elseif of.cur > of.prev then
      of.blended = of.prev + mul_div_up(of.cur - of.prev, scene.gone, scene.length)
    else
      of.blended = of.prev - (mul_div(of.prev - of.cur, scene.gone, scene.length))
    end
    least = min(least or of.cur, of.prev, of.cur)
    prev, cur, next, blended = prev + of.prev, cur + of.cur, next + of.next, blended + of.blended
  end
  scene.little = floor_div(least or 0, LITTLE_OF_SHARE)
  scene.shares, scene.everyone = shares, { prev = prev, cur = cur, next = next, blended = blended }
end

-- What is kept back while all but the `reported` are silent, whether this gateway is one of them, and whether another
-- that is alive will be. Hardly ever do two keys of a turn differ in it, so it is worked out once for each circle of
-- gateways.
local function circle(reported, scene)
  local known = scene.circles[reported]
  if known then
    return known
  end
  local all, has_spoken = scene.everyone, {}
  local silent = { prev = all.prev, cur = all.cur, next = all.next, blended = all.blended }
  for at = 1, #reported, 8 do
    local gateway = sub(reported, at, at + 7)
    has_spoken[gateway] = true
    local of = scene.shares[gateway]
    if of then
      silent.prev, silent.cur = silent.prev - of.prev, silent.cur - of.cur
      silent.next, silent.blended = silent.next - of.next, silent.blended - of.blended
    end
  end
  known = { silent = silent, heard = has_spoken[scene.turn.gateway] }
  for _, gateway in ipairs(scene.members) do
    known.awaited = known.awaited or scene.shares[gateway] and gateway ~= scene.turn.gateway and not has_spoken[gateway]
  end
  scene.circles[reported] = known
  return known
end

-- The frame that counts now, how much of it has gone, and how long it and the next are.
local function set_frame(turn, now)
  local scene = { turn = turn, now = now, allows = turn.allows, circles = {} }
  if turn.dates then
    local begun = 0
    for number = 0, 3 do
      begun = begun + (turn.dates[number] <= now and 1 or 0)
    end
    scene.index = max(turn.dates.index + begun - 2, turn.dates.index - 1)
    local start = start_of(scene.index, turn)
    scene.ends = start_of(scene.index + 1, turn)
    scene.length = max(scene.ends - start, 1)
    scene.next_length = max(start_of(scene.index + 2, turn) - scene.ends, 1)
    scene.gone = scene.length - min(max(scene.ends - now, 1), scene.length)
  else
    scene.gone = now % turn.frame
    scene.index = (now - scene.gone) / turn.frame
    scene.ends = now - scene.gone + turn.frame
    scene.length, scene.next_length = turn.frame, turn.frame
  end
  return scene
end

-- Who has been in the fleet for as far back as it was told.
local function known_gateways(scene)
  if not scene.known then
    scene.known = {}
    for _, change in ipairs(scene.fleet.changes) do
      for _, gateway in ipairs(change.members) do
        scene.known[gateway] = true
      end
    end
  end
  return scene.known
end

local function is_settled(settled, gateway)
  for at = 1, #settled, 8 do
    if sub(settled, at, at + 7) == gateway then
      return true
    end
  end
  return false
end

-- What only keys are judged by: whose shares are kept back, and whether anything may be granted.
local function set_shares(scene, state)
  local fleet = read_fleet(state.fleet)
  reserves(fleet, scene)
  scene.fleet, scene.members = fleet, members_at(fleet, scene.now)
  local all_heard = scene.now - state.born >= YOUNG
  if not all_heard then
    all_heard = true
    for _, gateway in ipairs(scene.members) do
      all_heard = all_heard and is_settled(state.settled, gateway)
    end
  end
  scene.may_grant = all_heard and scene.now <= fleet.sure_until
end
