-- The lobby of a room that is shuffled at its opening: the draw, ranks, and who is called next. Does what
-- src/queue/shuffle.rs, src/queue/lobby.rs and src/queue/order/lobby.rs do; goes before room_turn.lua.
--
-- Nothing is moved at the draw. Visitors keep their order numbers; what changes is the order in which numbers are
-- called, and that is computed. So a draw costs the same whatever the size of the lobby, and nobody waits for it.
--
-- Keys: those of room_turn.lua; of the room's hash the field `lobby`, 0 or 1 (whether a lobby stands) and the last draw
-- if there was one: its seed as hex, the number before the lobby's first, its size, and the moment. Arguments: none.
-- Result: none; gives `read_lobby`, `open_lobby`, `lobby_floor`, `clear_below`, `rank_of`, `each_in_order` and
-- `pack_lobby` to what follows. TTL: that of the room. Complexity: O(1) for a draw; for a call six hashes for each rank that is looked at.

local LOBBY_RANKS_PER_TURN = 500
local LOBBY_ROUNDS = 6
-- More lines than a grid has: a lobby has less than 2^48 numbers.
local LOBBY_LINES_MAX = 2 ^ 25

local function draw_of(seed, before, size, at)
  local draw = { seed = seed, before = before, size = size, last = before + size, at = at, added = {} }
  draw.width = math.max(math.ceil(math.sqrt(size)), 1)
  draw.height = math.max(ceil_div(size, draw.width), 1)
  return draw
end

local function read_lobby(packed)
  local lobby = { stands = packed and string.byte(packed) == 1 or false }
  if packed and #packed > 1 then
    lobby.draw = draw_of(struct.unpack('>c32I8I8I8', packed, 2))
  end
  return lobby
end

-- As it is kept, and as it is answered.
local function pack_lobby(lobby)
  local draw, stands = lobby.draw, lobby.stands and '\1' or '\0'
  return draw and stands .. struct.pack('>c32I8I8I8', draw.seed, draw.before, draw.size, draw.at) or stands
end

-- What a round adds to a column or a row.
local function added(draw, round, line)
  local key = round * LOBBY_LINES_MAX + line
  local found = draw.added[key]
  if not found then
    local hash = redis.sha1hex(draw.seed .. ':' .. round .. ':' .. line)
    found = tonumber(string.sub(hash, 1, 8), 16)
    draw.added[key] = found
  end
  return found
end

local function cell_forward(draw, cell)
  local column, row = math.fmod(cell, draw.width), floor_div(cell, draw.width)
  for round = 0, LOBBY_ROUNDS - 1 do
    if math.fmod(round, 2) == 0 then
      column = math.fmod(column + added(draw, round, row), draw.width)
    else
      row = math.fmod(row + added(draw, round, column), draw.height)
    end
  end
  return row * draw.width + column
end

local function cell_back(draw, cell)
  local column, row = math.fmod(cell, draw.width), floor_div(cell, draw.width)
  for round = LOBBY_ROUNDS - 1, 0, -1 do
    if math.fmod(round, 2) == 0 then
      column = math.fmod(column + draw.width - math.fmod(added(draw, round, row), draw.width), draw.width)
    else
      row = math.fmod(row + draw.height - math.fmod(added(draw, round, column), draw.height), draw.height)
    end
  end
  return row * draw.width + column
end

-- What stands for `number` on the other side of the last draw: its rank or, back, the number of a rank.
local function across(room, number, step)
  local draw = room.lobby.draw
  if not draw or number <= draw.before or number > draw.last then
    return number
  end
  local cell = step(draw, number - draw.before - 1)
  while cell >= draw.size do
    cell = step(draw, cell)
  end
  return draw.before + cell + 1
end

local function rank_of(room, number)
  return across(room, number, cell_forward)
end

-- Whether somebody of the last draw still waits to be called. Bits of those who were called are cleared in a lobby.
local function lobby_waits(room)
  local draw = room.lobby.draw
  if not draw or room.frontier >= draw.last or room.waiting == 0 then
    return false
  end
  local from = math.max(draw.before + 1 - room.base, 0)
  local first = redis.call('BITPOS', KEYS[3], 1, floor_div(from, 8))
  return first >= 0 and room.base + first <= draw.last
end

-- The number above which all who wait are: that of the last who was called, or the last before a lobby that is being
-- called, in whatever order.
local function lobby_floor(room)
  local draw = room.lobby.draw
  return draw and room.frontier < draw.last and draw.before or room.frontier
end

-- Bits at or below the frontier mean nothing, and share a byte with the first of a lobby.
local function clear_below(room, first)
  local at = first - room.base
  if at < 0 then
    return
  end
  for bit_at = at - math.fmod(at, 8), at - 1 do
    redis.call('SETBIT', KEYS[3], bit_at, 0)
  end
end

local function draw_lobby(room, nonce)
  local draw = room.lobby.draw
  if draw and room.frontier < draw.last then
    room.frontier = draw.last
  end
  local seed = string.sub(redis.sha1hex(nonce .. ':' .. string.format('%.0f', room.now)), 1, 32)
  room.lobby.draw = draw_of(seed, room.frontier, room.last - room.frontier, room.now)
  clear_below(room, room.frontier + 1)
  -- Whoever follows the room starts over, for ranks are not what they were.
  redis.call('DEL', KEYS[9])
  room.sequence, room.named = room.sequence + 1, 0
end

-- Before the opening a lobby stands; with the first turn after it the lobby is drawn, once the one before it is over.
local function open_lobby(room, terms, nonce)
  local lobby, before = room.lobby, pack_lobby(room.lobby)
  if not terms.shuffle then
    lobby.stands = false
  elseif terms.open > room.now then
    lobby.stands = true
  elseif lobby.stands and not lobby_waits(room) then
    lobby.stands = false
    if room.waiting > 0 then
      draw_lobby(room, nonce)
    end
  end
  local after = pack_lobby(lobby)
  if after ~= before then
    redis.call('HSET', KEYS[1], 'lobby', after)
  end
end

-- The next of the lobby: its number and rank; none when enough ranks have been looked at.
local function next_of_lobby(room)
  while room.looks > 0 do
    room.looks = room.looks - 1
    local rank = room.frontier + 1
    local number = across(room, rank, cell_back)
    if number >= room.base and redis.call('GETBIT', KEYS[3], number - room.base) == 1 then
      redis.call('SETBIT', KEYS[3], number - room.base, 0)
      return number, rank
    end
    room.frontier = rank
  end
end

-- Gives those who wait, lowest rank first: the number and the rank. `each_later` gives those who are in no lobby.
local function each_in_order(room, each_later)
  room.looks = LOBBY_RANKS_PER_TURN
  local later = nil
  return function()
    if not later and lobby_waits(room) then
      return next_of_lobby(room)
    end
    if not later then
      local draw = room.lobby.draw
      room.frontier = math.max(room.frontier, draw and draw.last or 0)
      if room.lobby.stands then
        return nil
      end
      later = each_later(room)
    end
    local number = later()
    return number, number
  end
end

