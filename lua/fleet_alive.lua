-- Notes that a gateway is alive and tells it who else is. Does what src/store/memory/limits/fleet.rs does for a store
-- that is shared: a change takes effect one lease after it was noticed.
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
-- Complexity: O(c * n) for c changes, at most 64, of n gateways.

local LEASE = 3000000
local DEAD_AFTER = 10000000
local CHANGES_MAX = 64
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
  changes[#changes + 1] = { from = now + LEASE, members = members }
end
if #changes > CHANGES_MAX then
  table.remove(changes, 1)
end

local signs = { struct.pack('>I4', #alive) }
for _, gateway in ipairs(alive) do
  signs[#signs + 1] = gateway .. struct.pack('>I8', heard[gateway])
end
local timeline = write_changes(changes)
redis.call('SET', KEYS[1], timeline .. table.concat(signs), 'PX', TTL)
return struct.pack('>I8I8', now, now + LEASE) .. timeline
