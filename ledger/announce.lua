#!lua flags=allow-oom
-- Notes that a worker is there, and what it says of itself; clears away those long silent.
-- Also at the memory limit: a living worker is not to be taken for lost. A report takes the place of
-- the worker's last one.
--
-- KEYS  1 workers, 2 heartbeats
-- ARGV  1 worker id, 2 its report (JSON), 3 how long the silent are kept (ms), 4 how many of them
--       are cleared away at most
-- Returns the time of the heartbeat (ms), by this server's clock.
local call = redis.call
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
call('ZADD', KEYS[2], now, ARGV[1])
-- An idle worker says the same each time, which the append-only file need not be told.
if call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then
  call('HSET', KEYS[1], ARGV[1], ARGV[2])
end
local forgotten = call('ZRANGEBYSCORE', KEYS[2], '-inf', now - ARGV[3], 'LIMIT', 0, ARGV[4])
if #forgotten > 0 then
  call('ZREM', KEYS[2], unpack(forgotten))
  call('HDEL', KEYS[1], unpack(forgotten))
end
return now
