-- Takes an entry out of its ready stream that no start will take out. After queues.lua.
--
-- KEYS  1-4 as queues.lua has them
-- ARGV  1 staged_max, 2 queue, 3 entry
-- Returns 1 when the entry was there, else 0: whoever moved its task on took it out.
local queue, entry = ARGV[2], ARGV[3]
local ready = ready_of(queue)
local found = call('XRANGE', ready, entry, entry)
call('XACK', ready, 'workers', entry)
if #found == 0 then
  return 0
end
call('XDEL', ready, entry)
local fields = found[1][2]
if fields[3] == 'kb' then
  admit(queue, fields[4], -1)
end
-- The task that is left without an entry waits nowhere: what moves it on must not count it again.
local hash = prefix .. 'task:' .. (fields[2] or '')
if pcall_redis('HGET', hash, 'place') == 'ready:' .. entry then
  call('HSET', hash, 'place', '')
end
top_up(queue)
settle()
return 1
