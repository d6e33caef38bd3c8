-- A token bucket in front of gateways that have free shares of it, as in src/limiter/bucket.rs, which says why it holds.
--
-- Keys: none of its own. Arguments: none of its own. Result: none; gives the functions that limit_turn.lua names.
-- TTL: the caller's. Complexity: O(1) for each.
--
-- A count is a table: level, below zero when tokens are owed; the moment up to which gains are in it (at); and the frame
-- whose shares are debited. Packed it is 20 bytes.

-- After so many frames in which nobody spoke of it a bucket is full that owed no more than so many times what it holds: a
-- frame brings as much as it holds, and at most half of that is debited.
local FRAMES_MAX = 8
local OWED_OF_CAPACITY = 3

-- What is owed is remembered for so long at most, and nobody is told to wait longer.
local OWED_MAX = 30 * 24 * 3600 * 1000000

-- What makes a level positive for packing; no level is as large.
local OFFSET = 2 ^ 52

local function gain(count, scene, moment)
  return (mul_div(scene.allows, max(moment - count.at, 0), scene.turn.length))
end

-- What the bucket gains until its frame ends, at least. Every filling before then rounds anew, which may cost one token.
local function sure_gain(count, scene)
  return max(gain(count, scene, scene.ends) - 1, 0)
end

local function time_for(tokens, scene)
  return mul_div_up(tokens, scene.turn.length, scene.allows)
end

local function fill_up(count, scene, moment)
  local gained = gain(count, scene, moment)
  count.level = count.level + gained
  count.at = count.at + time_for(gained, scene)
end

-- A full bucket gains nothing, so its time is now.
local function cap(count, scene, silent, moment)
  local most = scene.turn.capacity - silent
  if count.level >= most then
    count.level, count.at = most, max(count.at, moment)
  end
end

-- Of a key of which nobody has reported anything: gateways may have used their shares in this frame and in the one
-- before, and no more. One of them is known to have left so much of the one before unused.
local function new_count(count, scene, silent, unused)
  count.level, count.frame = scene.turn.capacity - max(silent.prev - unused, 0) - silent.cur, scene.index
  count.at = scene.index * scene.turn.frame
  fill_up(count, scene, scene.now)
  cap(count, scene, silent.cur, scene.now)
end

local function unpack_count(count, packed, from)
  local level
  level, count.at, count.frame = struct_unpack('>I7I7I6', packed, from)
  count.level = level - OFFSET
end

local function pack_count(count)
  return struct_pack('>I7I7I6', count.level + OFFSET, count.at, count.frame)
end

local function turn_to(count, scene, silent)
  local passed = scene.index - count.frame
  if passed < -1 then
    -- The clock was set back: nothing would be gained until it shows again what it showed.
    count.frame, count.at, passed = scene.index, min(count.at, scene.now), 0
  end
  if passed > FRAMES_MAX and count.level >= -OWED_OF_CAPACITY * scene.turn.capacity then
    new_count(count, scene, silent, 0)
    return
  end
  if passed > 0 then
    local start, seen = scene.index * scene.turn.frame, count.frame * scene.turn.frame
    local last = scene.fleet.changes[#scene.fleet.changes]
    local unseen = last and last.from <= seen and silent.cur or scene.turn.free
    fill_up(count, scene, start)
    -- Frames that passed unseen are debited with what silent gateways have now, if these are the same as then, else with
    -- the most that shares can be; each gains at least twice that.
    count.level = count.level - unseen * (passed - 1)
    cap(count, scene, silent.prev, start)
    count.level = count.level - silent.cur
    count.frame = scene.index
  end
  fill_up(count, scene, scene.now)
  cap(count, scene, silent.cur, scene.now)
end

local function report(count, scene, said, given_up)
  count.level = count.level + given_up.cur - said.cur - max(said.prev - given_up.prev, 0)
end

local function is_within()
  return false
end

local function add(count, scene, amount)
  count.level = count.level - amount
end

local function grant(count, scene, amount)
  count.level = count.level - amount
end

local function take_back(count, scene, lot, unspent)
  local since = max(scene.now - lot, 0)
  if since <= FRAMES_MAX * scene.turn.frame then
    local gained = mul_div_up(scene.allows, since, scene.turn.length)
    count.level = count.level + max(unspent - gained, 0)
  end
end

local function left(count, scene, silent)
  local kept = max(silent.next - sure_gain(count, scene), 0)
  return max(count.level - kept, 0)
end

local function wait(count, scene, silent)
  local at_end = count.level + sure_gain(count, scene) - silent.next
  local from, missing
  -- Where nothing will be debited nothing is kept, and a token that comes may be had at once.
  if at_end >= 1 or silent.next == 0 then
    from, missing = count.at, 1 - count.level
  else
    from, missing = scene.ends, 1 - at_end
  end
  return max(from + min(time_for(max(missing, 0), scene), OWED_MAX) - scene.now, 0)
end

local function excess(count)
  return max(-count.level, 0)
end

local function owed_frames(count, scene)
  return ceil_div(min(time_for(excess(count), scene), OWED_MAX), scene.turn.frame)
end
