-- Gives back claims that nobody has started: each becomes a new entry at the end of its ready stream,
-- which wakes a worker that waits there. (A claim that is merely left alone is found by the look for
-- stale ones, seconds later.)
--
-- KEYS  1 ready stream, 2 prefix of the task hashes
-- ARGV  the entries
-- Returns how many were given back: those whose tasks still wait under that entry.
--
-- The task hashes are named by what the stream holds, so only their prefix can be declared. It has
-- the hash tag of the other keys, so they are on the same node of a cluster.
local call = redis.call
local ready, prefix = KEYS[1], KEYS[2]

local given_back = 0
for _, entry in ipairs(ARGV) do
  local found = call('XRANGE', ready, entry, entry)[1]
  local task = found and found[2][1] == 'task' and found[2][2]
  -- A task that was canceled or started meanwhile has another place, and no use for this one.
  if task and redis.pcall('HGET', prefix .. task, 'place') == 'ready:' .. entry
      and call('XACK', ready, 'workers', entry) == 1 then
    call('XDEL', ready, entry)
    local again = call('XADD', ready, '*', unpack(found[2]))
    call('HSET', prefix .. task, 'place', 'ready:' .. again)
    given_back = given_back + 1
  end
end
return given_back
