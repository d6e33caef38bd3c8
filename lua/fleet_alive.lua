-- Notes that a gateway is alive and tells it who else is. Does what src/store/memory/limits/fleet.rs does for a store
-- that is shared: a change takes effect at the first whole second that is a lease after it was noticed.
--
-- Keys:
--   1  string  who was heard when, and the changes of the fleet, packed: see `read` and `write`
-- Arguments:
--   1  the gateway: 8 bytes
--   2  what it knew of the fleet, packed as in the answer; counts if the store knows nothing
--   3  empty: the server's TIME rules. Otherwise the time in microseconds; for tests only.
-- Result: the time, until when the answer is sure, and the changes: for each from when on, and the members. Moments are
--   in microseconds, numbers big-endian.
-- TTL: 801 days. Whose shares are spent in a window is asked until the next one is over, and a window has up to 400.
-- Complexity: O(c * n) for c changes, at most 128, of n gateways.

local LEASE = 3000000
local DEAD_AFTER = 10000000
local CHANGES_MAX = 128
local SECOND = 1000000
-- How a longer history is kept short: see src/store/memory/limits/fleet/history.rs.
local ROUND = { 60, 300, 900, 3600, 10800, 86400 }
local AGO = { 3, 1, 0 }
local NAMED_MAX = 512
local TTL = 801 * 86400000

local function read_time()
  if ARGV[3] ~= '' then
    return tonumber(ARGV[3])
  end
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local function read_changes(bytes, at)
  local size
  size, at = struct.unpack('>I2', bytes, at)
  local changes = {}
  for number = 1, size do
    local from, count
    from, count, at = struct.unpack('>I8I2', bytes, at)
    changes[number] = { from = from, members = string.sub(bytes, at, at + 8 * count - 1) }
    at = at + 8 * count
  end
  return changes, at
end

local function write_changes(changes)
  local parts = { struct.pack('>I2', #changes) }
  for _, change in ipairs(changes) do
    parts[#parts + 1] = struct.pack('>I8I2', change.from, #change.members / 8) .. change.members
  end
  return table.concat(parts)
end

-- Strings are compared by the server's language; ids are numbers, and go by size.
local function smaller(a, b)
  local high_a, low_a = struct.unpack('>I4I4', a)
  local high_b, low_b = struct.unpack('>I4I4', b)
  if high_a ~= high_b then
    return high_a < high_b
  end
  return low_a < low_b
end

local function each(members)
  local at = -7
  return function()
    at = at + 8
    if at <= #members then
      return string.sub(members, at, at + 7)
    end
  end
end

local function set_of(members)
  local set = {}
  for gateway in each(members) do
    set[gateway] = true
  end
  return set
end

-- Whether nobody came with a change who was gone by the next.
local function nobody_passed(before, change, next)
  local known, stays = set_of(before.members), set_of(next.members)
  for gateway in each(change.members) do
    if not known[gateway] and not stays[gateway] then
      return false
    end
  end
  return true
end

-- Whether a change of before `past` can be folded into the next: no round moment lies where that can be seen.
local function can_fold(changes, number, round, past)
  local before, change, next, after = changes[number - 1], changes[number], changes[number + 1], changes[number + 2]
  if after.from > past or before.members == '' then
    return false
  end
  local next_round = math.ceil(change.from / round) * round
  return next_round > next.from and (next_round > after.from or nobody_passed(before, change, next))
end

-- Who the next change names when it stands for this one too, in the order in which they came.
local function fold(before, change, next)
  local known, came, stays = set_of(before.members), set_of(change.members), set_of(next.members)
  local room, folded = NAMED_MAX - #next.members / 8, {}
  for gateway in each(change.members) do
    if stays[gateway] then
      folded[#folded + 1] = gateway
    elseif not known[gateway] and room > 0 then
      room = room - 1
      folded[#folded + 1] = gateway
    end
  end
  for gateway in each(next.members) do
    if not came[gateway] then
      folded[#folded + 1] = gateway
    end
  end
  return table.concat(folded)
end

local function shorten(changes, now)
  for _, ago in ipairs(AGO) do
    for _, seconds in ipairs(ROUND) do
      local round = seconds * SECOND
      for number = 2, #changes - 2 do
        if can_fold(changes, number, round, now - ago * round) then
          changes[number + 1].members = fold(changes[number - 1], changes[number], changes[number + 1])
          table.remove(changes, number)
          return
        end
      end
    end
  end
  table.remove(changes, 1)
end

local now = read_time()
local stored = redis.call('GET', KEYS[1])
local changes, heard = {}, {}
if stored then
  local at, size
  changes, at = read_changes(stored, 1)
  size, at = struct.unpack('>I4', stored, at)
  for _ = 1, size do
    local gateway, when
    gateway, when, at = struct.unpack('>c8I8', stored, at)
    heard[gateway] = when
  end
else
  -- Time and sureness of what the gateway knew mean nothing here.
  changes = read_changes(ARGV[2], 17)
  local last = changes[#changes]
  if last then
    for at = 1, #last.members, 8 do
      heard[string.sub(last.members, at, at + 7)] = now
    end
  else
    changes[1] = { from = 0, members = '' }
  end
end

heard[ARGV[1]] = now
local alive = {}
for gateway, when in pairs(heard) do
  if now - when < DEAD_AFTER then
    alive[#alive + 1] = gateway
  end
end
table.sort(alive, smaller)
local members = table.concat(alive)
if changes[#changes].members ~= members then
  -- At the first whole second after a lease. Nobody has been told anything that is sure for so long, so what is
  -- noticed within a second is one change.
  local from = now + LEASE
  from = from - math.fmod(from, SECOND) + SECOND
  while changes[#changes] and changes[#changes].from >= from do
    changes[#changes] = nil
  end
  changes[#changes + 1] = { from = from, members = members }
end
if #changes > CHANGES_MAX then
  shorten(changes, now)
end

local signs = { struct.pack('>I4', #alive) }
for _, gateway in ipairs(alive) do
  signs[#signs + 1] = gateway .. struct.pack('>I8', heard[gateway])
end
local timeline = write_changes(changes)
redis.call('SET', KEYS[1], timeline .. table.concat(signs), 'PX', TTL)
return struct.pack('>I8I8', now, now + LEASE) .. timeline
