-- Reads snapshots, many in one round trip.
--
-- KEYS  the task hashes
-- Returns for each task, three: version, submission, state (all false when there is no such task,
-- or its key holds something else: one foreign key must not spoil a whole batch).
local out = {}
for i = 1, #KEYS do
  local task = redis.pcall('HMGET', KEYS[i], 'version', 'submission', 'state')
  out[3 * i - 2], out[3 * i - 1], out[3 * i] = task[1] or false, task[2] or false, task[3] or false
end
return out
