-- Takes tasks from ready streams through their consumer group, the most urgent queue first, and
-- returns them with their snapshots. An entry stays in the group's pending list until the append
-- of TaskStarted removes it; entries that stay there too long are taken again (stale). What is taken
-- is made good from the backlogs. After queues.lua.
--
-- KEYS  1-4 as queues.lua has them
-- ARGV  1 staged_max, 2 the priorities, the most urgent first, with a comma after each, 3 how many to
--       take, 4 min idle (ms): 0 takes new entries, else pending ones so long idle, 5 number of
--       queues, then their names in the order of urgency,
--       for stale ones then for each queue: the cursor of its stale entries ('0-0' = start),
--       for new ones, for each entry that a blocking read has delivered already:
--         index of its queue (1 = the first), entry, task id
-- Returns {cursors, taken}: cursors, one for each queue (for new entries instead: how many more looks
--       it may take to pass over all kb_ids at their limits; 0: all were looked at); taken, flat, six
--       for each:
--       index of its queue, entry, task id, version, submission, state
--       (the last three false when the task is gone; version is the server's error when its key holds
--       something else).

local wanted, min_idle, queue_count = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])

local function queue_at(index)
  return ARGV[5 + index]
end

local taken = {}
local function take(index, entry, task)
  local snapshot = {false, false, false}
  if task then
    -- Whatever stands under that key, one bad entry must not keep the others from being served.
    local found = pcall_redis('HMGET', prefix .. 'task:' .. task, 'version', 'submission', 'state')
    snapshot = found.err and {found.err, false, false} or found
  end
  local at = #taken
  taken[at + 1], taken[at + 2], taken[at + 3] = index, entry, task or ''
  taken[at + 4], taken[at + 5], taken[at + 6] = snapshot[1], snapshot[2], snapshot[3]
end

-- An entry is {id, {'task', id, …}}; anything else is served as a task that is gone.
local function take_all(index, entries)
  for _, entry in ipairs(entries) do
    local fields = entry[2]
    take(index, entry[1], fields and fields[1] == 'task' and fields[2])
  end
  return #entries
end

local function read_new(index, count)
  local ready = ready_of(queue_at(index))
  local reply = pcall_redis('XREADGROUP', 'GROUP', 'workers', 'worker', 'COUNT', count,
    'STREAMS', ready, '>')
  if reply and reply.err and string.find(tostring(reply.err), 'WRONGTYPE', 1, true) then
    return 0
  end
  if reply and reply.err then
    -- The first reader of a stream makes its group, from the beginning.
    call('XGROUP', 'CREATE', ready, 'workers', '0', 'MKSTREAM')
    reply = call('XREADGROUP', 'GROUP', 'workers', 'worker', 'COUNT', count, 'STREAMS', ready, '>')
  end
  if not reply then
    return 0
  end
  idle = nil
  return take_all(index, reply[1][2])
end

-- Asked once for all, since mostly there is none.
local backlogs = {}
for index = 1, queue_count do
  backlogs[index] = backlog_of(queue_at(index))
end
local function is_hash(key)
  local kind = call('TYPE', key).ok
  return kind == 'hash' or kind == 'none'
end
-- Nothing moves where it could not be written down.
local any_backlog = min_idle == 0 and call('EXISTS', unpack(backlogs)) > 0
  and is_hash(admitted) and is_hash(limits)

-- What is staged, and then, as far as it goes, what must be staged for it.
local function read_queue(index)
  local got = read_new(index, wanted)
  if any_backlog and got < wanted and refill(queue_at(index), wanted - got, ARGV[2]) > 0 then
    got = got + read_new(index, wanted - got)
  end
  return got
end

local function read_stale(index, cursor)
  local reply = pcall_redis('XAUTOCLAIM', ready_of(queue_at(index)), 'workers', 'worker', min_idle,
    cursor, 'COUNT', wanted)
  if not reply or reply.err then
    return 0, '0-0'
  end
  return take_all(index, reply[2]), reply[1]
end

if min_idle > 0 then
  local cursors = {}
  for index = 1, queue_count do
    local got, cursor = 0, ARGV[5 + queue_count + index]
    if wanted > 0 then
      got, cursor = read_stale(index, cursor)
    end
    wanted, cursors[index] = wanted - got, cursor
  end
  return {cursors, taken}
end

local read_from = {}
for at = 6 + queue_count, #ARGV, 3 do
  local index, entry, task = tonumber(ARGV[at]), ARGV[at + 1], ARGV[at + 2]
  -- Its reader may have held it for long: if it is gone, others have taken it up since.
  if #call('XRANGE', ready_of(queue_at(index)), entry, entry) > 0 then
    take(index, entry, task ~= '' and task)
    wanted = wanted - 1
  end
  read_from[index] = true
end
for index = 1, queue_count do
  local got = wanted > 0 and read_queue(index) or 0
  wanted, read_from[index] = wanted - got, read_from[index] or got > 0
end
for index = 1, queue_count do
  if any_backlog and read_from[index] then
    top_up(queue_at(index))
  end
end
settle()
-- No more kb_ids can be at their limits than there are limits.
return {{looked_at_all and 0 or math.ceil(call('HLEN', limits) / passed_over_max)}, taken}
