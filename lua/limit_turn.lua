-- One gateway's turn at one partition of one limit: what it says and asks of single keys, applied whole, and what
-- happened in the partition since it last asked. Does what src/store/memory/limits/partition.rs does.
--
-- Keys, all with one hash tag:
--   1  hash    the partition: `life` (born, start and end of the log, when TTLs were last set), `fleet`, `settled`,
--              and for each gateway `q` and its id: the last sequence that was applied
--   2  hash    its pooled keys: one field of 16 bytes each
--   3  zset    the same keys, by the frame in which they were last mentioned
--   4  list    the log: 17 bytes for each key that was pooled (1) or released (0)
-- Arguments:
--   1  the turn, packed: see `read_turn`. Moments and spans are in microseconds, numbers big-endian.
--   2  empty: the server's TIME rules. Otherwise the time in microseconds; for tests only.
-- Result: the answer, packed: see `reply`.
-- TTL: two frames and a minute on every key, set anew by what writes and otherwise every ten seconds.
-- Complexity: O(k log n) for k keys of the turn among n pooled ones, and O(m) for m entries of the log to be read.
--
-- What depends on the algorithm stands in a file of its own that goes before this one. It gives these, where `count`
-- is a table of its own making, always seen from the present window, and `scene` is the `scene` below:
--   new_count(scene, silent)                  a count of nothing, while all are silent
--   unpack_count(packed, from)                what pack_count wrote, read at `from`
--   pack_count(count)                         as bytes
--   turn_to(count, scene, silent)             carries it on to now
--   report(count, scene, said, given_up)      counts what a gateway used of its free shares in frame said.index (cur) and
--                                             before (prev); it had the shares `given_up` until now
--   add(count, scene, amount)                 counts an overdraft
--   grant(count, scene, amount, valid_until)  counts a grant
--   take_back(count, scene, lot, unspent)     takes back what was granted as of `lot` and not spent
--   left(count, scene, silent)                what may be granted
--   wait(count, scene, silent)                how long until one more would be
--   excess(count, scene)                      by how much it is above the limit
-- `silent` is what is kept back for gateways that have not reported: their shares in the frame before (prev), in this one
-- (cur) and in the next (next), and the first two as a sliding window weighs them (blended). They may use `start_of`
-- and what src/store/redis/wire.rs sends of the terms.

local KEYS_MAX = 65536
local LOG_MAX = 131072
local RELEASED_PER_TURN = 64
local ASKING = 150000
local YOUNG = 1000000
-- One part in so many of a window's free shares is for gateways that come while it is under way.
local SPARE = 4
-- Gateways whose sequences are kept, before those are dropped that are in no fleet any more.
local GATEWAYS_MAX = 1024
-- Values in one call: Lua takes at most some 8,000.
local CHUNK = 2000
local TTL_SLACK = 60000
local REFRESH_EVERY = 10000000

local STATE, POOLED, BY_USE, LOG = KEYS[1], KEYS[2], KEYS[3], KEYS[4]

local REPORT, OVERDRAFT, GIVE_BACK, ASK = 1, 2, 4, 8
local REPORTED, UNREPORTED, NOT_POOLED = 0, 1, 2

-- Who is in the fleet: until when that is sure, and from when on who the members are, oldest first.
local function read_fleet(bytes)
  local sure_until, size, at = struct.unpack('>I8I2', bytes)
  local fleet = { sure_until = sure_until, changes = {} }
  for change = 1, size do
    local from, count
    from, count, at = struct.unpack('>I8I2', bytes, at)
    local members = {}
    for member = 1, count do
      members[member] = string.sub(bytes, at, at + 7)
      at = at + 8
    end
    fleet.changes[change] = { from = from, members = members }
  end
  return fleet
end

