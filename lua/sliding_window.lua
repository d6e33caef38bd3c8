-- The sliding window of two counters, as in src/limiter/window.rs: what was counted in this window, and of the one
-- before it as much as the trailing window still covers. Goes after windows.lua.
--
-- Keys: none of its own. Arguments: none of its own. Result: none; gives the rest of the functions that limit_turn.lua
-- names. TTL: the caller's. Complexity: O(1) for each.

-- What was counted in the trailing window that ends now.
local function used(count, scene)
  if count.prev == 0 then
    return count.cur
  end
  return count.cur + mul_div_up(count.prev, scene.length - scene.gone, scene.length)
end

local function left(count, scene, silent)
  local left_now = max(max(scene.allows - used(count, scene), 0) - silent.blended, 0)
  local left_end = max(max(scene.allows - count.cur, 0) - silent.cur, 0)
  return min(left_now, left_end)
end

-- How long after the start of a window `amount` of the one before weighs at most `room`.
local function until_carried(amount, room, length)
  if amount <= room then
    return 0
  end
  return length - (mul_div(room, length, amount))
end

local function wait(count, scene, silent)
  local room = max(scene.allows - silent.blended, 0) - 1
  if room < 0 then
    return scene.turn.length
  end
  if count.cur <= room then
    return max(until_carried(count.prev, room - count.cur, scene.length) - scene.gone, 0)
  end
  return scene.length - scene.gone + until_carried(count.cur, room, scene.next_length)
end

local function excess(count, scene)
  return max(used(count, scene) - scene.allows, 0)
end
