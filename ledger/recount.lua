-- Puts counts right that limits go by, and what stands in line with them. After queues.lua.
--
-- KEYS  1-4 as queues.lua has them
-- ARGV  1 staged_max, 2 the priorities, the most urgent first, with a comma after each,
--       3 number of recounts when what there is was looked at, then pairs: type:<type> or kb:<kb_id>,
--       and by how much it counts too few (0: what stands there is no number, and nothing counts)
-- Returns 1 when that was done, 0 when another recount came before.
local priorities, recounts = ARGV[2], tonumber(ARGV[3])
if (tonumber(call('HGET', counters, 'recounts') or '') or 0) ~= recounts then
  return 0
end
call('HSET', counters, 'recounts', recounts + 1)
for i = 4, #ARGV, 2 do
  -- Differences, since tasks have come and gone since the look.
  admitted_by[ARGV[i]] = tonumber(ARGV[i + 1])
  if admitted_by[ARGV[i]] == 0 then
    call('HDEL', admitted, ARGV[i])
  end
end
keep_limits(priorities)
settle()
return 1
