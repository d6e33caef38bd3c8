-- The fixed window: what was counted in this window alone. Goes after windows.lua.
--
-- Keys: none of its own. Arguments: none of its own. Result: none; gives the rest of the functions that limit_turn.lua
-- names. TTL: the caller's. Complexity: O(1) for each.

local function left(count, scene, silent)
  return max(scene.allows - count.cur - silent.cur, 0)
end

local function wait(count, scene, silent)
  if count.cur + silent.cur < scene.allows then
    return 0
  end
  return scene.ends - scene.now
end

local function excess(count, scene)
  return max(count.cur - scene.allows, 0)
end
