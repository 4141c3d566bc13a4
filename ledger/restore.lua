-- Puts the snapshot of an evicted task back, so that something may happen to it. After entries.lua.
--
-- KEYS  1 archive, 2 restored, 3 task hash
-- ARGV  1 version, 2 submission (JSON), 3 state (JSON), 4 entry of its last event, 5 what the task
--       is called among the restored ones
-- Returns the version that the task is at afterwards, or -1 when it cannot have been evicted
--
-- It is noted among the restored ones: if nothing happens to it after all, it goes again.
local call = redis.call
local version = call('HGET', KEYS[3], 'version')
if version then
  return tonumber(version) or -1
end
local evicted = call('HGET', KEYS[1], 'evicted')
if not evicted or is_before(evicted, ARGV[4]) then
  return -1
end
local time = call('TIME')
call('ZADD', KEYS[2], time[1] * 1000 + math.floor(time[2] / 1000), ARGV[5])
call('HSET', KEYS[3], 'version', ARGV[1], 'submission', ARGV[2], 'state', ARGV[3], 'place', '',
  'commit', '', 'last', ARGV[4])
return tonumber(ARGV[1])
