-- A room that may have been lost listens to what gateways remember before it does anything else. Does what `listen` of
-- src/queue/restore.rs and `recall` of src/queue/order/recall.rs do; why it is sound is told there.
--
-- Keys: those of room_turn.lua; the hash's field `heard` says which server did the last turn, and since and until when
-- the room listens, and by what people show of an earlier life. Arguments, after those of room_turn.lua:
--   3  what the gateway remembers, packed: see `read_memory`; empty for nothing
--   4  for tests only: which server this is
-- Result: none; gives `listen` to what follows. TTL: that of the room.
-- Complexity: O(1) once the room has heard enough. Until then O(r / 8 + p + n log n) for a range of r numbers, p that are
--   called or inside, and n that the range adds or moves.

local RESTORE_WITHIN = 3000000
local RESTORE_MAX = 30000000
local GAP = 262144
local SEQUENCE_JUMP = 4294967296
-- Above so many, those who are called or inside and were gone elsewhere are left to run out.
local PEOPLE_COMPARED = 65536

-- Which server this is. A replica that takes over, and a server that starts again, get another name for their history.
local function read_server()
  if ARGV[2] ~= '' then
    return ARGV[4]
  end
  local info = redis.pcall('INFO', 'replication')
  return type(info) == 'string' and string.sub(string.match(info, 'master_replid:(%x+)') or '', 1, 16) or ''
end

local function read_memory(bytes)
  if bytes == '' then
    return nil
  end
  local memory, at = {}, nil
  memory.epoch, memory.sequence, memory.frontier, memory.last, memory.from, memory.to, at =
    struct.unpack('>I8I8I6I6I6I6', bytes)
  local size
  size, at = struct.unpack('>I4', bytes, at)
  memory.bits, at = string.sub(bytes, at, at + size - 1), at + size
  memory.base = 8 * floor_div(memory.from, 8)
  memory.called, at = read_list(bytes, at, read_id)
  memory.inside, at = read_list(bytes, at, read_id)
  memory.said, at = read_list(bytes, at, read_setting)
  memory.lobby = read_lobby(string.sub(bytes, at))
  return memory
end

local function read_heard(room)
  local packed = redis.call('HGET', STATE, 'heard')
  if not packed then
    return { fresh = room.fresh or false, since = 0, till = 0, shown = 0, rank = 0, server = '' }
  end
  local fresh, since, till, shown, rank, at = struct.unpack('>BI8I8I8I6', packed)
  return { fresh = fresh == 1, since = since, till = till, shown = shown, rank = rank, server = string.sub(packed, at) }
end

local function write_heard(heard)
  local head = struct.pack('>BI8I8I8I6', heard.fresh and 1 or 0, heard.since, heard.till, heard.shown, heard.rank)
  redis.call('HSET', STATE, 'heard', head .. heard.server)
end

-- Whether a gateway has followed the room further than it has come.
local function is_ahead(room, turn)
  return turn.cursor_epoch == room.epoch and turn.cursor > room.sequence
end

-- Whether the room has reason to listen, and whether it has found that out just now.
local function notice(room, turn, heard)
  local server = read_server()
  local moved = server ~= '' and heard.server ~= '' and server ~= heard.server
  local is_new = server ~= '' and server ~= heard.server
  if is_new then
    heard.server = server
  end
  if moved or (heard.till == 0 and (heard.fresh or is_ahead(room, turn))) then
    heard.since, heard.till = room.now, room.now + RESTORE_WITHIN
    heard.shown, heard.rank = 0, 0
    is_new = true
  end
  return heard.till > 0, is_new
end

local function bit_of(bits, base, number)
  local at = number - base
  local byte = string.byte(bits, floor_div(at, 8) + 1) or 0
  return bit.band(byte, 2 ^ (7 - math.fmod(at, 8))) ~= 0
end

