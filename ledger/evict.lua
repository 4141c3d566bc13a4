#!lua flags=allow-oom
-- Takes the snapshots of finished tasks away whose last events are sealed. After entries.lua.
--
-- KEYS  1 archive, then task hashes
-- ARGV  1 generation of the archiver's lease, 2 the entry up to which tasks are looked at now,
--       3 how many leaves of the log that are, then for each hash: version, entry of its last event
-- Returns how many went; -1 as trim.lua
--
-- A task that something has happened to since is another event's matter. One that waits anywhere,
-- for a post to its callback_url too, has a place.
local call, pcall_redis = redis.call, redis.pcall
local archive, reached = KEYS[1], ARGV[2]
local generation, sealed, halted, evicted =
  unpack(call('HMGET', archive, 'generation', 'entry', 'halted', 'evicted'))
if generation ~= ARGV[1] or halted or not sealed or is_before(sealed, reached) then
  return -1
end
local finished = { completed = true, failed = true, canceled = true }
local gone = {}
for i = 2, #KEYS do
  local task = pcall_redis('HMGET', KEYS[i], 'version', 'last', 'place', 'state')
  local version, last = ARGV[2 * i], ARGV[2 * i + 1]
  if task[1] == version and task[2] == last and task[3] == ''
      and finished[string.match(task[4] or '', '^{"status":"(%a+)"')] then
    gone[#gone + 1] = KEYS[i]
  end
end
-- In this order, for whoever asks after a task that is not here: may it have been?
if not evicted or is_before(evicted, reached) then
  call('HSET', archive, 'evicted', reached, 'looked', ARGV[3])
end
if #gone > 0 then
  call('UNLINK', unpack(gone))
end
return #gone
