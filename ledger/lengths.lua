-- Tells how many tasks wait in ready streams, those included that are claimed and not yet started.
--
-- KEYS  the ready streams
-- Returns for each its length; 0 for what is no stream.
local lengths = {}
for i = 1, #KEYS do
  local length = redis.pcall('XLEN', KEYS[i])
  lengths[i] = type(length) == 'number' and length or 0
end
return lengths
