-- Gives back claims that nobody has started: each becomes a new entry at the end of its ready stream,
-- which wakes a worker that waits there. (A claim that is merely left alone is found by the look for
-- stale ones, seconds later.) Limits may have come since they were taken; they hold for what is given
-- back. After queues.lua.
--
-- KEYS  1-4 as queues.lua has them
-- ARGV  1 staged_max, 2 the priorities, the most urgent first, with a comma after each, 3 the queue,
--       then the entries
-- Returns how many were given back: those whose tasks still wait under that entry.
local priorities, ready = ARGV[2], ready_of(ARGV[3])

local given_back = 0
for i = 4, #ARGV do
  local entry = ARGV[i]
  local found = call('XRANGE', ready, entry, entry)[1]
  local task = found and found[2][1] == 'task' and found[2][2]
  -- A task that was canceled or started meanwhile has another place, and no use for this one.
  if task and pcall_redis('HGET', prefix .. 'task:' .. task, 'place') == 'ready:' .. entry
      and call('XACK', ready, 'workers', entry) == 1 then
    call('XDEL', ready, entry)
    set_place(task, 'ready:' .. call('XADD', ready, '*', unpack(found[2])))
    given_back = given_back + 1
  end
end
if given_back > 0 and limited() then
  keep_limits(priorities)
  settle()
end
return given_back
