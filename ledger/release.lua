-- Gives back claims that nobody has started: each becomes a new entry at the end of its ready stream,
-- which wakes a worker that waits there. (A claim that is merely left alone is found by the look for
-- stale ones, seconds later.)
--
-- KEYS  1 ready stream, 2 counters, 3 prefix of the task hashes
-- ARGV  1 queue name, then the entries
-- Returns how many were given back: those whose tasks still wait under that entry.
--
-- The task hashes are named by what the stream holds, so only their prefix can be declared. It has
-- the hash tag of the other keys, so they are on the same node of a cluster.
local call = redis.call
local ready, counters, prefix, queue = KEYS[1], KEYS[2], KEYS[3], ARGV[1]

local function task_of(fields)
  return fields[1] == 'task' and fields[3] == 'n' and fields[2]
end

local given_back = 0
for i = 2, #ARGV do
  local entry = ARGV[i]
  local found = call('XRANGE', ready, entry, entry)[1]
  local task = found and task_of(found[2])
  local place = task and redis.pcall('HGET', prefix .. task, 'place')
  -- A task that was canceled or started meanwhile has another place, and no use for this one.
  if type(place) == 'string' and string.find(place, 'ready:' .. entry .. ':', 1, true) == 1
      and call('XACK', ready, 'workers', entry) == 1 then
    local fields = found[2]
    fields[4] = call('HINCRBY', counters, 'entered:' .. queue, 1)
    call('XDEL', ready, entry)
    local again = call('XADD', ready, '*', unpack(fields))
    call('HSET', prefix .. task, 'place', 'ready:' .. again .. ':' .. fields[4])
    given_back = given_back + 1
  end
end
return given_back
