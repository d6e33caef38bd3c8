-- One gateway's turn at one partition of one limit: what it says and asks of single keys, applied whole, and what
-- happened in the partition since it last asked. Does what src/store/memory/limits/partition.rs does.
--
-- Keys, all with one hash tag:
--   1  hash    the partition: `life` (born, start and end of the log, when TTLs were last set, the frame in which there
--              was last nothing to release), `fleet`, `settled`, and for each gateway `q` and its id: the last sequence
--              that was applied
--   2  hash    its pooled keys: one field of 16 bytes each; see `pack_key`
--   3  zset    the same keys, by the frame in which they were last in use, or until which something is owed
--   4  list    the log: 17 bytes for each key that was pooled (1) or released (0). Where it is cut, what is still true of
--              what is cut off is said again at its end
-- Arguments:
--   1  the turn, packed: see `read_turn` and `read_said`. Moments and spans are in microseconds, numbers big-endian.
--   2  empty: the server's TIME rules. Otherwise the time in microseconds; for tests only.
-- Result: the answer, packed: see `reply`.
-- TTL: two frames and a minute on every key, set anew by what pools or releases a key and otherwise every ten seconds.
-- Complexity: O(k log n) for k keys of the turn among n pooled ones, and O(m) for the m entries of the log that are read.
--
-- What depends on the algorithm stands in a file of its own that goes before this one. It gives these, where `count`
-- is a table of its own making, always seen from the present window, and `scene` is that of limit_scene.lua:
--   new_count(count, scene, silent, unused)   makes it a count of nothing, while all are silent; this gateway is about to
--                                             report, and has left so much of its share in the frame before unused
--   unpack_count(count, packed, from)         what pack_count wrote, read at `from`
--   pack_count(count)                         as bytes
--   turn_to(count, scene, silent)             carries it on to now
--   report(count, scene, said, given_up)      counts what a gateway used of its free shares in frame said.index (cur) and
--                                             before (prev); it had the shares `given_up` until now
--   is_within(count, most)                    whether no more was counted in this window and the one before; no, where that
--                                             cannot be told
--   add(count, scene, amount)                 counts an overdraft
--   grant(count, scene, amount, valid_until)  counts a grant
--   take_back(count, scene, lot, unspent)     takes back what was granted as of `lot` and not spent
--   left(count, scene, silent)                what may be granted
--   wait(count, scene, silent)                how long until one more would be; asked when nothing is left
--   excess(count, scene)                      by how much it is above the limit; asked when nothing was left
--   owed_frames(count, scene)                 for how many frames more than this one it matters, beyond those that always do
-- `silent` is what is kept back for gateways that have not reported: their shares in the frame before (prev), in this one
-- (cur) and in the next (next), and the first two as a sliding window weighs them (blended). They may use `start_of`
-- and what src/store/redis/wire.rs sends of the terms.
--
-- A full turn is 512 keys, and while it runs the server does nothing else. So what is the same for all keys of a
-- turn is worked out once, a key's state stays bytes where nothing needs its parts, and tables are used again.

local KEYS_MAX = 65536
-- The log is cut where it is longer than twice the pooled keys and so much. Half of it is then outdated at least, so
-- looking at four entries for each that is added shortens it.
local LOG_SLACK = 4096
local CUT_PER_ENTRY = 4
-- Most entries of the log in one answer.
local LOG_READ_MAX = 2000
local RELEASED_PER_TURN = 64
local ASKING = 150000
-- A gateway that is alive usually says what it used of a newly pooled key within so long.
local HEARD_WITHIN = 1100000
-- More than this part of what may come at once is much that remains.
local MUCH_OF_CAPACITY = 8
-- When so many gateways have reported a key, those are forgotten that are in no fleet any more. Below that nobody is
-- taken for gone who is only new.
local REPORTED_MANY = 64
-- Gateways whose sequences are kept, before those are dropped that are in no fleet any more.
local GATEWAYS_MAX = 1024
-- Values in one call: Lua takes at most some 8,000.
local CHUNK = 2000
local TTL_SLACK = 60000
local REFRESH_EVERY = 10000000

local STATE, POOLED, BY_USE, LOG = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local call = redis.call

local REPORT, OVERDRAFT, GIVE_BACK, ASK = 1, 2, 4, 8
local REPORTED, UNREPORTED, NOT_POOLED = 0, 1, 2

-- Bytes of one who asked lately: who, when, and for how much.
local ASKER = 22

-- What is said of the key at hand, its state, and what its algorithm counts.
local said, pooled, count = {}, {}, {}