local function read_key_turn(bytes, at)
  local flags, key
  flags, key, at = struct.unpack('>Bc16', bytes, at)
  local said = { key = key, overdraft = 0, ask = 0 }
  if bit.band(flags, REPORT) ~= 0 then
    said.reported = true
    said.index, said.prev, said.cur, at = struct.unpack('>I8I8I8', bytes, at)
  end
  if bit.band(flags, OVERDRAFT) ~= 0 then
    said.overdraft, at = struct.unpack('>I8', bytes, at)
  end
  if bit.band(flags, GIVE_BACK) ~= 0 then
    said.back_index, said.unspent, at = struct.unpack('>I8I8', bytes, at)
  end
  if bit.band(flags, ASK) ~= 0 then
    said.ask, at = struct.unpack('>I8', bytes, at)
  end
  return said, at
end

-- What the limit allows, and what follows from that: see `terms` in src/store/redis/wire.rs.
local function read_terms(turn, bytes, at)
  local whole, dated
  turn.allows, turn.length, turn.frame, turn.capacity, turn.free, turn.lag, at =
    struct.unpack('>I8I8I8I8I8B', bytes, at)
  turn.short_life, turn.long_life, turn.span, turn.cell, whole, dated, at = struct.unpack('>I8I8I8I8BB', bytes, at)
  turn.whole = whole == 1
  if dated == 1 then
    local dates = {}
    dates.index, dates[0], dates[1], dates[2], dates[3], at = struct.unpack('>I8I8I8I8I8', bytes, at)
    turn.dates = dates
  end
  return at
end

local function read_turn(bytes)
  local turn, said_all, fleet_size, size, at = {}, nil, nil, nil, nil
  turn.gateway, turn.sequence, turn.epoch, said_all, turn.cursor, at = struct.unpack('>c8I8I8BI8', bytes)
  turn.said_all = said_all == 1
  at = read_terms(turn, bytes, at)
  fleet_size, at = struct.unpack('>I4', bytes, at)
  turn.fleet = string.sub(bytes, at, at + fleet_size - 1)
  size, at = struct.unpack('>I4', bytes, at + fleet_size)
  turn.keys = {}
  for number = 1, size do
    turn.keys[number], at = read_key_turn(bytes, at)
  end
  return turn
end

local function read_state(turn, now)
  local life, fleet, settled, last = unpack(redis.call('HMGET', STATE, 'life', 'fleet', 'settled', 'q' .. turn.gateway))
  local state = { fleet = fleet or turn.fleet, settled = settled or '', last = tonumber(last or 0), met = last ~= false }
  if life then
    state.born, state.log_start, state.log_end, state.refreshed = struct.unpack('>I8I8I8I8', life)
  else
    state.born, state.log_start, state.log_end, state.refreshed = now, 0, 0, 0
  end
  state.new_fleet = not fleet or struct.unpack('>I8', turn.fleet) > struct.unpack('>I8', fleet)
  if state.new_fleet then
    state.fleet = turn.fleet
  end
  return state
end

local function is_settled(state, gateway)
  for at = 1, #state.settled, 8 do
    if string.sub(state.settled, at, at + 7) == gateway then
      return true
    end
  end
  return false
end

-- Once the life is not young any more nobody asks who has settled.
local function settle(state, turn, now)
  if turn.said_all and (turn.epoch == state.born or turn.epoch == 0) and now - state.born < YOUNG then
    if not is_settled(state, turn.gateway) then
      state.settled = state.settled .. turn.gateway
      state.newly_settled = true
    end
  end
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
  frame = math.max(frame - turn.lag, 0)
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
        local pieces = amount and count or 2 ^ math.floor(given / count) * count
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
  scene.shares, scene.everyone = shares, { prev = 0, cur = 0, next = 0, blended = 0 }
  for _, of in pairs(shares) do
    -- In a straight line from the share before to the share now, rounded up.
    if of.cur >= of.prev then
      of.blended = of.prev + mul_div_up(of.cur - of.prev, scene.gone, scene.length)
    else
      of.blended = of.prev - (mul_div(of.prev - of.cur, scene.gone, scene.length))
    end
    for which, amount in pairs(of) do
      scene.everyone[which] = scene.everyone[which] + amount
    end
  end
end

