-- Reads snapshots, many in one round trip.
--
-- KEYS  the task hashes
-- Returns for each task, three: version, submission, state; all false when there is no such task.
-- Where its key holds something else the server's error stands for the version: one foreign key must
-- not spoil a whole batch, and nobody may take the task for one that never was.
local out = {}
for i = 1, #KEYS do
  local task = redis.pcall('HMGET', KEYS[i], 'version', 'submission', 'state')
  out[3 * i - 2], out[3 * i - 1] = task[1] or task.err or false, task[2] or false
  out[3 * i] = task[3] or false
end
return out