local function read_state(turn, now)
  local life, fleet, settled, last = unpack(call('HMGET', STATE, 'life', 'fleet', 'settled', 'q' .. turn.gateway))
  local state = { fleet = fleet or turn.fleet, settled = settled or '', last = tonumber(last or 0), met = last ~= false }
  if life then
    state.born, state.log_start, state.log_end, state.refreshed, state.swept = struct_unpack('>I8I8I8I8I8', life)
  else
    state.born, state.log_start, state.log_end, state.refreshed, state.swept = now, 0, 0, 0, 0
  end
  state.new_fleet = not fleet or struct_unpack('>I8', turn.fleet) > struct_unpack('>I8', fleet)
  if state.new_fleet then
    state.fleet = turn.fleet
  end
  return state
end

-- Once the life is not young any more nobody asks who has settled.
local function settle(state, turn, now)
  if turn.said_all and (turn.epoch == state.born or turn.epoch == 0) and now - state.born < YOUNG then
    if not is_settled(state.settled, turn.gateway) then
      state.settled = state.settled .. turn.gateway
      state.newly_settled = true
    end
  end
end

-- Reads into `said` what the turn says of one key, and gives where the next begins.
local function read_said(bytes, at)
  local flags = string.byte(bytes, at)
  at = at + 1
  said.reported, said.overdraft, said.back_index, said.ask = false, 0, nil, 0
  if flags % (2 * REPORT) >= REPORT then
    said.reported = true
    said.index, said.prev, said.cur, at = struct_unpack('>I8I8I8', bytes, at)
  end
  if flags % (2 * OVERDRAFT) >= OVERDRAFT then
    said.overdraft, at = struct_unpack('>I8', bytes, at)
  end
  if flags % (2 * GIVE_BACK) >= GIVE_BACK then
    said.back_index, said.unspent, at = struct_unpack('>I8I8', bytes, at)
  end
  if flags >= ASK then
    said.ask, at = struct_unpack('>I8', bytes, at)
  end
  return at
end

-- Who has reported and who asked stay packed: most keys of a turn agree in the one, and have little of the other.
local function unpack_key(packed)
  local mentioned, logged, reported, askers = struct_unpack('>I6I6I2I2', packed)
  local asked_at = 17 + 8 * reported
  local count_at = asked_at + ASKER * askers
  pooled.mentioned, pooled.logged = mentioned, logged
  pooled.reported, pooled.askers = sub(packed, 17, asked_at - 1), sub(packed, asked_at, count_at - 1)
  unpack_count(count, packed, count_at)
end

