-- Tells how many tasks of their partition will be taken before waiting ones, themselves included;
-- many in one round trip.
--
-- KEYS  1 counters, then for each task: its hash, then the ready streams more urgent than its own
-- ARGV  for each task: name of its queue, number of those streams
-- Returns for each task: 1 for the next to be taken, 0 when it does not wait in a ready stream.
--
-- Each ready entry carries its number in the queue; `taken` is the number that readers have got
-- to. Canceled tasks ahead leave a gap until it is passed, so the answer may be high, never low.
local call = redis.call

local function position_of(hash, queue, first_stream, last_stream)
  local place = call('HGET', hash, 'place')
  local number = place and string.match(place, '^ready:[^:]+:(%d+)$')
  if not number then
    return 0
  end
  local position = number - (call('HGET', KEYS[1], 'taken:' .. queue) or 0)
  if position < 1 then
    return 0
  end
  for i = first_stream, last_stream do
    position = position + call('XLEN', KEYS[i])
  end
  return position
end

local positions, key = {}, 2
for argument = 1, #ARGV, 2 do
  local last_stream = key + ARGV[argument + 1]
  positions[#positions + 1] = position_of(KEYS[key], ARGV[argument], key + 1, last_stream)
  key = last_stream + 1
end
return positions
