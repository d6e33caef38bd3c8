-- One gateway's turn at one room: what its visitors did, done at one moment, and what happened in the room since it
-- last asked. Does what `turn` of src/queue/turn.rs does, and keeps the log of src/queue/log.rs.
--
-- A visitor is an order number, written as six bytes: its id. Numbers wait from the frontier on, so which of them do
-- is a bit each; when they came is kept in chunks, for those who came in one turn came at one moment. Neither is cleared
-- for numbers that were called: what lies at or below the frontier is not looked at.
--
-- Keys, all with one hash tag:
--   1  hash    the room: `life` (see `read_life`), `said` (what operators said), `admission` (see admission.lua),
--              `revoked` and `given` (the ids of the last numbers revoked, and of the last passes given back), `measured`
--              (the rates that gateways propose), `lobby` (see shuffle.lua), `earlier` (see room_earlier.lua)
--   2  zset    those who wait, by their last sign of life
--   3  string  the same, as bits: the first is the number `base`, a multiple of 8
--   4  hash    when they came, 7 bytes each, by chunk of 64 numbers; and with an `o` before it their owners, 16 each
--   5  zset    the called, by the moment at which the call is over
--   6  zset    those inside, by the expiry of their pass
--   7  hash    of the called and those inside: when they came, when they entered, and the owner if there is one
--   8  hash    owners, and their numbers
--   9  list    the log: a change each, as in the answer
--   10 hash    of the ids that came with a network, where places are bounded by it: that network; and networks, 8 bytes
--              each, with how many places they have
--   11 hash    people of an earlier life, see room_earlier.lua
-- Arguments:
--   1  the turn, packed: see `read_turn`. Moments and spans are in microseconds, numbers big-endian.
--   2  empty: the server's TIME rules. Otherwise the time in microseconds; for tests only.
-- Result: the answer, packed: see `reply`.
-- TTL: a day beyond the life of a place or a pass, on every key, set anew by what changes something and otherwise every
--   ten seconds. A gateway turns once a second even if nobody comes. So a room is forgotten a day after the last of
--   its gateways has gone, and then nobody holds a place or a pass in it that is still good.
-- Complexity: O(v log n) for v visitors of the turn, of those whose time ran out, and of those called, among n. What
--   is found to do by itself is bounded by the two consts below.

local EXPIRIES_PER_TURN = 2000
local CALLS_PER_TURN = 2000
local PASS_GRACE = 3000000
local DEAF_AFTER = 3000000
local HEARING = 10000000
local LOG_CHANGES_MAX = 2048
local LOG_NUMBERS_MAX = 262144
local PER_CHUNK = 64
-- Bytes of the bits that may lie below the frontier before they are cut off.
local CUT_AT = 65536
-- Bytes of the bits that are looked at together.
local BLOCK = 256
-- Values in one call: Lua takes at most some 8,000.
local CHUNK = 2000
-- Chunks that one turn drops at most: many, where a lobby is over.
local CHUNKS_PER_TURN = 500
-- Numbers that are remembered: of those revoked, and of the passes given back, each.
local OVER_MAX = 1024
-- For how long a measured rate counts, and how many gateways' are kept.
local PROPOSAL_LIFE = 15000000
local PROPOSERS_MAX = 256
local DAY = 86400000000
local REFRESH_EVERY = 10000000

local STATE, QUEUE, BITS, JOINED, CALLED, INSIDE, PEOPLE, OWNERS, LOG, NETWORKS = unpack(KEYS)

local AUTO, OFF, DRAIN = 0, 2, 3
local NO_OWNER = string.rep('\0', 16)

local function id_of(number)
  return struct.pack('>I6', number)
end

local function number_of(id)
  return (struct.unpack('>I6', id))
end

-- Calls a command that gives one value for each it is asked for.
local function fetch(command, key, asked)
  local found, size = {}, #asked
  for from = 1, size, CHUNK do
    local part = redis.call(command, key, unpack(asked, from, math.min(from + CHUNK - 1, size)))
    for number = 1, #part do
      found[from + number - 1] = part[number]
    end
  end
  return found
