-- When frames begin, as in src/limiter/window.rs.
--
-- Keys: none. Arguments: none. Result: none; gives `start_of` to what follows. TTL: nothing is stored. Complexity: O(1).

-- The beginning of a frame. Beyond the dates of a calendar it is as if all were as long as the nearest that is known.
local function start_of(index, turn)
  local dates = turn.dates
  if not dates then
    return index * turn.frame
  end
  local place = index + 1 - dates.index
  if place < 0 then
    return math.max(dates[0] + (dates[1] - dates[0]) * place, 0)
  elseif place > 3 then
    return dates[3] + (dates[3] - dates[2]) * (place - 3)
  end
  return dates[place]
end