-- The numbers of `first` to `last` whose bit is set, less those set in other bits that begin with the same number, a
-- multiple of 8.
local function each_set(bits, others, base, first, last)
  local numbers = {}
  for byte_at = floor_div(first - base, 8), floor_div(last - base, 8) do
    local byte = bit.band(string.byte(bits, byte_at + 1) or 0, bit.bnot(string.byte(others, byte_at + 1) or 0))
    if byte ~= 0 then
      for slot = 0, 7 do
        local number = base + 8 * byte_at + slot
        if bit.band(byte, 2 ^ (7 - slot)) ~= 0 and number >= first and number <= last then
          numbers[#numbers + 1] = number
        end
      end
    end
  end
  return numbers
end

-- Gives numbers a slot, as of now. When somebody entered is not known, so it was not lately.
local function stand(room, terms, key, ids, owners)
  local scores, people = {}, {}
  local score = room.now + (key == CALLED and terms.claim_within or terms.pass)
  for at, id in ipairs(ids) do
    append(scores, { score, id })
    append(people, { id, person(room.now, 0, owners[at] or '') })
    if owners[at] and owners[at] ~= '' then
      redis.call('HSET', OWNERS, owners[at], id)
      room.owners = room.owners + 1
    end
  end
  in_chunks('ZADD', key, scores)
  in_chunks('HSET', PEOPLE, people)
  if key == CALLED then
    room.called = room.called + #ids
  else
    room.inside = room.inside + #ids
  end
end

local function before_lobby(lobby, frontier, told)
  local draw = lobby.draw
  local within = draw and frontier < draw.last and told > draw.before and told < draw.last
  return within and draw.before or told
end

-- The frontier that a range brings. It comes to the beginning of a lobby that is being called, and then to its end.
local function frontier_told(room, memory)
  local told = before_lobby(memory.lobby, memory.frontier, math.min(memory.frontier, memory.to))
  return before_lobby(room.lobby, room.frontier, told)
end

-- Whether the lobby that is being called here turns out to be over.
local function passes_lobby(room, memory)
  local draw = room.lobby.draw
  return draw and room.frontier < draw.last and frontier_told(room, memory) >= draw.last
end

-- Those known here who wait, and do not in the memory.
local function recall_waiting(room, terms, memory, stages)
  local floor = lobby_floor(room)
  local first, last = passes_lobby(room, memory) and floor + 1 or math.max(memory.from, floor + 1), math.min(memory.to, room.last)
  if first > last or room.waiting == 0 then
    return
  end
  local base = 8 * floor_div(first, 8)
  local from = (base - room.base) / 8
  local bits = redis.call('GETRANGE', BITS, math.max(from, 0), floor_div(last - room.base, 8))
  bits = string.rep('\0', math.max(-from, 0)) .. bits
  local at = (base - memory.base) / 8
  local theirs = string.rep('\0', math.max(-at, 0)) .. string.sub(memory.bits, math.max(at, 0) + 1)
  local moved = { [CALLED] = { {}, {} }, [INSIDE] = { {}, {} } }
  local gone = {}
  for _, number in ipairs(each_set(bits, theirs, base, first, last)) do
    local id = id_of(number)
    local ids, owners = unpack(moved[stages[id]] or { {}, {} })
    ids[#ids + 1], gone[#gone + 1] = id, id
    owners[#owners + 1] = room.owners > 0 and select(2, joined_at(room, number)) or ''
  end
  remove_waiting(room, gone)
  stand(room, terms, CALLED, unpack(moved[CALLED]))
  stand(room, terms, INSIDE, unpack(moved[INSIDE]))
end

local function owners_of(room, ids)
  local owners = {}
  if room.owners > 0 then
    for at, packed in ipairs(fetch('HMGET', PEOPLE, ids)) do
      owners[at] = packed and string.sub(packed, 15) or ''
    end
  end
  return owners
end

-- Those known here who are called or inside, and further on in the memory.
local function recall_people(room, terms, memory, stages)
  if room.called + room.inside > PEOPLE_COMPARED then
    return
  end
  local last = math.min(memory.to, room.last)
  for _, key in ipairs({ CALLED, INSIDE }) do
    local gone, entered = {}, {}
    for _, id in ipairs(redis.call('ZRANGE', key, 0, -1)) do
      local number = number_of(id)
      if number >= memory.from and number <= last then
        local stage = stages[id]
        local waits = not stage and bit_of(memory.bits, memory.base, number)
        if key == CALLED and stage == INSIDE then
          entered[#entered + 1] = id
        elseif not stage and not waits then
          gone[#gone + 1] = id
        end
      end
    end
    remove_people(room, key, gone)
    local owners = owners_of(room, entered)
    remove_people(room, key, entered)
    stand(room, terms, INSIDE, entered, owners)
  end
end

-- Notes when numbers that were told of came: as far as anyone knows, now.
local function note_told(room, first, last)
  local since = struct.pack('>I7', room.now)
  while first <= last do
    local slot = math.fmod(first, PER_CHUNK)
    local count = math.min(PER_CHUNK - slot, last - first + 1)
    extend((first - slot) / PER_CHUNK, slot, 7, { string.rep(since, count) })
    first = first + count
  end
end

-- Puts numbers into the queue that are the last ones: all whose bit is set from the first of them on.
local function queue_up(room, memory, numbers)
  local first, queue = numbers[1], {}
  for _, number in ipairs(numbers) do
    append(queue, { room.now, id_of(number) })
  end
  in_chunks('ZADD', QUEUE, queue)
  if room.waiting == 0 then
    redis.call('DEL', BITS)
    room.base, room.chunk = 8 * floor_div(first, 8), floor_div(first, PER_CHUNK)
  end
  reach_down(room, first)
  local at, slot = (first - math.fmod(first, 8) - room.base) / 8, math.fmod(first, 8)
  local bits = string.sub(memory.bits, floor_div(first - memory.base, 8) + 1)
  local head = bit.band(string.byte(bits), 2 ^ (8 - slot) - 1)
  head = bit.bor(head, string.byte(redis.call('GETRANGE', BITS, at, at)) or 0)
  redis.call('SETRANGE', BITS, at, string.char(head) .. string.sub(bits, 2))
  note_told(room, first, memory.to)
  room.waiting = room.waiting + #numbers
end

-- Numbers that nobody has told of yet.
local function recall_new(room, terms, memory)
  local first = math.max(memory.from, room.last + 1)
  for key, ids in pairs({ [CALLED] = memory.called, [INSIDE] = memory.inside }) do
    local new = {}
    for _, id in ipairs(ids) do
      new[#new + 1] = number_of(id) >= first and id or nil
    end
    stand(room, terms, key, new, {})
  end
  local numbers = each_set(memory.bits, '', memory.base, first, memory.to)
  if #numbers > 0 then
    queue_up(room, memory, numbers)
  end
end

-- A lobby that was drawn later than the last one known here, if all of it has been told.
local function recall_draw(room, memory)
  local draw, own = memory.lobby.draw, room.lobby.draw
  local is_new = draw and draw.size > 0 and (not own or (draw.before > own.before and room.frontier >= own.last))
  if is_new and memory.to >= draw.last and (room.frontier == draw.before or room.frontier >= draw.last) then
    room.lobby.draw = draw
    clear_below(room, draw.before + 1)
  end
end

local function recall(room, terms, memory)
  local stages = {}
  for _, id in ipairs(memory.inside) do
    stages[id] = INSIDE
  end
  for _, id in ipairs(memory.called) do
    stages[id] = CALLED
  end
  local frontier = frontier_told(room, memory)
  recall_people(room, terms, memory, stages)
  recall_waiting(room, terms, memory, stages)
  recall_new(room, terms, memory)
  room.frontier = math.max(room.frontier, frontier)
  room.last = math.max(room.last, memory.to)
  recall_draw(room, memory)
end

-- Whether a range leaves out none of those that are not known here, and none that wait here and come to lie below the
-- frontier.
local function follows(room, memory)
  local draw = room.lobby.draw
  local reach = draw and room.frontier < draw.last and draw.last or room.frontier
  local moves_frontier = frontier_told(room, memory) > room.frontier
  return memory.from <= room.last + 1 and (not moves_frontier or memory.from <= reach + 1)
end

local function take_in(room, heard, terms, memory)
  local adopts = heard.fresh
  if memory.epoch == 0 or not (adopts or memory.epoch == room.epoch) or not follows(room, memory) then
    return
  end
  room.epoch, heard.fresh = memory.epoch, false
  if adopts or memory.sequence > room.sequence then
    room.said = nil
    table.insert(memory.said, 1, { what = 3, value = 0, window = 0 })
    override(room, memory.said)
    room.lobby.stands = memory.lobby.stands
  end
  room.sequence = math.max(room.sequence, memory.sequence)
  recall(room, terms, memory)
end

-- The room has heard enough. Nobody can follow it from where they were.
local function settle(room, heard, terms)
  if heard.fresh then
    began_anew(room, terms, heard.shown, heard.rank)
  else
    room.last = room.last + GAP
  end
  heard.fresh, heard.till = false, 0
  room.patient_until = room.now + HEARING
  room.sequence, room.named = room.sequence + 1 + SEQUENCE_JUMP, 0
  redis.call('DEL', LOG)
end

-- Comes before every turn: hears what it tells, if the room has reason to listen. Gives the answer, or nil if the turn
-- may be done.
local function listen(room, turn)
  local heard = read_heard(room)
  local listens, is_new = notice(room, turn, heard)
  if not listens then
    if is_new then
      write_heard(heard)
    end
    return nil
  end
  override(room, turn.settings)
  lowest_measured(room, turn.settings)
  local memory, lobby = read_memory(ARGV[3]), pack_lobby(room.lobby)
  if memory then
    take_in(room, heard, turn.terms, memory)
  end
  if pack_lobby(room.lobby) ~= lobby then
    redis.call('HSET', STATE, 'lobby', pack_lobby(room.lobby))
  end
  heard.shown, heard.rank = latest_shown(room, turn.returns, heard.shown, heard.rank)
  local unheard = heard.fresh and turn.cursor_epoch ~= 0 and turn.cursor_epoch ~= room.epoch
  if unheard or is_ahead(room, turn) or (memory and memory.to < memory.last) then
    local longer = math.min(room.now + RESTORE_WITHIN, heard.since + RESTORE_MAX)
    heard.till = math.max(heard.till, longer)
  end
  local answer = nil
  if room.now >= heard.till then
    settle(room, heard, turn.terms)
  else
    answer = struct.pack('>I8I8I8I8', 0, room.now, heard.since, heard.till - room.now)
  end
  room.last_before, room.frontier_before = room.last, room.frontier
  write_heard(heard)
  return answer
end
