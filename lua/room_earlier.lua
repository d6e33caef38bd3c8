-- People who come back into a room that nobody remembers, by what they hold. Does what src/queue/earlier.rs and
-- src/queue/order/earlier.rs do; why it is sound is told there. Goes between room_turn.lua and room_restore.lua.
--
-- Keys: those of room_turn.lua; of the room's hash the field `earlier` (see `read_earlier`); and
--   11 hash    which numbers were given to people who came back, a bit each, 64 bytes by chunk of 512 ranks; and with an
--              `m` before the number that stands for a rank, the number that was given instead, for stragglers
-- Arguments: none of its own. Result: none; gives `latest_shown`, `began_anew`, `come_back` and `reach_down` to what
-- follows. TTL: that of the room. Complexity: O(log n) for each return among n; the first also sets up to a megabyte.

local EARLIER_LISTEN_MAX = 75000000
local EARLIER_MAX = 21600000000
local RANKS_EITHER_WAY = 1048576
local RANKS = 2 * RANKS_EITHER_WAY
local SPARES_TRIED = 64
local RETURNED = KEYS[11]
local RETURNED_CHUNK = 512

-- When the room began with nobody remembering it, or 0; and of the life of which a slip has been shown, if one was: its
-- epoch, or 0, the number where the window begins, the rank before its first, when the holder of a ticket was last heard
-- of, and below which no odd number is free.
local function read_earlier(packed)
  local earlier = { began = 0, epoch = 0, start = 0, lowest = 0, newest = 0, spare = 0 }
  if packed then
    earlier.began, earlier.epoch, earlier.start, earlier.lowest, earlier.newest, earlier.spare =
      struct.unpack('>I8I8I8I8I8I8', packed)
  end
  return earlier
end

local function write_earlier(room, earlier)
  local packed = struct.pack('>I8I8I8I8I8I8', earlier.began, earlier.epoch, earlier.start, earlier.lowest,
    earlier.newest, earlier.spare)
  if earlier.began == 0 then
    redis.call('HDEL', STATE, 'earlier')
    redis.call('DEL', RETURNED)
  elseif packed ~= room.earlier then
    redis.call('HSET', STATE, 'earlier', packed)
    room.earlier = packed
  end
end

-- The first slip of the latest life among the returns, if it is of a later one than `epoch`; else that.
local function latest_shown(room, returns, epoch, rank)
  for _, one in ipairs(returns) do
    local recent = one.is_pass and one.moment > room.now or not one.is_pass and one.moment + EARLIER_MAX > room.now
    if recent and one.rank > 0 and one.epoch > epoch and one.epoch ~= room.epoch then
      epoch, rank = one.epoch, one.rank
    end
  end
  return epoch, rank
end

local function window_last(earlier)
  return earlier.start + 2 * RANKS + PER_CHUNK - 1
end

local function begin_life(room, earlier, epoch, rank)
  earlier.epoch = epoch
  earlier.start = (floor_div(room.last, PER_CHUNK) + 1) * PER_CHUNK
  earlier.lowest = math.max(rank - RANKS_EITHER_WAY, 0)
  earlier.newest, earlier.spare = 0, earlier.start + 1
  room.last = window_last(earlier)
end

-- Nobody remembered the room: it begins now. What was shown while it listened is of an epoch, or of 0.
local function began_anew(room, terms, epoch, rank)
  local earlier = read_earlier(room.earlier)
  earlier.began = room.now
  if epoch > 0 and not (terms.shuffle and terms.open > room.now) then
    begin_life(room, earlier, epoch, rank)
  end
  write_earlier(room, earlier)
end

-- The bits begin at or before a number.
local function reach_down(room, number)
  local base = 8 * floor_div(number, 8)
  if base < room.base then
    local bits = redis.call('GET', BITS)
    if bits then
      redis.call('SET', BITS, string.rep('\0', (room.base - base) / 8) .. bits)
    end
    room.base = base
  end
end

