#!lua flags=allow-oom
-- Takes events out of the stream whose data was erased in the archive, and notes which those are.
--
-- KEYS  1 events stream, 2 archive, 3 erased
-- ARGV  1 generation of the archiver's lease, 2 the entry up to which erasures are carried out then
--       ("": as before), then the entries to take out
-- Returns how many went; -1 when another archiver has the lease, or the archive is halted
local call = redis.call
local generation, halted = unpack(call('HMGET', KEYS[2], 'generation', 'halted'))
if generation ~= ARGV[1] or halted then
  return -1
end
-- What stands before the oldest entry is trimmed, and known to be in the archive alone.
local oldest = call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
if oldest then
  call('ZREMRANGEBYSCORE', KEYS[3], '-inf', '(' .. string.match(oldest[1], '^%d+'))
end
local gone = 0
for i = 3, #ARGV do
  -- In this order, for whoever misses it: was it erased?
  call('ZADD', KEYS[3], string.match(ARGV[i], '^%d+'), ARGV[i])
  gone = gone + call('XDEL', KEYS[1], ARGV[i])
end
if ARGV[2] ~= '' then
  call('HSET', KEYS[2], 'erased', ARGV[2])
end
return gone
