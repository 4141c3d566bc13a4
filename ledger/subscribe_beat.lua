#!lua flags=allow-oom
-- Notes that a member of a subscription is there, or that it leaves, and forgets those whose time is
-- over. Also at the memory limit, as a worker's heartbeat.
-- Who is there for longer than this member said so before the server's clock was set back, or has a
-- longer lease: it stays for as long as this one, and says so again if it lives, as all do each second.
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
    local latest = now + math.max(ARGV[2], 5000)
    local later = string.format('(%.0f', latest)
    for _, other in ipairs(call('ZRANGEBYSCORE', KEYS[1], later, '+inf')) do
      call('ZADD', KEYS[1], latest, other)
    end
  end
  call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
end
return call('ZRANGEBYSCORE', KEYS[1], string.format('(%.0f', now), '+inf')