-- The byte in which the bit of a rank's number is, where that is, and which bit it is.
local function find_taken(earlier, own)
  local index = (own - earlier.start) / 2
  local at = math.fmod(index, RETURNED_CHUNK)
  local chunk = (index - at) / RETURNED_CHUNK
  local bytes = redis.call('HGET', RETURNED, chunk) or string.rep('\0', RETURNED_CHUNK / 8)
  return { chunk = chunk, bytes = bytes, at = floor_div(at, 8) + 1, bit = 2 ^ math.fmod(at, 8) }
end

local function is_taken(found)
  return bit.band(string.byte(found.bytes, found.at), found.bit) ~= 0
end

local function take(found)
  local byte = bit.bor(string.byte(found.bytes, found.at), found.bit)
  local bytes = string.sub(found.bytes, 1, found.at - 1) .. string.char(byte) .. string.sub(found.bytes, found.at + 1)
  redis.call('HSET', RETURNED, found.chunk, bytes)
end

-- Puts a value into a chunk of values of one size.
local function put_in_chunk(field, slot, value)
  local bytes = redis.call('HGET', JOINED, field) or ''
  bytes = bytes .. string.rep('\0', slot * #value - #bytes)
  redis.call('HSET', JOINED, field, string.sub(bytes, 1, slot * #value) .. value .. string.sub(bytes, (slot + 1) * #value + 1))
end

local function note_owner(room, owner, id)
  if owner ~= '' then
    redis.call('HSET', OWNERS, owner, id)
    room.owners = room.owners + 1
  end
end

local function queue_in(room, number, owner)
  local id, slot = id_of(number), math.fmod(number, PER_CHUNK)
  local chunk = (number - slot) / PER_CHUNK
  reach_down(room, room.frontier + 1)
  redis.call('ZADD', QUEUE, room.now, id)
  redis.call('SETBIT', BITS, number - room.base, 1)
  put_in_chunk(chunk, slot, struct.pack('>I7', room.now))
  if owner ~= '' then
    put_in_chunk('o' .. chunk, slot, owner)
    note_owner(room, owner, id)
  end
  room.sinces[chunk] = nil
  room.chunk = math.min(room.chunk, floor_div(room.frontier + 1, PER_CHUNK))
  room.waiting = room.waiting + 1
  table.insert(room.change.returned, id)
end

-- Where a number stands, if it has a place.
local function place_of(room, number)
  local id = id_of(number)
  if redis.call('ZSCORE', QUEUE, id) then
    local since, owner = joined_at(room, number)
    return { number = number, since = since, stage = 0, owner = owner }
  end
  local packed = redis.call('HGET', PEOPLE, id)
  if not packed then
    return nil
  end
  local ends = tonumber(redis.call('ZSCORE', INSIDE, id) or nil)
  local since = struct.unpack('>I7', packed)
  return { number = number, since = since, stage = ends and 2 or 1, ends = ends, owner = string.sub(packed, 15) }
end

-- The next number for a straggler, or nil. After another loss the next ones may have been given already.
local function next_spare(room, earlier)
  local number = math.max(earlier.spare, room.frontier + 1)
  number = number + 1 - math.fmod(number, 2)
  for _ = 1, SPARES_TRIED do
    if number > window_last(earlier) then
      return nil
    elseif not place_of(room, number) then
      earlier.spare = number + 2
      return number
    end
    number = number + 2
  end
end

-- A ticket that was not shown before.
local function stand_again(room, terms, earlier, own, one)
  local elsewhere = one.owner ~= '' and redis.call('HEXISTS', OWNERS, one.owner) == 1
  if elsewhere or room.lobby.draw or room.now >= earlier.began + terms.abandon_after then
    return nil
  end
  if one.moment + EARLIER_MAX <= room.now or one.moment + 2 * terms.abandon_after < earlier.newest then
    return nil
  end
  local number = own
  if own <= room.frontier then
    number = next_spare(room, earlier)
    if not number then
      return nil
    end
    redis.call('HSET', RETURNED, 'm' .. id_of(own), id_of(number))
  end
  queue_in(room, number, one.owner)
  return { number = number, since = room.now, stage = 0 }
end

-- A pass. Whether there is a free slot does not matter; when it was given is not known, so it was not lately.
local function go_on_inside(room, number, was_taken, one)
  local id, place = id_of(number), place_of(room, number)
  if place and place.stage == 2 then
    place.ends = math.max(place.ends, one.moment)
    redis.call('ZADD', INSIDE, place.ends, id)
    return place
  end
  if was_taken and not place then
    return nil
  end
  local owner = place and place.owner or ''
  if place and place.stage == 0 then
    remove_waiting(room, { id })
  elseif place then
    remove_people(room, CALLED, { id })
  end
  owner = owner ~= '' and owner or one.owner
  if owner ~= '' and redis.call('HEXISTS', OWNERS, owner) == 1 then
    owner = ''
  end
  redis.call('ZADD', INSIDE, one.moment, id)
  redis.call('HSET', PEOPLE, id, person(room.now, 0, owner))
  note_owner(room, owner, id)
  room.inside = room.inside + 1
  table.insert(room.change.entered, id)
  return { number = number, since = room.now, stage = 2, ends = one.moment }
end

-- The place that somebody gets who shows a slip of the earlier life, or nil.
local function come_back_one(room, terms, earlier, one)
  local index = one.rank - earlier.lowest
  if earlier.epoch == 0 or one.epoch ~= earlier.epoch or index < 1 or index > RANKS then
    return nil
  end
  if one.is_pass and one.moment <= room.now then
    return nil
  end
  local own = earlier.start + 2 * index
  local moved = redis.call('HGET', RETURNED, 'm' .. id_of(own))
  local number, found = moved and number_of(moved) or own, find_taken(earlier, own)
  local was_taken, place = is_taken(found), nil
  if one.is_pass then
    place = go_on_inside(room, number, was_taken, one)
  else
    -- After another loss a place may be known, and not whose ticket it came from.
    place = place_of(room, number)
    if place and place.stage == 0 then
      redis.call('ZADD', QUEUE, room.now, id_of(number))
    end
    if was_taken or place then
      return place and place.stage ~= 2 and place or nil
    end
    place = stand_again(room, terms, earlier, own, one)
  end
  if place and not was_taken then
    take(found)
  end
  return place
end

-- People show what they held in an earlier life. Gives an answer for each, and sees to it that nobody is called while
-- there may be more of them.
local function come_back(room, terms, returns)
  local answers, earlier = {}, read_earlier(room.earlier)
  if earlier.began == 0 then
    for number = 1, #returns do
      answers[number] = '\3'
    end
    return answers
  end
  if room.now >= earlier.began + math.max(terms.abandon_after, terms.pass) then
    earlier.began, earlier.epoch = 0, 0
  end
  local till = earlier.began + math.min(EARLIER_LISTEN_MAX, floor_div(terms.abandon_after * 5, 16))
  local has_lobby = room.lobby.stands or room.lobby.draw
  if earlier.began > 0 and earlier.epoch == 0 and not has_lobby and room.now < till then
    local epoch, rank = latest_shown(room, returns, 0, 0)
    if epoch > 0 then
      begin_life(room, earlier, epoch, rank)
      -- Numbers were left out: whoever follows the room starts over.
      redis.call('DEL', LOG)
      room.sequence, room.named = room.sequence + 1, 0
    end
  end
  for _, one in ipairs(returns) do
    if one.epoch == earlier.epoch and not one.is_pass then
      earlier.newest = math.max(earlier.newest, one.moment)
    end
  end
  for number, one in ipairs(returns) do
    local place = come_back_one(room, terms, earlier, one)
    answers[number] = place and answer(place) or '\3'
  end
  terms.calls = terms.calls and not (earlier.epoch > 0 and room.now < till)
  write_earlier(room, earlier)
  return answers
end
