-- Tells how many tasks wait in queues, those included that are claimed and not yet started. After
-- queues.lua, positions.lua.
--
-- KEYS  1-4 as queues.lua has them
-- ARGV  1 staged_max, then the queues
-- Returns for each how many wait; what stands in its place and is no queue counts as nothing.
local lengths = {}
for i = 2, #ARGV do
  lengths[i - 1] = waiting_in(ARGV[i])
end
return lengths
