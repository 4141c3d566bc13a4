-- Replaces a partition's limits by newer ones, whole: what was removed is gone, too.
--
-- KEYS  1 limits
-- ARGV  1 version of the system subject that they are from, then pairs: type:<type> or kb:<kb_id>,
--       and how many may be admitted
-- Returns whether they were newer than those that were there: 1 or 0.
local call = redis.call
local held = call('HGET', KEYS[1], 'version')
if held and tonumber(held) >= tonumber(ARGV[1]) then
  return 0
end
call('DEL', KEYS[1])
call('HSET', KEYS[1], 'version', ARGV[1])
-- In pieces, since the stack of Lua has a bound.
for first = 2, #ARGV, 1000 do
  call('HSET', KEYS[1], unpack(ARGV, first, math.min(first + 999, #ARGV)))
end
return 1
