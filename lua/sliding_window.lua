-- The sliding window of two counters, as in src/limiter/window.rs: what was counted in this window, and of the one
-- before it as much as the trailing window still covers.
--
-- Keys: none of its own. Arguments: none of its own. Result: none; gives the functions that limit_turn.lua names.
-- TTL: the caller's. Complexity: O(1) for each.
--
-- A count is a table: index, and what was used in that window (cur) and in the one before (prev). Packed it is 18 bytes.

local function new_count(scene)
  return { index = scene.index, prev = 0, cur = 0 }
end

-- Seen from the window of the scene; what lies further back is forgotten. Time does not run backwards.
local function turn_to(count, scene)
  local ahead = scene.index - count.index
  if ahead == 1 then
    count.prev, count.cur, count.index = count.cur, 0, scene.index
  elseif ahead > 1 then
    count.prev, count.cur, count.index = 0, 0, scene.index
  end
  return count
end

local function unpack_count(packed, from, scene)
  local index, prev, cur = struct.unpack('>I6I6I6', packed, from)
  return turn_to({ index = index, prev = prev, cur = cur }, scene)
end

local function pack_count(count)
  return struct.pack('>I6I6I6', count.index, count.prev, count.cur)
end

local function report(count, scene, index, prev, cur)
  local said = turn_to({ index = index, prev = prev, cur = cur }, scene)
  count.prev = count.prev + said.prev
  count.cur = count.cur + said.cur
end

local function add(count, amount)
  count.cur = count.cur + amount
end

local function take_back(count, scene, index, unspent)
  if index == scene.index then
    count.cur = math.max(count.cur - unspent, 0)
  elseif index + 1 == scene.index then
    count.prev = math.max(count.prev - unspent, 0)
  end
end

-- What was counted in the trailing window that ends now.
local function used(count, scene)
  return count.cur + mul_div_up(count.prev, scene.length - scene.gone, scene.length)
end

local function left(count, scene, reserve_now, reserve_end)
  local left_now = math.max(math.max(scene.allows - used(count, scene), 0) - reserve_now, 0)
  local left_end = math.max(math.max(scene.allows - count.cur, 0) - reserve_end, 0)
  return math.min(left_now, left_end)
end

-- How long after the start of a window `amount` of the one before weighs at most `room`.
local function until_carried(amount, room, length)
  if amount <= room then
    return 0
  end
  return length - (mul_div(room, length, amount))
end

local function wait(count, scene, limit)
  local room = limit - 1
  if room < 0 then
    return scene.length
  end
  if count.cur <= room then
    return math.max(until_carried(count.prev, room - count.cur, scene.length) - scene.gone, 0)
  end
  return scene.length - scene.gone + until_carried(count.cur, room, scene.length)
end

local function excess(count, scene)
  return math.max(used(count, scene) - scene.allows, 0)
end
