-- Tells how many tasks of their partition will be taken before waiting ones, themselves included;
-- many in one round trip. After queues.lua.
--
-- KEYS  1-4 as queues.lua has them, then the hash of each task
-- ARGV  1 staged_max, 2 the priorities, the most urgent first, with a comma after each,
--       then for each task its queue
-- Returns for each task: 1 for the next to be taken, 0 when it waits in no queue.
--
-- The answer may be high, never low, as long as nothing new comes and no limit holds anything back.
local function position_of(hash, queue)
  local place = call('HGET', hash, 'place') or ''
  local kind, member = string.match(place, '^(%a+):(.*)$')
  local position
  if kind == 'backlog' then
    position = position_in_backlog(queue, member)
  elseif kind == 'ready' then
    position = position_in_line(queue, tonumber(string.match(member, ':(%d+)$')) or 0)
  end
  if not position or position < 1 then
    return 0
  end
  return position + waiting_ahead(queue, ARGV[2])
end

local positions = {}
for i = 5, #KEYS do
  positions[#positions + 1] = position_of(KEYS[i], ARGV[i - 2])
end
return positions
