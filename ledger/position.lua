-- Tells how many tasks of their partition will be taken before waiting ones, themselves included;
-- many in one round trip. After queues.lua and positions.lua.
--
-- KEYS  1-4 as queues.lua has them, then the hash of each task
-- ARGV  1 staged_max, 2 the priorities, the most urgent first, with a comma after each,
--       then for each task its queue
-- Returns for each task what position_of says.
local positions = {}
for i = 5, #KEYS do
  positions[#positions + 1] = position_of(KEYS[i], ARGV[i - 2], ARGV[2])
end
return positions