-- What is kept back while all but the `reported` are silent.
local function silent_but(reported, scene)
  local silent = {}
  for which, amount in pairs(scene.everyone) do
    silent[which] = amount
    for _, gateway in ipairs(reported) do
      local of = scene.shares[gateway]
      silent[which] = silent[which] - (of and of[which] or 0)
    end
  end
  return silent
end

-- The frame that counts now, how much of it has gone, and how long it and the next are.
local function set_frame(scene, turn, now)
  if turn.dates then
    local begun = 0
    for number = 0, 3 do
      begun = begun + (turn.dates[number] <= now and 1 or 0)
    end
    scene.index = math.max(turn.dates.index + begun - 2, turn.dates.index - 1)
    local start = start_of(scene.index, turn)
    scene.ends = start_of(scene.index + 1, turn)
    scene.length = math.max(scene.ends - start, 1)
    scene.next_length = math.max(start_of(scene.index + 2, turn) - scene.ends, 1)
    scene.gone = scene.length - math.min(math.max(scene.ends - now, 1), scene.length)
  else
    scene.gone = math.fmod(now, turn.frame)
    scene.index = (now - scene.gone) / turn.frame
    scene.ends = now - scene.gone + turn.frame
    scene.length, scene.next_length = turn.frame, turn.frame
  end
end

local function set_scene(turn, state, now)
  local scene = { turn = turn, now = now, allows = turn.allows }
  set_frame(scene, turn, now)
  local fleet = read_fleet(state.fleet)
  reserves(fleet, scene)
  local all_heard = now - state.born >= YOUNG
  if not all_heard then
    all_heard = true
    for _, gateway in ipairs(members_at(fleet, now)) do
      all_heard = all_heard and is_settled(state, gateway)
    end
  end
  scene.may_grant = all_heard and now <= fleet.sure_until
  return scene
end

local function unpack_key(packed)
  local mentioned, size, at = struct.unpack('>I6I2', packed)
  local pooled = { mentioned = mentioned, reported = {}, askers = {} }
  for number = 1, size do
    pooled.reported[number] = string.sub(packed, at, at + 7)
    at = at + 8
  end
  size, at = struct.unpack('>I2', packed, at)
  for number = 1, size do
    local gateway, asked, ask
    gateway, asked, ask, at = struct.unpack('>c8I8I8', packed, at)
    pooled.askers[number] = { gateway = gateway, at = asked, ask = ask }
  end
  pooled.count = unpack_count(packed, at)
  return pooled
end

