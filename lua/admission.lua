-- How many visitors of a room may be called now, by its rate. Does what src/queue/admission.rs does.
--
-- Keys: none of its own. Arguments: none of its own. Result: none; gives `read_admission`, `write_admission`,
-- `rate_free`, `rate_spend` and `window_reopens` to what follows. TTL: the caller's. Complexity: O(1) for each, and
-- O(c) for c cells of the window, at most 101, that are over.
--
-- The credit of the pace passes 2^53 in units of 1 / window of a call. So it is kept as whole calls and a rest below
-- the window's length in microseconds. Cells stay packed, 16 bytes each, oldest first: their end, and their calls.

local CELLS_PER_WINDOW = 100
local LATE_TICKS_MAX = 2

local function read_admission(packed)
  if not packed then
    return { window = 1, calls = 0, rest = 0, refilled = 0, in_window = 0, cells = '' }
  end
  local read, at = {}, nil
  read.window, read.calls, read.rest, read.refilled, read.in_window, at = struct.unpack('>I8I8I8I8I8', packed)
  read.cells = string.sub(packed, at)
  return read
end

local function write_admission(read)
  local head = struct.pack('>I8I8I8I8I8', read.window, read.calls, read.rest, read.refilled, read.in_window)
  return head .. read.cells
end

local function cell_end(rate, now)
  local width = math.max(floor_div(rate.window, CELLS_PER_WINDOW), 1)
  return (floor_div(now, width) + 1) * width
end

local function forget_cells(read, rate, now)
  local at = 1
  while at < #read.cells do
    local ends, calls = struct.unpack('>I8I8', read.cells, at)
    if ends + rate.window > now then
      break
    end
    read.in_window = read.in_window - calls
    at = at + 16
  end
  if at > 1 then
    read.cells = string.sub(read.cells, at)
  end
  -- A cell of a longer window may end far ahead; its calls were made by now.
  local most = cell_end(rate, now)
  at = #read.cells - 15
  while at > 0 and struct.unpack('>I8', read.cells, at) > most do
    read.cells = string.sub(read.cells, 1, at - 1) .. struct.pack('>I8', most) .. string.sub(read.cells, at + 8)
    at = at - 16
  end
end

-- A credit is worth as many calls under another window as it was.
local function convert_credit(read, rate)
  if read.window ~= rate.window then
    read.rest = (mul_div(read.rest, rate.window, read.window))
    read.window = rate.window
  end
end

local function refill(read, rate, tick, now)
  local elapsed = LATE_TICKS_MAX * tick
  if read.refilled > 0 then
    elapsed = math.min(math.max(now - read.refilled, 0), elapsed)
  end
  local calls, rest = mul_div(rate.count, elapsed, rate.window)
  rest = rest + read.rest
  read.calls, read.rest = read.calls + calls + floor_div(rest, rate.window), math.fmod(rest, rate.window)
  local most, most_rest = mul_div(rate.count, math.max(elapsed, tick), rate.window)
  most = most + 1
  if read.calls > most or (read.calls == most and read.rest > most_rest) then
    read.calls, read.rest = most, most_rest
  end
  read.refilled = now
end

local function rate_free(read, rate, tick, now)
  forget_cells(read, rate, now)
  convert_credit(read, rate)
  refill(read, rate, tick, now)
  return math.min(math.max(rate.count - read.in_window, 0), read.calls)
end

local function rate_spend(read, rate, calls, now)
  if calls == 0 then
    return
  end
  if calls > read.calls then
    read.calls, read.rest = 0, 0
  else
    read.calls = read.calls - calls
  end
  read.in_window = read.in_window + calls
  local ends = cell_end(rate, now)
  local size = #read.cells
  if size > 0 then
    local last_ends, last_calls = struct.unpack('>I8I8', read.cells, size - 15)
    if last_ends >= ends then
      read.cells = string.sub(read.cells, 1, size - 16) .. struct.pack('>I8I8', last_ends, last_calls + calls)
      return
    end
  end
  read.cells = read.cells .. struct.pack('>I8I8', ends, calls)
end

-- When the window has room again, should it be full now; nil if it is not.
local function window_reopens(read, rate)
  if #read.cells == 0 or read.in_window < rate.count then
    return nil
  end
  return (struct.unpack('>I8', read.cells)) + rate.window
end
