-- The end of a room's script: does the turn with the verbs of room_turn.lua, writes the log and the room, and answers.
--
-- Keys and arguments: those of room_turn.lua. Result: the answer, packed: see `reply`, or that of room_restore.lua while
-- the room listens. TTL: see room_turn.lua. Complexity: that of the turn, and O(n) for n changes that are sent; to a
-- gateway that cannot follow them, O(b + p) for b bytes of BITS and p people who are called or inside, all of whom are
-- sent.

-- Whether operators said something of the room. It is a change like any other, so that a gateway that has heard of it is
-- ahead of one that has not, should the room be lost.
local function is_steered(settings)
  for _, setting in ipairs(settings) do
    if setting.what <= 3 or setting.what == 6 then
      return true
    end
  end
  return false
end

local function pack_change(room, settings)
  local change = room.change
  local numbers = table.concat(change.left) .. table.concat(change.unclaimed) .. table.concat(change.entered)
    .. table.concat(change.ended) .. table.concat(change.returned)
  local moved = room.last ~= room.last_before or room.frontier ~= room.frontier_before
  if not moved and change.called == 0 and numbers == '' and not is_steered(settings) then
    return nil
  end
  local head = struct.pack('>I8I6I6I8I4I4I4I4I4', room.now, room.last, room.frontier, change.called, #change.left,
    #change.unclaimed, #change.entered, #change.ended, #change.returned)
  return head .. numbers, #numbers / 6
end

local function numbers_named(change)
  local left, unclaimed, entered, ended, returned = struct.unpack('>I4I4I4I4I4', change, 29)
  return left + unclaimed + entered + ended + returned
end

local function write_log(room, change, numbers)
  room.logged = redis.call('LLEN', LOG)
  if change then
    redis.call('RPUSH', LOG, change)
    room.sequence, room.named, room.logged = room.sequence + 1, room.named + numbers, room.logged + 1
  end
  while room.logged > LOG_CHANGES_MAX or (room.named > LOG_NUMBERS_MAX and room.logged > 1) do
    room.named = room.named - numbers_named(redis.call('LPOP', LOG))
    room.logged = room.logged - 1
  end
end

local function refresh(room, terms)
  local ttl = ceil_div(DAY + terms.pass + terms.abandon_after + terms.claim_within, 1000)
  for _, key in ipairs(KEYS) do
    redis.call('PEXPIRE', key, ttl)
  end
end

local function write_room(room, terms, changed)
  changed = changed or room.now - room.refreshed >= REFRESH_EVERY
  if changed then
    room.refreshed = room.now
  end
  redis.call('HSET', STATE, 'life', write_life(room))
  if terms.admit then
    redis.call('HSET', STATE, 'admission', write_admission(room.admission))
  end
  if changed then
    refresh(room, terms)
  end
end

local function pack_list(list)
  return struct.pack('>I4', #list) .. table.concat(list)
end

local function pack_text(text)
  return struct.pack('>I4', #text) .. text
end

-- The changes since the cursor; or, for who cannot follow them, everything.
local function news(room, turn)
  local missed = room.sequence - turn.cursor
  if turn.cursor_epoch == room.epoch and missed >= 0 and missed <= room.logged then
    return '\0' .. pack_list(missed > 0 and redis.call('LRANGE', LOG, -missed, -1) or {})
  end
  local bits = redis.call('GET', BITS) or ''
  return '\1' .. struct.pack('>I8I4', room.base, #bits) .. bits .. pack_list(redis.call('ZRANGE', CALLED, 0, -1))
    .. pack_list(redis.call('ZRANGE', INSIDE, 0, -1))
end

local function pack_counts(room, terms)
  local tick_at = nil
  if terms.calls and terms.admit and room.waiting > 0 and slots(room, terms) > 0 then
    tick_at = window_reopens(room.admission, terms.admit)
  end
  if room.hurried and room.waiting > 0 and slots(room, terms) > 0 then
    tick_at = room.now
  end
  local flags = (terms.visitors and 1 or 0) + (terms.admit and 2 or 0) + (tick_at and 4 or 0)
  local admit = terms.admit or { count = 0, window = 0 }
  return struct.pack('>I8I8I8I8I8BBI8I8I8I8', room.waiting, room.called, room.inside, room.last, room.frontier, flags,
    terms.mode, terms.visitors or 0, admit.count, admit.window, tick_at or 0)
end

local function reply(room, terms, turn, done)
  return struct.pack('>I8I8I8', room.epoch, room.now, room.sequence) .. pack_counts(room, terms)
    .. pack_text(pack_lobby(room.lobby))
    .. pack_list(done.enters) .. pack_list(done.joins) .. pack_list(done.returns) .. struct.pack('>I8', room.entered)
    .. pack_list(room.waits)
    .. (done.change and '\1' .. done.change or '\0') .. news(room, turn)
end

local function read_time()
  if ARGV[2] ~= '' then
    return tonumber(ARGV[2])
  end
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local turn = read_turn(ARGV[1])
local room = read_room(read_time())
local listening = listen(room, turn)
if listening then
  write_room(room, turn.terms, true)
  return listening
end
local terms = terms_over(room, turn.terms, turn.settings)
open_lobby(room, terms, turn.nonce)
local ours = turn.epoch == room.epoch
if ours then
  revoke(room, turn.settings)
  renew(room, terms, turn.renewals)
  touch(room, turn.touches)
end
expire(room, terms)
local done = { enters = {} }
for number, id in ipairs(turn.enters) do
  done.enters[number] = ours and enter(room, terms, id) or '\3'
end
if ours then
  leave(room, turn.leaves)
end
done.returns = come_back(room, terms, turn.returns)
if turn.tick then
  call(room, terms)
end
done.joins = join_all(room, terms, turn.joins)
tidy(room)
local numbers
done.change, numbers = pack_change(room, turn.settings)
write_log(room, done.change, numbers)
write_room(room, terms, done.change ~= nil or #turn.settings > 0)
return reply(room, terms, turn, done)