local function pack_key()
  local reported, askers = pooled.reported, pooled.askers
  return struct_pack('>I6I6I2I2', pooled.mentioned, pooled.logged, #reported / 8, #askers / ASKER) .. reported .. askers
    .. pack_count(count)
end

-- What a gateway used, seen from the present frame. Time does not run backwards.
local function turn_said(scene)
  local ahead = scene.index - said.index
  if ahead == 1 then
    said.index, said.prev, said.cur = scene.index, said.cur, 0
  elseif ahead > 1 then
    said.index, said.prev, said.cur = scene.index, 0, 0
  end
end

local NOTHING = { prev = 0, cur = 0, next = 0 }

-- Who of these is in the fleet, or was as far back as windows matter. The others have no share that could be kept back.
local function still_known(reported, scene)
  if #reported < 8 * REPORTED_MANY then
    return reported
  end
  local known, kept = known_gateways(scene), {}
  for at = 1, #reported, 8 do
    local gateway = sub(reported, at, at + 7)
    if known[gateway] then
      kept[#kept + 1] = gateway
    end
  end
  return table.concat(kept)
end

-- Counts what the gateway has used and not yet told, and what it gives back.
local function hear(scene)
  if said.reported then
    local given_up = NOTHING
    if not circle(pooled.reported, scene).heard then
      pooled.reported = still_known(pooled.reported, scene) .. scene.turn.gateway
      given_up = scene.shares[scene.turn.gateway] or given_up
    end
    turn_said(scene)
    report(count, scene, said, given_up)
  end
  if said.overdraft > 0 then
    add(count, scene, said.overdraft)
  end
  if said.back_index then
    take_back(count, scene, said.back_index, said.unspent)
  end
end

-- Notes whether the gateway asks, forgets who did long ago, and gives how many ask and for how much.
local function note_asker(scene)
  local packed, kept, asking, asked = pooled.askers, '', 0, 0
  for at = 1, #packed, ASKER do
    local gateway, moment, ask = struct_unpack('>c8I7I7', packed, at)
    if gateway ~= scene.turn.gateway and scene.now - moment < ASKING then
      kept, asking, asked = kept .. sub(packed, at, at + ASKER - 1), asking + 1, asked + ask
    end
  end
  if said.ask > 0 then
    kept = kept .. struct_pack('>c8I7I7', scene.turn.gateway, scene.now, said.ask)
    asking, asked = asking + 1, asked + said.ask
  end
  pooled.askers = kept
  return asking, asked
end

-- What is left is split among those who ask for it, in equal parts or as they ask, whichever gives more.
local function split(rest, asking, asked)
  local ask = said.ask
  if asking < 2 then
    return min(ask, rest)
  end
  local equal = ceil_div(rest, asking)
  local weighed = mul_div(rest, ask, max(asked, 1))
  return min(ask, max(equal, weighed), rest)
end

-- What the gateway says that it did not use of its share in the frame before.
local function unused(scene)
  local share = scene.shares[scene.turn.gateway]
  if not share or not said.reported then
    return 0
  end
  turn_said(scene)
  return max(share.prev - said.prev, 0)
end

local function answer(scene, asking, asked)
  local own = circle(pooled.reported, scene)
  local silent, granted = own.silent, 0
  local rest = left(count, scene, silent)
  if scene.may_grant and said.ask > 0 then
    granted = split(rest, asking, asked)
  end
  local much = rest - granted > granted and rest - granted > floor_div(scene.turn.capacity, MUCH_OF_CAPACITY)
  local valid_until = min(scene.ends, scene.now + (much and scene.turn.long_life or scene.turn.short_life))
  if granted > 0 then
    grant(count, scene, granted, valid_until)
  end
  local free_in = rest > granted and 0 or wait(count, scene, silent)
  if own.awaited then
    free_in = min(free_in, HEARD_WITHIN)
  end
  local over = rest > 0 and 0 or excess(count, scene)
  return struct_pack('>I8I8I8I8I8B', granted, valid_until, rest - granted, free_in, over,
    own.heard and REPORTED or UNREPORTED)
end

-- Where a key stands among those to be written. It is read when it is first spoken of, and pooled if there is a place for
-- it; nil if there is none.
local function place_of(key, packed, scene, work)
  local place = work.places[key]
  if place then
    unpack_key(work.written[place + 1])
    return place
  end
  if packed then
    unpack_key(packed)
  else
    work.size = work.size or call('HLEN', POOLED)
    if work.size >= KEYS_MAX then
      return nil
    end
    work.size = work.size + 1
    pooled.mentioned, pooled.logged, pooled.reported, pooled.askers = nil, work.log_end + #work.log, '', ''
    work.log[#work.log + 1] = key .. '\1'
    new_count(count, scene, scene.everyone, unused(scene))
  end
  place = #work.written + 1
  work.places[key] = place
  work.written[place] = key
  return place
end

-- Notes until which frame a key is in use.
local function mention(key, scene, work)
  local in_use = not pooled.mentioned or said.reported or not is_within(count, scene.little)
  local last = scene.index + owed_frames(count, scene)
  if in_use and pooled.mentioned ~= last then
    pooled.mentioned = last
    work.used[#work.used + 1] = last
    work.used[#work.used + 1] = key
  end
end

local function apply_key(key, packed, scene, work)
  local place = place_of(key, packed, scene, work)
  if not place then
    return struct_pack('>I8I8I8I8I8B', 0, scene.now, 0, scene.ends - scene.now, 0, NOT_POOLED)
  end
  turn_to(count, scene, circle(pooled.reported, scene).silent)
  hear(scene)
  local replied = answer(scene, note_asker(scene))
  mention(key, scene, work)
  work.written[place + 1] = pack_key()
  return replied
end

local function apply(turn, scene, work)
  local bytes, at, replies = ARGV[1], turn.said_at, {}
  for from = 0, turn.size - 1, CHUNK do
    local keys, to = {}, min(from + CHUNK, turn.size)
    for number = from, to - 1 do
      local key_at = turn.keys_at + 16 * number
      keys[number - from + 1] = sub(bytes, key_at, key_at + 15)
    end
    local found = call('HMGET', POOLED, unpack(keys))
    for number = 1, #keys do
      at = read_said(bytes, at)
      replies[from + number] = apply_key(keys[number], found[number], scene, work)
    end
  end
  return replies
end

local function in_chunks(command, key, values)
  for from = 1, #values, CHUNK do
    call(command, key, unpack(values, from, min(from + CHUNK - 1, #values)))
  end
end

-- Lets go of a few keys that were in use in neither window, so that free shares count for them again: whatever each
-- gateway used of such a key, or still holds, is less than its share. While a frame
-- lasts no key becomes idle, so nobody looks again in a frame in which there was nothing more to release.
local function release(scene, state, work)
  if scene.index < 2 or scene.index == state.swept then
    return
  end
  local idle = call('ZRANGE', BY_USE, '-inf', scene.index - 2, 'BYSCORE', 'LIMIT', 0, RELEASED_PER_TURN)
  if #idle > 0 then
    call('HDEL', POOLED, unpack(idle))
    call('ZREM', BY_USE, unpack(idle))
    for _, key in ipairs(idle) do
      work.log[#work.log + 1] = key .. '\0'
    end
  end
  if #idle < RELEASED_PER_TURN then
    state.swept, state.changed = scene.index, true
  end
end

-- What is still true of what is cut off is said again at the log's end, so whoever reads it from its beginning hears of
-- every pooled key.
local function cut_log(state, over)
  local keys, at, again, written = {}, {}, {}, {}
  for number, entry in ipairs(call('LRANGE', LOG, 0, over - 1)) do
    if string.byte(entry, 17) == 1 then
      keys[#keys + 1], at[#at + 1] = sub(entry, 1, 16), state.log_start + number - 1
    end
  end
  for number, packed in ipairs(#keys > 0 and call('HMGET', POOLED, unpack(keys)) or {}) do
    if packed and struct_unpack('>I6', packed, 7) == at[number] then
      written[#written + 1] = keys[number]
      written[#written + 1] = sub(packed, 1, 6) .. struct_pack('>I6', state.log_end + #again) .. sub(packed, 13)
      again[#again + 1] = keys[number] .. '\1'
    end
  end
  call('LTRIM', LOG, over, -1)
  in_chunks('RPUSH', LOG, again)
  in_chunks('HSET', POOLED, written)
  state.log_start, state.log_end = state.log_start + over, state.log_end + #again
end

local function write_log(state, work)
  if #work.log == 0 then
    return
  end
  in_chunks('RPUSH', LOG, work.log)
  state.log_end = state.log_end + #work.log
  local most = 2 * call('HLEN', POOLED) + LOG_SLACK
  local over = min(state.log_end - state.log_start - most, CUT_PER_ENTRY * #work.log)
  if over > 0 then
    cut_log(state, over)
  end
end

-- Sequences of gateways that are gone would add up for as long as the partition is in use.
local function forget_gateways(state)
  if call('HLEN', STATE) <= GATEWAYS_MAX then
    return
  end
  local known = {}
  for _, change in ipairs(read_fleet(state.fleet).changes) do
    for _, gateway in ipairs(change.members) do
      known['q' .. gateway] = true
    end
  end
  for _, field in ipairs(call('HKEYS', STATE)) do
    if string.len(field) == 9 and not known[field] then
      call('HDEL', STATE, field)
    end
  end
end

-- What has no keys may be applied twice, so its sequence is not kept.
local function write_state(turn, state, now, changed_keys)
  local fields = {}
  if turn.size > 0 and turn.sequence > state.last then
    if not state.met then
      forget_gateways(state)
    end
    fields = { 'q' .. turn.gateway, string.format('%.0f', turn.sequence) }
  end
  local refresh = changed_keys or now - state.refreshed >= REFRESH_EVERY
  if refresh then
    state.refreshed = now
  end
  if refresh or state.changed then
    fields[#fields + 1] = 'life'
    fields[#fields + 1] = struct_pack('>I8I8I8I8I8', state.born, state.log_start, state.log_end, state.refreshed,
      state.swept)
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
    call('HSET', STATE, unpack(fields))
  end
  if refresh then
    local ttl = ceil_div(2 * turn.frame, 1000) + TTL_SLACK
    for _, key in ipairs(KEYS) do
      call('PEXPIRE', key, ttl)
    end
  end
end

-- A cursor behind the log, or ahead of it as after a failover that lost its end, begins anew.
local function reply(turn, state, now, replies)
  local cursor = turn.epoch == state.born and turn.cursor or 0
  local missed = cursor < state.log_start or cursor > state.log_end
  if missed then
    cursor = state.log_start
  end
  local log = {}
  if cursor < state.log_end then
    local from = cursor - state.log_start
    log = call('LRANGE', LOG, from, from + LOG_READ_MAX - 1)
    cursor = cursor + #log
  end
  local head = struct_pack('>I8I8I8BBI4I4', now, state.born, cursor, missed and 1 or 0, cursor < state.log_end and 1 or 0,
    #replies, #log)
  return head .. table.concat(replies) .. table.concat(log)
end

local function read_time()
  if ARGV[2] ~= '' then
    return tonumber(ARGV[2])
  end
  local time = call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local now = read_time()
local turn = read_turn(ARGV[1])
local state = read_state(turn, now)
settle(state, turn, now)
local scene = set_frame(turn, now)
local work = { log = {}, log_end = state.log_end, used = {}, written = {}, places = {} }
local replies = {}
-- What was said to another life is said again in this one, so none of it is counted here.
local elsewhere = turn.epoch ~= 0 and turn.epoch ~= state.born
if turn.size > 0 and turn.sequence > state.last and not elsewhere then
  set_shares(scene, state)
  replies = apply(turn, scene, work)
  in_chunks('HSET', POOLED, work.written)
  in_chunks('ZADD', BY_USE, work.used)
end
release(scene, state, work)
write_log(state, work)
write_state(turn, state, now, #work.log > 0 or state.refreshed == 0)
return reply(turn, state, now, replies)
