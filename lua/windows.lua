-- Counts by window, as in src/limiter/window.rs: what was counted in this window and in the one before.
--
-- Keys: none of its own. Arguments: none of its own. Result: none; gives those of the functions that limit_turn.lua
-- names in which windows do not differ. TTL: the caller's. Complexity: O(1) for each.
--
-- A count is a table: index, and what was used in that window (cur) and in the one before (prev). Packed it is 18 bytes.

local function new_count(count, scene)
  count.index, count.prev, count.cur = scene.index, 0, 0
end

-- Seen from the window of the scene; what lies further back is forgotten. What lies further ahead than the next window was
-- counted before the clock was set back.
local function turn_to(count, scene)
  local ahead = scene.index - count.index
  if ahead == 1 then
    count.prev, count.cur, count.index = count.cur, 0, scene.index
  elseif ahead > 1 then
    count.prev, count.cur, count.index = 0, 0, scene.index
  elseif ahead < -1 then
    count.index = scene.index
  end
end

local function unpack_count(count, packed, from)
  count.index, count.prev, count.cur = struct_unpack('>I6I6I6', packed, from)
end

local function pack_count(count)
  return struct_pack('>I6I6I6', count.index, count.prev, count.cur)
end

local function report(count, scene, said)
  count.prev = count.prev + said.prev
  count.cur = count.cur + said.cur
end

local function is_within(count, most)
  return count.prev + count.cur <= most
end

local function add(count, scene, amount)
  count.cur = count.cur + amount
end

local function grant(count, scene, amount)
  count.cur = count.cur + amount
end

local function take_back(count, scene, lot, unspent)
  if lot == scene.index then
    count.cur = max(count.cur - unspent, 0)
  elseif lot + 1 == scene.index then
    count.prev = max(count.prev - unspent, 0)
  end
end

local function owed_frames()
  return 0
end
