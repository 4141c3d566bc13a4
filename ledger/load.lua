-- Reads snapshots, many in one round trip.
--
-- KEYS  the task hashes
-- Returns for each task, three: version, submission, state (all false when there is no such task).
local out = {}
for i = 1, #KEYS do
  local task = redis.call('HMGET', KEYS[i], 'version', 'submission', 'state')
  out[3 * i - 2], out[3 * i - 1], out[3 * i] = task[1], task[2], task[3]
end
return out
