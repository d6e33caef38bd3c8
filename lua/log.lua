-- A trailing window, entry by entry, as in src/limiter/log.rs: what was used, and as of when. Use counts until its entry
-- is a whole span old. With slices (`turn.whole`) an entry is as of the end of its cell.
--
-- Keys: none of its own. Arguments: none of its own. Result: none; gives the functions that limit_turn.lua names.
-- TTL: the caller's. Complexity: O(n) for n entries of a key, at most one a cell: some 66.
--
-- A count is a list of numbers (`entries`): of each entry, oldest first, as of when it is and what was used; `size`, how
-- many numbers these are; and the sum of what was used. Packed it is 9 bytes and 13 for each entry, which are read and
-- written in one call.

-- How so many entries are packed.
local FORMATS = {}

local function format_of(entries)
  local format = FORMATS[entries]
  if not format then
    format = '>' .. string.rep('I7I6', entries)
    FORMATS[entries] = format
  end
  return format
end

local function new_count(count)
  count.entries, count.size, count.sum = {}, 0, 0
end

local function unpack_count(count, packed, from)
  local entries, all, at = struct_unpack('>I2I7', packed, from)
  count.entries = { struct_unpack(format_of(entries), packed, at) }
  -- The last is where the reading ended.
  count.entries[2 * entries + 1] = nil
  count.size, count.sum = 2 * entries, all
end

local function pack_count(count)
  local entries = count.size / 2
  return struct_pack('>I2I7', entries, count.sum) .. struct_pack(format_of(entries), unpack(count.entries))
end

local function turn_to(count, scene)
  local entries, gone, oldest = count.entries, 0, scene.now - scene.turn.span
  local ahead = count.size > 0 and entries[count.size - 1] - scene.now or 0
  if ahead > scene.turn.span then
    -- The clock was set back: entries go with it, each in a cell of its own as before.
    local back = ceil_div(ahead, scene.turn.cell) * scene.turn.cell
    for place = 1, count.size, 2 do
      entries[place] = max(entries[place] - back, 0)
    end
  end
  while gone < count.size and entries[gone + 1] <= oldest do
    count.sum = count.sum - entries[gone + 2]
    gone = gone + 2
  end
  if gone > 0 then
    for place = 1, count.size do
      entries[place] = entries[place + gone]
    end
    count.size = count.size - gone
  end
end

-- Enters use, as of a moment at or after the spending.
local function enter(count, scene, used, at)
  if used == 0 then
    return
  end
  local entries, width = count.entries, scene.turn.cell
  local cell = ceil_div(at, width)
  if scene.turn.whole then
    at = cell * width
  end
  count.sum = count.sum + used
  local place = count.size - 1
  while place > 0 do
    local other = ceil_div(entries[place], width)
    if other == cell then
      entries[place], entries[place + 1] = max(entries[place], at), entries[place + 1] + used
      return
    elseif other < cell then
      break
    end
    place = place - 2
  end
  table.insert(entries, place + 2, at)
  table.insert(entries, place + 3, used)
  count.size = count.size + 2
end

local function report(count, scene, said)
  enter(count, scene, said.prev, min(start_of(said.index, scene.turn), scene.now))
  enter(count, scene, said.cur, scene.now)
end

local function is_within()
  return false
end

local function add(count, scene, amount)
  enter(count, scene, amount, scene.now)
end

local function grant(count, scene, amount, valid_until)
  enter(count, scene, amount, valid_until)
end

local function take_back(count, scene, lot, unspent)
  local entries, width = count.entries, scene.turn.cell
  local cell = ceil_div(lot, width)
  for place = count.size - 1, 1, -2 do
    if ceil_div(entries[place], width) == cell then
      local taken = min(entries[place + 1], unspent)
      entries[place + 1], count.sum = entries[place + 1] - taken, count.sum - taken
      return
    end
  end
end

-- A trailing span reaches into two frames: this and the one before, or later this and the next.
local function reserve(silent)
  return silent.cur + max(silent.prev, silent.next)
end

local function left(count, scene, silent)
  return max(scene.allows - count.sum - reserve(silent), 0)
end

local function wait(count, scene, silent)
  local room = scene.allows - reserve(silent) - 1
  if room < 0 then
    return scene.ends - scene.now
  end
  local all, moment = count.sum, scene.now
  for place = 1, count.size, 2 do
    if all <= room then
      break
    end
    all = all - count.entries[place + 1]
    moment = count.entries[place] + scene.turn.span
  end
  return max(moment - scene.now, 0)
end

local function excess(count, scene)
  return max(count.sum - scene.allows, 0)
end

local function owed_frames()
  return 0
end