end

local function in_chunks(command, key, values)
  for from = 1, #values, CHUNK do
    redis.call(command, key, unpack(values, from, math.min(from + CHUNK - 1, #values)))
  end
end

local function append(list, more)
  for _, one in ipairs(more) do
    list[#list + 1] = one
  end
end

local function read_list(bytes, at, read)
  local size, list = nil, {}
  size, at = struct.unpack('>I4', bytes, at)
  for number = 1, size do
    list[number], at = read(bytes, at)
  end
  return list, at
end

local function read_id(bytes, at)
  return string.sub(bytes, at, at + 5), at + 6
end

local function read_setting(bytes, at)
  local setting = {}
  setting.what, setting.value, setting.window, at = struct.unpack('>BI8I8', bytes, at)
  if setting.what == 5 then
    setting.gateway, at = read_id(bytes, at)
  end
  return setting, at
end

local function read_renewal(bytes, at)
  local renewal = {}
  renewal.id, renewal.ends, at = struct.unpack('>c6I8', bytes, at)
  return renewal, at
end

local function read_join(bytes, at)
  local flags = string.byte(bytes, at)
  local join = { owner = '', refuse = bit.band(flags, 2) ~= 0 }
  at = at + 1
  if flags % 2 == 1 then
    join.owner = string.sub(bytes, at, at + 15)
    at = at + 16
  end
  if bit.band(flags, 4) ~= 0 then
    join.network, join.most, at = struct.unpack('>c8I4', bytes, at)
  end
  return join, at
end

local function read_return(bytes, at)
  local flags, one = nil, { owner = '' }
  flags, one.epoch, one.rank, one.moment, at = struct.unpack('>BI8I6I8', bytes, at)
  one.is_pass = flags >= 2
  if flags % 2 == 1 then
    one.owner = string.sub(bytes, at, at + 15)
    at = at + 16
  end
  return one, at
end

-- A visitor count or a rate that is not given is nil.
local function read_terms(bytes)
  local terms, flags, visitors, count, window, open, at = {}, nil, nil, nil, nil, nil, nil
  flags, terms.mode, visitors, count, window, terms.pass, open, terms.abandon_after, terms.claim_within, terms.tick,
    terms.max_waiting, at = struct.unpack('>BBI8I8I8I8I8I8I8I8I8', bytes)
  terms.visitors = bit.band(flags, 1) ~= 0 and visitors or nil
  terms.admit = bit.band(flags, 2) ~= 0 and { count = count, window = window } or nil
  terms.open = bit.band(flags, 4) ~= 0 and open or 0
  terms.shuffle = bit.band(flags, 8) ~= 0
  return terms, at
end

local function read_turn(bytes)
  local turn, tick, at = {}, nil, nil
  turn.terms, at = read_terms(bytes)
  turn.epoch, turn.cursor_epoch, turn.cursor, tick, at = struct.unpack('>I8I8I8B', bytes, at)
  turn.tick = tick == 1
  turn.settings, at = read_list(bytes, at, read_setting)
  turn.renewals, at = read_list(bytes, at, read_renewal)
  turn.touches, at = read_list(bytes, at, read_id)
  turn.enters, at = read_list(bytes, at, read_id)
  turn.leaves, at = read_list(bytes, at, read_id)
  turn.joins, at = read_list(bytes, at, read_join)
  turn.returns, at = read_list(bytes, at, read_return)
  turn.nonce = string.sub(bytes, at, at + 31)
  return turn
end

-- The room's life: its epoch, the moment of the last turn, the last number given and called, where the bits begin, the
-- lowest chunk that may still be there, how many changes were logged, how many numbers the log names, when TTLs were
-- last set, and until when no deadline counts.
local function read_life(room, life, now)
  if life then
    room.epoch, room.now, room.last, room.frontier, room.base, room.chunk, room.sequence, room.named, room.refreshed,
      room.patient_until = struct.unpack('>I8I8I8I8I8I8I8I8I8I8', life)
    if now - room.now > DEAF_AFTER then
      room.patient_until = now + HEARING
    end
    room.now = math.max(room.now, now)
  else
    room.epoch, room.now, room.refreshed, room.patient_until = math.max(now, 1), now, 0, 0
    room.last, room.frontier, room.base, room.chunk, room.sequence, room.named = 0, 0, 0, 0, 0, 0
    room.fresh = true
  end
  room.last_before, room.frontier_before = room.last, room.frontier
end

local function write_life(room)
  return struct.pack('>I8I8I8I8I8I8I8I8I8I8', room.epoch, room.now, room.last, room.frontier, room.base, room.chunk,
    room.sequence, room.named, room.refreshed, room.patient_until)
end

local function read_room(now)
  local life, said, admission, measured, lobby, earlier =
    unpack(redis.call('HMGET', STATE, 'life', 'said', 'admission', 'measured', 'lobby', 'earlier'))
  local room = { said = said or nil, measured = measured or '', earlier = earlier, sinces = {}, overdue = false }
  room.admission, room.lobby = read_admission(admission), read_lobby(lobby)
  read_life(room, life, now)
  room.waiting = redis.call('ZCARD', QUEUE)
  room.called = redis.call('ZCARD', CALLED)
  room.inside = redis.call('ZCARD', INSIDE)
  room.owners = redis.call('HLEN', OWNERS)
  room.networks = redis.call('EXISTS', NETWORKS) == 1
  room.change = { called = 0, left = {}, unclaimed = {}, entered = {}, ended = {}, returned = {} }
  room.entered, room.waits = 0, {}
  return room
end

-- What operators said: a mode and a visitor count, each one more than it is and 0 for none, and a rate, or 0; then the
-- hash of the rule file under which they did, if it is known. Another file takes all of it back, before what came with it.
local function override(room, settings)
  local mode, visitors, count, window, file = 0, 0, 0, 0, nil
  if room.said then
    mode, visitors, count, window = struct.unpack('>BI8I8I8', room.said)
    file = #room.said > 25 and struct.unpack('>I8', room.said, 26) or nil
  end
  for _, setting in ipairs(settings) do
    if setting.what == 6 then
      if file and file ~= setting.value then
        mode, visitors, count, window = 0, 0, 0, 0
        room.measured = ''
        redis.call('HDEL', STATE, 'measured')
      end
      file = setting.value
    end
  end
  for _, setting in ipairs(settings) do
    if setting.what == 0 then
      mode = setting.value + 1
    elseif setting.what == 1 then
      visitors = setting.value + 1
    elseif setting.what == 2 then
      count, window = setting.value, setting.window
    elseif setting.what == 3 then
      mode, visitors, count, window = 0, 0, 0, 0
    end
  end
  if #settings > 0 then
    room.said = struct.pack('>BI8I8I8', mode, visitors, count, window) .. (file and struct.pack('>I8', file) or '')
    redis.call('HSET', STATE, 'said', room.said)
  end
  return mode, visitors, count, window
end

-- The lowest rate that a gateway has proposed of late, or nil. A proposal is 30 bytes: the gateway, the count, the
-- window, and when; the oldest stand first.
local function lowest_measured(room, settings)
  local packed = room.measured
  for _, setting in ipairs(settings) do
    if setting.what == 3 then
      packed = ''
    elseif setting.what == 5 then
      local kept = {}
      for at = 1, #packed, 30 do
        local gateway, _, _, noted = struct.unpack('>c6I8I8I8', packed, at)
        if gateway ~= setting.gateway and noted + PROPOSAL_LIFE > room.now then
          kept[#kept + 1] = string.sub(packed, at, at + 29)
        end
      end
      if #kept == PROPOSERS_MAX then
        table.remove(kept, 1)
      end
      kept[#kept + 1] = struct.pack('>c6I8I8I8', setting.gateway, setting.value, setting.window, room.now)
      packed = table.concat(kept)
    end
  end
  if packed ~= room.measured then
    redis.call('HSET', STATE, 'measured', packed)
  end
  local lowest = nil
  for at = 1, #packed, 30 do
    local _, count, window, noted = struct.unpack('>c6I8I8I8', packed, at)
    if noted + PROPOSAL_LIFE > room.now and (not lowest or count * lowest.window < lowest.count * window) then
      lowest = { count = count, window = window }
    end
  end
  return lowest
end

-- The terms in force.
local function terms_over(room, written, settings)
  local mode, visitors, count, window = override(room, settings)
  written.admit = lowest_measured(room, settings) or written.admit
  if mode > 0 then
    written.mode = mode - 1
  end
  if visitors > 0 then
    written.visitors = visitors - 1
  end
  if count > 0 then
    written.admit = { count = count, window = window }
  end
  written.calls = written.open <= room.now and (written.mode == AUTO or written.mode == DRAIN)
  return written
end

local function slots(room, terms)
  return terms.visitors and math.max(terms.visitors - room.called - room.inside, 0) or math.huge
end

local function free(room, terms)
  local by_rate = terms.admit and rate_free(room.admission, terms.admit, terms.tick, room.now) or math.huge
  return math.min(slots(room, terms), by_rate)
end

local function spend(room, terms, calls)
  room.change.called = room.change.called + calls
  if terms.admit then
    rate_spend(room.admission, terms.admit, calls, room.now)
  end
end

-- When a waiting number came, and its owner or ''.
local function joined_at(room, number)
  local slot = math.fmod(number, PER_CHUNK)
  local chunk = (number - slot) / PER_CHUNK
  local found = room.sinces[chunk]
  if not found then
    found = { redis.call('HGET', JOINED, chunk) or '', room.owners > 0 and redis.call('HGET', JOINED, 'o' .. chunk) or '' }
    room.sinces[chunk] = found
  end
  local since = struct.unpack('>I7', found[1], slot * 7 + 1)
  local owner = string.sub(found[2], slot * 16 + 1, slot * 16 + 16)
  return since, owner ~= NO_OWNER and owner or ''
end

local function forget_owners(room, owners)
  if #owners > 0 then
    in_chunks('HDEL', OWNERS, owners)
    room.owners = room.owners - #owners
  end
end

-- Places are gone: the networks that had them may have others.
local function forget_networks(room, ids)
  if not room.networks then
    return
  end
  local fields = {}
  for at, network in ipairs(fetch('HMGET', NETWORKS, ids)) do
    if network then
      fields[#fields + 1] = ids[at]
      if redis.call('HINCRBY', NETWORKS, network, -1) <= 0 then
        fields[#fields + 1] = network
      end
    end
  end
  in_chunks('HDEL', NETWORKS, fields)
end

local function remove_waiting(room, ids)
  in_chunks('ZREM', QUEUE, ids)
  room.waiting = room.waiting - #ids
  local owners = {}
  for _, id in ipairs(ids) do
    local number = number_of(id)
    redis.call('SETBIT', BITS, number - room.base, 0)
    if room.owners > 0 then
      local _, owner = joined_at(room, number)
      owners[#owners + 1] = owner ~= '' and owner or nil
    end
  end
  forget_owners(room, owners)
  forget_networks(room, ids)
end

-- Removes people from CALLED or from INSIDE.
local function remove_people(room, key, ids)
  in_chunks('ZREM', key, ids)
  if key == CALLED then
    room.called = room.called - #ids
  else
    room.inside = room.inside - #ids
  end
  if room.owners > 0 then
    local owners = {}
    for _, packed in ipairs(fetch('HMGET', PEOPLE, ids)) do
      owners[#owners + 1] = packed and #packed > 14 and string.sub(packed, 15) or nil
    end
    forget_owners(room, owners)
  end
  in_chunks('HDEL', PEOPLE, ids)
  forget_networks(room, ids)
end

local function person(since, entered, owner)
  return struct.pack('>I7I7', since, entered) .. owner
end

-- Whether somebody ended this place or pass, and not silence.
local function is_over(room, id)
  if not room.over then
    room.over = {}
    local revoked, given = unpack(redis.call('HMGET', STATE, 'revoked', 'given'))
    local packed = (revoked or '') .. (given or '')
    for at = 1, #packed, 6 do
      room.over[string.sub(packed, at, at + 5)] = true
    end
  end
  return room.over[id]
end

local function remember_over(field, ids)
  local packed = (redis.call('HGET', STATE, field) or '') .. table.concat(ids)
  redis.call('HSET', STATE, field, string.sub(packed, -6 * OVER_MAX))
end

-- Passes were used. One whose slot is gone gets a free one, unless it was revoked or given back; else it has ended.
local function renew(room, terms, renewals)
  local asked = {}
  for number, renewal in ipairs(renewals) do
    asked[number] = renewal.id
  end
  local known, moved = {}, {}
  for number, ends in ipairs(fetch('ZMSCORE', INSIDE, asked)) do
    known[asked[number]] = tonumber(ends or nil)
  end
  for _, renewal in ipairs(renewals) do
    local id, number = renewal.id, number_of(renewal.id)
    if known[id] then
      known[id] = math.max(known[id], renewal.ends)
      moved[#moved + 1] = known[id]
      moved[#moved + 1] = id
    elseif number > 0 and rank_of(room, number) <= room.frontier and not redis.call('ZSCORE', CALLED, id) then
      if renewal.ends > room.now and slots(room, terms) > 0 and not is_over(room, id) then
        redis.call('ZADD', INSIDE, renewal.ends, id)
        redis.call('HSET', PEOPLE, id, person(room.now, room.now, ''))
        room.inside = room.inside + 1
        known[id] = renewal.ends
        table.insert(room.change.entered, id)
      else
        table.insert(room.change.ended, id)
      end
    end
  end
  in_chunks('ZADD', INSIDE, moved)
end

local function touch(room, ids)
  for from = 1, #ids, CHUNK do
    local args = {}
    for number = from, math.min(from + CHUNK - 1, #ids) do
      args[#args + 1] = room.now
      args[#args + 1] = ids[number]
    end
    redis.call('ZADD', QUEUE, 'XX', unpack(args))
  end
end

-- Takes back what nobody gave a sign of life for: slots before places.
local function expire(room, terms)
  if room.now < room.patient_until then
    return
  end
  local budget = EXPIRIES_PER_TURN
  local function due(key, until_when)
    if budget == 0 or until_when < 0 then
      return {}
    end
    local ids = redis.call('ZRANGE', key, '-inf', until_when, 'BYSCORE', 'LIMIT', 0, budget)
    budget = budget - #ids
    return ids
  end
  local ended = due(INSIDE, room.now - PASS_GRACE)
  if #ended > 0 then
    remove_people(room, INSIDE, ended)
    append(room.change.ended, ended)
  end
  local unclaimed = due(CALLED, room.now)
  if #unclaimed > 0 then
    remove_people(room, CALLED, unclaimed)
    append(room.change.unclaimed, unclaimed)
  end
  local left = due(QUEUE, room.now - terms.abandon_after)
  if #left > 0 then
    remove_waiting(room, left)
    append(room.change.left, left)
  end
  room.overdue = budget == 0
end

local function enter(room, terms, id)
  local ends = redis.call('ZSCORE', INSIDE, id)
  if ends then
    local _, entered = struct.unpack('>I7I7', redis.call('HGET', PEOPLE, id))
    return struct.pack('>BI8I8', 1, entered, tonumber(ends))
  end
  local by = redis.call('ZSCORE', CALLED, id)
  if not by then
    return redis.call('ZSCORE', QUEUE, id) and '\2' or '\3'
  end
  if tonumber(by) <= room.now and room.now >= room.patient_until then
    remove_people(room, CALLED, { id })
    table.insert(room.change.unclaimed, id)
    return '\3'
  end
  local packed = redis.call('HGET', PEOPLE, id)
  local till = room.now + terms.pass
  redis.call('ZREM', CALLED, id)
  redis.call('ZADD', INSIDE, till, id)
  redis.call('HSET', PEOPLE, id, person((struct.unpack('>I7', packed)), room.now, string.sub(packed, 15)))
  room.called, room.inside, room.entered = room.called - 1, room.inside + 1, room.entered + 1
  table.insert(room.change.entered, id)
  return struct.pack('>BI8', 0, till)
end

local function leave(room, ids)
  if #ids == 0 then
    return
  end
  local inside, called = fetch('ZMSCORE', INSIDE, ids), fetch('ZMSCORE', CALLED, ids)
  local waiting = fetch('ZMSCORE', QUEUE, ids)
  local seen, of_inside, of_called, of_waiting = {}, {}, {}, {}
  for number, id in ipairs(ids) do
    if not seen[id] then
      seen[id] = true
      if inside[number] then
        of_inside[#of_inside + 1] = id
      elseif called[number] then
        of_called[#of_called + 1] = id
      elseif waiting[number] then
        of_waiting[#of_waiting + 1] = id
      end
    end
  end
  remove_people(room, INSIDE, of_inside)
  remove_people(room, CALLED, of_called)
  remove_waiting(room, of_waiting)
  if #of_inside > 0 then
    remember_over('given', of_inside)
  end
  append(room.change.ended, of_inside)
  append(room.change.left, of_called)
  append(room.change.left, of_waiting)
end

-- Operators ended these places and passes. Before any renewal is looked at.
local function revoke(room, settings)
  local ids = {}
  for _, setting in ipairs(settings) do
    if setting.what == 4 and setting.value > 0 and setting.value <= room.last then
      ids[#ids + 1] = id_of(setting.value)
    end
  end
  if #ids > 0 then
    remember_over('revoked', ids)
    leave(room, ids)
  end
end

-- Gives the numbers that wait, lowest first.
local function each_waiting(room)
  local at, block, block_at = math.max(room.frontier + 1 - room.base, 0), '', 0
  return function()
    while true do
      local byte_at = floor_div(at, 8)
      local byte = string.byte(block, byte_at - block_at + 1)
      if not byte then
        local found = redis.call('BITPOS', BITS, 1, byte_at)
        if found < 0 then
          return nil
        end
        at = math.max(at, found)
        block_at = floor_div(at, 8)
        block = redis.call('GETRANGE', BITS, block_at, block_at + BLOCK - 1)
      elseif byte == 0 then
        at = 8 * (byte_at + 1)
      else
        at = at + 1
        if bit.band(byte, 2 ^ (7 - math.fmod(at - 1, 8))) ~= 0 then
          return room.base + at - 1
        end
      end
    end
  end
end

-- Whether a waiting number has shown no sign of life for too long and has only not been looked at yet.
local function is_overdue(room, terms, id)
  return room.overdue and tonumber(redis.call('ZSCORE', QUEUE, id)) + terms.abandon_after <= room.now
end

-- Calls as many as there is room for, in the order of their ranks.
local function call(room, terms)
  if not terms.calls then
    return
  end
  local may, next_waiting = free(room, terms), each_in_order(room, each_waiting)
  local ids, calls, people, by = {}, {}, {}, room.now + terms.claim_within
  for _ = 1, math.min(CALLS_PER_TURN, room.waiting) do
    if #ids == may then
      break
    end
    local number, rank = next_waiting()
    if not number then
      break
    end
    local id = id_of(number)
    if is_overdue(room, terms, id) then
      remove_waiting(room, { id })
      table.insert(room.change.left, id)
    else
      local since, owner = joined_at(room, number)
      ids[#ids + 1] = id
      append(calls, { by, id })
      append(people, { id, person(since, 0, owner) })
      table.insert(room.waits, struct.pack('>I8', math.max(room.now - since, 0)))
      room.frontier = rank
    end
  end
  room.hurried = room.looks == 0 and #ids < may
  in_chunks('ZREM', QUEUE, ids)
  in_chunks('ZADD', CALLED, calls)
  in_chunks('HSET', PEOPLE, people)
  room.waiting, room.called = room.waiting - #ids, room.called + #ids
  spend(room, terms, #ids)
end

-- The place that an owner has: number, when it was given, and 0 waiting, 1 called, or 2 and the pass's expiry.
local function held_by(room, work, owner)
  if owner == '' then
    return nil
  end
  local new = work.places[owner]
  if new then
    return new
  end
  local id = work.held[owner]
  if not id then
    return nil
  end
  if redis.call('ZADD', QUEUE, 'XX', 'CH', room.now, id) == 1 or redis.call('ZSCORE', QUEUE, id) then
    return { number = number_of(id), since = (joined_at(room, number_of(id))), stage = 0 }
  end
  local packed = redis.call('HGET', PEOPLE, id)
  if not packed then
    return nil
  end
  local ends = redis.call('ZSCORE', INSIDE, id)
  local since = struct.unpack('>I7', packed)
  return { number = number_of(id), since = since, stage = ends and 2 or 1, ends = tonumber(ends or nil) }
end

-- How many places a network has, those given in this turn included.
local function places_of(room, work, network)
  if not work.networks[network] then
    work.networks[network] = tonumber(room.networks and redis.call('HGET', NETWORKS, network) or 0)
  end
  return work.networks[network]
end

local function give_number(room, work, wish, stage, ends)
  local owner = wish.owner
  room.last = room.last + 1
  local place = { number = room.last, since = room.now, stage = stage, ends = ends }
  local id = id_of(room.last)
  if owner ~= '' then
    work.places[owner] = place
    append(work.owners, { owner, id })
  end
  if wish.network then
    work.networks[wish.network] = places_of(room, work, wish.network) + 1
    append(work.shares, { id, wish.network, wish.network, work.networks[wish.network] })
  end
  return place, id
end

local function straight_in(room, terms, work, wish)
  local ends = room.now + terms.pass
  local place, id = give_number(room, work, wish, 2, ends)
  append(work.inside, { ends, id })
  append(work.people, { id, person(room.now, room.now, wish.owner) })
  room.inside, room.entered, room.frontier = room.inside + 1, room.entered + 1, room.last
  spend(room, terms, 1)
  table.insert(room.change.entered, id)
  return place
end

local function answer(place)
  if place.stage == 2 then
    return struct.pack('>BI6I8I8', 2, place.number, place.since, place.ends)
  end
  return struct.pack('>BI6I8', place.stage, place.number, place.since)
end

local function join(room, terms, work, wish)
  if terms.mode == OFF then
    return '\3'
  end
  local place = held_by(room, work, wish.owner)
  if place then
    return answer(place)
  end
  if terms.mode == DRAIN then
    return '\4'
  end
  if wish.network and places_of(room, work, wish.network) >= wish.most then
    return '\7'
  end
  if terms.calls and room.waiting == 0 and free(room, terms) > 0 then
    return answer(straight_in(room, terms, work, wish))
  end
  if wish.refuse then
    return '\6'
  end
  if room.waiting >= terms.max_waiting then
    return '\5'
  end
  local id
  place, id = give_number(room, work, wish, 0)
  append(work.queue, { room.now, id })
  work.waiting[#work.waiting + 1] = wish.owner
  room.waiting = room.waiting + 1
  return answer(place)
end

-- Sets the bits from `first` on, so many.
local function set_bits(room, first, count)
  local from, to = first - room.base, first - room.base + count - 1
  local head, tail = floor_div(from, 8), floor_div(to, 8)
  local bytes = {}
  for at = head, tail do
    bytes[#bytes + 1] = 255
  end
  bytes[1] = 2 ^ (8 - math.fmod(from, 8)) - 1
  bytes[#bytes] = bytes[#bytes] - (2 ^ (7 - math.fmod(to, 8)) - 1)
  bytes[1] = bytes[1] + (string.byte(redis.call('GETRANGE', BITS, head, head)) or 0)
  redis.call('SETRANGE', BITS, head, string.char(unpack(bytes)))
end

-- Appends values of one size to a chunk, which has so many already, or should have.
local function extend(field, has, size, values)
  local before = has > 0 and redis.call('HGET', JOINED, field) or ''
  local gap = string.rep('\0', has * size - #before)
  redis.call('HSET', JOINED, field, before .. gap .. table.concat(values))
end

-- Notes when numbers came, and whose they are: those from `first` on, one for each owner.
local function note_joined(room, first, owners)
  local since, at = struct.pack('>I7', room.now), 1
  while at <= #owners do
    local number = first + at - 1
    local slot = math.fmod(number, PER_CHUNK)
    local count = math.min(PER_CHUNK - slot, #owners - at + 1)
    local chunk, whose, owned = (number - slot) / PER_CHUNK, {}, false
    for offset = 0, count - 1 do
      local owner = owners[at + offset]
      owned = owned or owner ~= ''
      whose[#whose + 1] = owner ~= '' and owner or NO_OWNER
    end
    extend(chunk, slot, 7, { string.rep(since, count) })
    if owned then
      extend('o' .. chunk, slot, 16, whose)
    end
    at = at + count
  end
end

-- Once somebody waits everybody does, so the new numbers that wait are the last ones.
local function write_joins(room, work)
  in_chunks('ZADD', INSIDE, work.inside)
  in_chunks('HSET', PEOPLE, work.people)
  in_chunks('HSET', OWNERS, work.owners)
  in_chunks('HSET', NETWORKS, work.shares)
  in_chunks('ZADD', QUEUE, work.queue)
  local count = #work.waiting
  if count > 0 then
    set_bits(room, room.last - count + 1, count)
    note_joined(room, room.last - count + 1, work.waiting)
  end
end

local function join_all(room, terms, joins)
  local work = { places = {}, held = {}, owners = {}, inside = {}, people = {}, queue = {}, waiting = {},
    networks = {}, shares = {} }
  local asked = {}
  for _, wish in ipairs(joins) do
    asked[#asked + 1] = wish.owner ~= '' and wish.owner or nil
  end
  if room.owners > 0 then
    for number, id in ipairs(fetch('HMGET', OWNERS, asked)) do
      work.held[asked[number]] = id or nil
    end
  end
  local replies = {}
  for number, wish in ipairs(joins) do
    replies[number] = join(room, terms, work, wish)
  end
  write_joins(room, work)
  return replies
end

-- Drops what is known of numbers that do not wait any more.
local function tidy(room)
  local below = lobby_floor(room)
  local chunk = floor_div(below + 1, PER_CHUNK)
  if room.waiting == 0 then
    redis.call('DEL', BITS, JOINED)
    room.base, room.chunk = 8 * floor_div(room.last + 1, 8), floor_div(room.last + 1, PER_CHUNK)
  elseif chunk > room.chunk then
    local fields = {}
    chunk = math.min(chunk, room.chunk + CHUNKS_PER_TURN)
    for old = room.chunk, chunk - 1 do
      append(fields, { old, 'o' .. old })
    end
    in_chunks('HDEL', JOINED, fields)
    room.chunk = chunk
  end
  local passed = floor_div(below + 1 - room.base, 8)
  if passed >= CUT_AT then
    redis.call('SET', BITS, redis.call('GETRANGE', BITS, passed, -1))
    room.base = room.base + 8 * passed
  end
end
