-- Takes tasks from ready streams through their consumer group, the most urgent stream first, and
-- returns them with their snapshots. An entry stays in the group's pending list until the append
-- of TaskStarted removes it; entries that stay there too long are taken again (stale).
--
-- KEYS  1 counters, 2 prefix of the task hashes, then the ready streams in the order of urgency
-- ARGV  1 how many to take, 2 min idle (ms): 0 takes new entries, else pending ones so long idle,
--       3 number of entries that a blocking read has delivered already, then for each of those:
--         index of its stream (1 = the first), entry, task id, number in its queue,
--       then for each stream: its queue name, and the cursor of its stale entries ('0-0' = start)
-- Returns {cursors, taken}: cursors, one for each stream (stale only); taken, flat, six for each:
--       index of its stream, entry, task id, version, submission, state
--       (the last three false when the task is gone).
--
-- The task hashes are named by what the streams hold, so only their prefix can be declared. It has
-- the hash tag of the other keys, so they are on the same node of a cluster.

local counters, prefix = KEYS[1], KEYS[2]
local streams = #KEYS - 2
local wanted, idle, delivered = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local call, pcall_redis = redis.call, redis.pcall
local first_queue = 4 + 4 * delivered

local taken = {}
local function take(stream, entry, task)
  local snapshot = {false, false, false}
  if task then
    -- Whatever stands under that key, one bad entry must not keep the others from being served.
    local found = pcall_redis('HMGET', prefix .. task, 'version', 'submission', 'state')
    if not found.err then
      snapshot = found
    end
  end
  local at = #taken
  taken[at + 1], taken[at + 2], taken[at + 3] = stream, entry, task or ''
  taken[at + 4], taken[at + 5], taken[at + 6] = snapshot[1], snapshot[2], snapshot[3]
end

local function queue_argument(stream)
  return first_queue + 2 * (stream - 1)
end

local function count_taken(stream, number)
  call('HSET', counters, 'taken:' .. ARGV[queue_argument(stream)], number)
end

-- An entry that was delivered earlier: others may have read on since, and the count never falls.
local function count_taken_earlier(stream, number)
  local known = call('HGET', counters, 'taken:' .. ARGV[queue_argument(stream)])
  if not known or tonumber(known) < tonumber(number) then
    count_taken(stream, number)
  end
end

-- An entry is {id, {'task', id, 'n', number}}; anything else is served as a task that is gone.
local function fields_of(entry)
  local fields = entry[2]
  if fields and fields[1] == 'task' and fields[3] == 'n' and tonumber(fields[4]) then
    return fields[2], fields[4]
  end
  return false, false
end

local function read_new(stream, count)
  local ready = KEYS[stream + 2]
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
  local entries, last_number = reply[1][2], false
  for _, entry in ipairs(entries) do
    local task, number = fields_of(entry)
    take(stream, entry[1], task)
    last_number = number or last_number
  end
  if last_number then
    count_taken(stream, last_number)
  end
  return #entries
end

local function read_stale(stream, count, cursor)
  local reply = pcall_redis('XAUTOCLAIM', KEYS[stream + 2], 'workers', 'worker', idle, cursor,
    'COUNT', count)
  if not reply or reply.err then
    return 0, '0-0'
  end
  for _, entry in ipairs(reply[2]) do
    local task, number = fields_of(entry)
    take(stream, entry[1], task)
    if number then
      count_taken_earlier(stream, number)
    end
  end
  return #reply[2], reply[1]
end

for i = 0, delivered - 1 do
  local stream, entry, task, number = unpack(ARGV, 4 + 4 * i, 7 + 4 * i)
  take(tonumber(stream), entry, task ~= '' and task)
  if tonumber(number) then
    count_taken_earlier(tonumber(stream), number)
  end
  wanted = wanted - 1
end

local cursors = {}
for stream = 1, streams do
  local cursor = ARGV[queue_argument(stream) + 1]
  if wanted > 0 then
    local got
    if idle == 0 then
      got = read_new(stream, wanted)
    else
      got, cursor = read_stale(stream, wanted, cursor)
    end
    wanted = wanted - got
  end
  cursors[stream] = cursor
end
return {cursors, taken}
