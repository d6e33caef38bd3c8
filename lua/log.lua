-- A trailing window, entry by entry, as in src/limiter/log.rs: what was used, and as of when. Use counts until its entry
-- is a whole span old. With slices (`turn.whole`) an entry is as of the end of its cell.
--
-- Keys: none of its own. Arguments: none of its own. Result: none; gives the functions that limit_turn.lua names.
-- TTL: the caller's. Complexity: O(n) for n entries of a key, at most one a cell: some 66.
--
-- A count is a list of entries, oldest first, each with `at` and `used`. Packed it is 2 bytes and 13 for each.

local function new_count()
  return {}
end

local function unpack_count(packed, from)
  local size, at = struct.unpack('>I2', packed, from)
  local count = {}
  for number = 1, size do
    local moment, used
    moment, used, at = struct.unpack('>I7I6', packed, at)
    count[number] = { at = moment, used = used }
  end
  return count
end

local function pack_count(count)
  local parts = { struct.pack('>I2', #count) }
  for _, entry in ipairs(count) do
    parts[#parts + 1] = struct.pack('>I7I6', entry.at, entry.used)
  end
  return table.concat(parts)
end

local function sum(count)
  local all = 0
  for _, entry in ipairs(count) do
    all = all + entry.used
  end
  return all
end

local function turn_to(count, scene)
  while count[1] and count[1].at + scene.turn.span <= scene.now do
    table.remove(count, 1)
  end
end

-- Enters use, as of a moment at or after the spending.
local function enter(count, scene, used, at)
  if used == 0 then
    return
  end
  local cell = ceil_div(at, scene.turn.cell)
  if scene.turn.whole then
    at = cell * scene.turn.cell
  end
  for place = #count, 1, -1 do
    local entry = count[place]
    local other = ceil_div(entry.at, scene.turn.cell)
    if other == cell then
      entry.at, entry.used = math.max(entry.at, at), entry.used + used
      return
    elseif other < cell then
      table.insert(count, place + 1, { at = at, used = used })
      return
    end
  end
  table.insert(count, 1, { at = at, used = used })
end

local function report(count, scene, said)
  enter(count, scene, said.prev, math.min(start_of(said.index, scene.turn), scene.now))
  enter(count, scene, said.cur, scene.now)
end

local function add(count, scene, amount)
  enter(count, scene, amount, scene.now)
end

local function grant(count, scene, amount, valid_until)
  enter(count, scene, amount, valid_until)
end

local function take_back(count, scene, lot, unspent)
  local cell = ceil_div(lot, scene.turn.cell)
  for _, entry in ipairs(count) do
    if ceil_div(entry.at, scene.turn.cell) == cell then
      entry.used = math.max(entry.used - unspent, 0)
      return
    end
  end
end

-- A trailing span reaches into two frames: this and the one before, or later this and the next.
local function reserve(silent)
  return silent.cur + math.max(silent.prev, silent.next)
end

local function left(count, scene, silent)
  return math.max(scene.allows - sum(count) - reserve(silent), 0)
end

local function wait(count, scene, silent)
  local room = scene.allows - reserve(silent) - 1
  if room < 0 then
    return scene.ends - scene.now
  end
  local all, moment = sum(count), scene.now
  for _, entry in ipairs(count) do
    if all <= room then
      break
    end
    all = all - entry.used
    moment = entry.at + scene.turn.span
  end
  return math.max(moment - scene.now, 0)
end

local function excess(count, scene)
  return math.max(sum(count) - scene.allows, 0)
end
