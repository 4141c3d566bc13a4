#!lua flags=allow-oom
-- Extends leases, many in one round trip: a worker's heartbeat.
-- Also at the memory limit: what runs is not given to others for want of memory. It adds nothing.
--
-- KEYS  1 leases
-- ARGV  1 lease (ms), then members, <task>:<attempt>
-- Returns the members that hold no lease any more: their tasks were canceled or given to others.
local time = redis.call('TIME')
local expires = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[1]
local gone = {}
for i = 2, #ARGV do
  if redis.call('ZSCORE', KEYS[1], ARGV[i]) then
    redis.call('ZADD', KEYS[1], expires, ARGV[i])
  else
    gone[#gone + 1] = ARGV[i]
  end
end
return gone
