#!lua flags=allow-oom
-- Notes that a member of a subscription is there, or that it leaves, and forgets those whose time is
-- over. Also at the memory limit, as a worker's heartbeat.
--
-- KEYS  1 members
-- ARGV  1 member ("": only tell), 2 lease (ms; 0: it leaves)
-- Returns the members that are there.
local call = redis.call
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[1] ~= '' then
  if ARGV[2] == '0' then
    call('ZREM', KEYS[1], ARGV[1])
  else
    call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
  end
  call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
end
return call('ZRANGEBYSCORE', KEYS[1], string.format('(%.0f', now), '+inf')