local function pack_key(pooled)
  local parts = {
    struct.pack('>I6I2', pooled.mentioned, #pooled.reported),
    table.concat(pooled.reported),
    struct.pack('>I2', #pooled.askers),
  }
  for _, asker in ipairs(pooled.askers) do
    parts[#parts + 1] = asker.gateway .. struct.pack('>I8I8', asker.at, asker.ask)
  end
  parts[#parts + 1] = pack_count(pooled.count)
  return table.concat(parts)
end

-- Every key of the turn that is pooled, by key.
local function read_pooled(turn)
  local pooled, size = {}, #turn.keys
  for from = 1, size, CHUNK do
    local asked = {}
    for number = from, math.min(from + CHUNK - 1, size) do
      asked[#asked + 1] = turn.keys[number].key
    end
    local found = redis.call('HMGET', POOLED, unpack(asked))
    for number, packed in ipairs(found) do
      if packed then
        pooled[asked[number]] = pooled[asked[number]] or unpack_key(packed)
      end
    end
  end
  return pooled
end

local function contains(list, value)
  for _, one in ipairs(list) do
    if one == value then
      return true
    end
  end
  return false
end

-- Notes that a key was spoken of, and pools it if there is a place; nil if there is none.
local function mention(key, scene, work)
  local pooled = work.pooled[key]
  if not pooled then
    work.size = work.size or redis.call('HLEN', POOLED)
    if work.size >= KEYS_MAX then
      return nil
    end
    work.size = work.size + 1
    work.log[#work.log + 1] = key .. '\1'
    pooled = { reported = {}, askers = {}, count = new_count(scene, scene.everyone) }
    work.pooled[key] = pooled
  end
  if not pooled.spoken_of then
    pooled.spoken_of = true
    work.spoken_of[#work.spoken_of + 1] = key
  end
  if pooled.mentioned ~= scene.index then
    pooled.mentioned = scene.index
    work.used[#work.used + 1] = scene.index
    work.used[#work.used + 1] = key
  end
  return pooled
end

-- What a gateway used, seen from the present frame. Time does not run backwards.
local function turned(said, scene)
  local ahead = scene.index - said.index
  if ahead == 1 then
    return { index = scene.index, prev = said.cur, cur = 0 }
  elseif ahead > 1 then
    return { index = scene.index, prev = 0, cur = 0 }
  end
  return said
end

-- Counts what the gateway has used and not yet told, and what it gives back; notes whether it asks.
local function hear(said, pooled, scene)
  local gateway, count = scene.turn.gateway, pooled.count
  turn_to(count, scene, silent_but(pooled.reported, scene))
  if said.reported then
    local given_up = { prev = 0, cur = 0 }
    if not contains(pooled.reported, gateway) then
      pooled.reported[#pooled.reported + 1] = gateway
      given_up = scene.shares[gateway] or given_up
    end
    report(count, scene, turned(said, scene), given_up)
  end
  if said.overdraft > 0 then
    add(count, scene, said.overdraft)
  end
  if said.back_index then
    take_back(count, scene, said.back_index, said.unspent)
  end
  local askers = {}
  for _, asker in ipairs(pooled.askers) do
    if asker.gateway ~= gateway and scene.now - asker.at < ASKING then
      askers[#askers + 1] = asker
    end
  end
  if said.ask > 0 then
    askers[#askers + 1] = { gateway = gateway, at = scene.now, ask = said.ask }
  end
  pooled.askers = askers
end

-- What is left is split among those who ask for it, in equal parts or as they ask, whichever gives more.
local function split(ask, rest, askers)
  local asked = 0
  for _, asker in ipairs(askers) do
    asked = asked + asker.ask
  end
  local equal = ceil_div(rest, math.max(#askers, 1))
  local weighed = mul_div(rest, ask, math.max(asked, 1))
  return math.min(ask, math.max(equal, weighed), rest)
end

local function answer(said, pooled, scene)
  local silent = silent_but(pooled.reported, scene)
  local rest, granted = left(pooled.count, scene, silent), 0
  if scene.may_grant then
    granted = split(said.ask, rest, pooled.askers)
  end
  local life = rest - granted > granted and scene.turn.long_life or scene.turn.short_life
  local valid_until = math.min(scene.ends, scene.now + life)
  if granted > 0 then
    grant(pooled.count, scene, granted, valid_until)
  end
  local standing = contains(pooled.reported, scene.turn.gateway) and REPORTED or UNREPORTED
  return struct.pack('>I8I8I8I8I8B', granted, valid_until, rest - granted, wait(pooled.count, scene, silent),
    excess(pooled.count, scene), standing)
end

local function apply(turn, scene, work)
  local replies = {}
  work.pooled = read_pooled(turn)
  for number, said in ipairs(turn.keys) do
    local pooled = mention(said.key, scene, work)
    if pooled then
      hear(said, pooled, scene)
      replies[number] = answer(said, pooled, scene)
    else
      replies[number] = struct.pack('>I8I8I8I8I8B', 0, scene.now, 0, scene.ends - scene.now, 0, NOT_POOLED)
    end
  end
  return replies
end

local function in_chunks(command, key, values)
  for from = 1, #values, CHUNK do
    redis.call(command, key, unpack(values, from, math.min(from + CHUNK - 1, #values)))
  end
end

-- Lets go of a few keys that were spoken of in neither window, so that free shares count for them again.
local function release(scene, work)
  if scene.index < 2 then
    return
  end
  local idle = redis.call('ZRANGE', BY_USE, '-inf', scene.index - 2, 'BYSCORE', 'LIMIT', 0, RELEASED_PER_TURN)
  if #idle > 0 then
    redis.call('HDEL', POOLED, unpack(idle))
    redis.call('ZREM', BY_USE, unpack(idle))
    for _, key in ipairs(idle) do
      work.log[#work.log + 1] = key .. '\0'
    end
  end
end

local function write_keys(work)
  local fields = {}
  for _, key in ipairs(work.spoken_of) do
    fields[#fields + 1] = key
    fields[#fields + 1] = pack_key(work.pooled[key])
  end
  in_chunks('HSET', POOLED, fields)
  in_chunks('ZADD', BY_USE, work.used)
end

local function write_log(state, work)
  in_chunks('RPUSH', LOG, work.log)
  state.log_end = state.log_end + #work.log
  local over = state.log_end - state.log_start - LOG_MAX
  if over > 0 then
    redis.call('LTRIM', LOG, over, -1)
    state.log_start = state.log_start + over
  end
end

-- Sequences of gateways that are gone would add up for as long as the partition is in use.
local function forget_gateways(state)
  if redis.call('HLEN', STATE) <= GATEWAYS_MAX then
    return
  end
  local known = {}
  for _, change in ipairs(read_fleet(state.fleet).changes) do
    for _, gateway in ipairs(change.members) do
      known['q' .. gateway] = true
    end
  end
  for _, field in ipairs(redis.call('HKEYS', STATE)) do
    if string.len(field) == 9 and not known[field] then
      redis.call('HDEL', STATE, field)
    end
  end
end

local function write_state(turn, state, now, wrote)
  local fields = {}
  if turn.sequence > state.last then
    if not state.met then
      forget_gateways(state)
    end
    fields = { 'q' .. turn.gateway, string.format('%.0f', turn.sequence) }
  end
  local refresh = wrote or now - state.refreshed >= REFRESH_EVERY
  if refresh then
    state.refreshed = now
    fields[#fields + 1] = 'life'
    fields[#fields + 1] = struct.pack('>I8I8I8I8', state.born, state.log_start, state.log_end, now)
  end
  if state.new_fleet then
    fields[#fields + 1] = 'fleet'
    fields[#fields + 1] = state.fleet
  end
  if state.newly_settled then
    fields[#fields + 1] = 'settled'
    fields[#fields + 1] = state.settled
  end
  if #fields > 0 then
    redis.call('HSET', STATE, unpack(fields))
  end
  if refresh then
    local ttl = ceil_div(2 * turn.frame, 1000) + TTL_SLACK
    for _, key in ipairs(KEYS) do
      redis.call('PEXPIRE', key, ttl)
    end
  end
end

-- A cursor behind the log, or ahead of it as after a failover that lost its end, gets all pooled keys instead.
local function reply(turn, state, now, replies)
  local cursor = turn.epoch == state.born and turn.cursor or 0
  local from_the_start = cursor < state.log_start or cursor > state.log_end
  local log = {}
  if from_the_start then
    log = redis.call('ZRANGE', BY_USE, 0, -1)
    for number, key in ipairs(log) do
      log[number] = key .. '\1'
    end
  elseif cursor < state.log_end then
    log = redis.call('LRANGE', LOG, cursor - state.log_start, -1)
  end
  local head = struct.pack('>I8I8I8BI4I4', now, state.born, state.log_end, from_the_start and 1 or 0, #replies, #log)
  return head .. table.concat(replies) .. table.concat(log)
end

local function read_time()
  if ARGV[2] ~= '' then
    return tonumber(ARGV[2])
  end
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local now = read_time()
local turn = read_turn(ARGV[1])
local state = read_state(turn, now)
settle(state, turn, now)
local scene = set_scene(turn, state, now)
local work = { log = {}, used = {}, spoken_of = {}, pooled = {} }
local replies = {}
-- What was said to another life is said again in this one, so none of it is counted here.
local elsewhere = turn.epoch ~= 0 and turn.epoch ~= state.born
if turn.sequence > state.last and not elsewhere then
  replies = apply(turn, scene, work)
end
write_keys(work)
release(scene, work)
write_log(state, work)
write_state(turn, state, now, #work.log > 0 or #work.spoken_of > 0 or state.refreshed == 0)
return reply(turn, state, now, replies)
