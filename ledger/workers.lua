-- Tells which workers have been heard of, and when last.
--
-- KEYS  1 workers, 2 heartbeats
-- ARGV  1 how long the silent are kept (ms)
-- Returns {now (ms), workers}: flat, two for each: its report (JSON), its last heartbeat (ms).
local call = redis.call
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local beats = call('ZRANGEBYSCORE', KEYS[2], string.format('(%.0f', now - ARGV[1]), '+inf', 'WITHSCORES')
local workers = {}
for i = 1, #beats, 2 do
  local report = call('HGET', KEYS[1], beats[i])
  if report then
    local at = #workers
    workers[at + 1], workers[at + 2] = report, beats[i + 1]
  end
end
return {now, workers}
