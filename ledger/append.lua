-- Appends events: the only thing that changes a task. Carries out a batch of items, in order; for
-- each one atomically: compare the version, write the events, save the snapshot, and move the task
-- from its old place to its new one. It knows places, not statuses.
--
-- KEYS  1 events stream, 2 due, 3 leases, 4 counters,
--       then for each item: its task hash, its ready stream, and more where its place says so
-- ARGV  for each item:
--         task id, expected version, commit, at (ms), meta (JSON),
--         submission ("" keeps the stored one, "=" takes the first event's data),
--         state (JSON), then its new place, as kind, number, name:
--           keep  0          ""            stay where it is
--           ready queue_max  queue name    refused when so many wait there already; 0 = no bound
--           ready:n queue_max queue name   as ready, and its position in the queue is told; n keys
--                                          follow the item's two: the more urgent ready streams
--           due   at_ms      ""
--           lease lease_ms   attempt       from now on, by this server's clock
--           none  0          ""
--         the number of events n, then n times: type, data (JSON)
-- Returns for each item: the position of its last event (a string; after a space its position in
-- the queue, where it was asked for), or the task's version when it is not the expected one, or -1
-- when the queue is full, or -2 when its task hash or its ready stream is something else, or its
-- version is no number.
--
-- An item whose commit is the task's last one was applied before, and its reply lost: it is
-- answered again, not applied again.

local events, due, leases, counters = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local call = redis.call

-- A command that fails half-way leaves the half that was done, so what could fail is looked at
-- before anything is written: is each key of the kind that it must be? (Once a batch for each.)
local known_kinds = {}
local function holds(key, kind)
  local found = known_kinds[key]
  if not found then
    found = call('TYPE', key).ok
    known_kinds[key] = found
  end
  return found == kind or found == 'none'
end
if not (holds(events, 'stream') and holds(due, 'zset') and holds(leases, 'zset')
    and holds(counters, 'hash')) then
  return redis.error_reply('WRONGTYPE the events, due, leases or counters key of this partition '
    .. 'holds something else')
end

local now_ms
local function server_ms()
  if not now_ms then
    local time = call('TIME')
    now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
  end
  return now_ms
end

-- What the batch takes out of ready streams, and what it takes out of the leases and puts there.
-- Done at its end: one command for many members costs a fraction of one for each.
local left_ready, left_leases, leased = {}, {}, {}

-- A place is stored as `ready:<entry>:<number in queue>`, `due:<member>`, `lease:<member>` or ''.
local function leave(place, ready)
  local kind, member = string.match(place, '^(%a+):(.*)$')
  if kind == 'ready' then
    local entries = left_ready[ready] or {}
    left_ready[ready] = entries
    entries[#entries + 1] = string.match(member, '^[^:]+')
  elseif kind == 'due' then
    call('ZREM', due, member)
  elseif kind == 'lease' then
    left_leases[#left_leases + 1] = member
  end
end

local function enter(kind, number, name, task, ready)
  if kind == 'ready' then
    local entered = call('HINCRBY', counters, 'entered:' .. name, 1)
    local entry = call('XADD', ready, '*', 'task', task, 'n', entered)
    return 'ready:' .. entry .. ':' .. entered, entered
  elseif kind == 'due' then
    call('ZADD', due, number, task)
    return 'due:' .. task
  elseif kind == 'lease' then
    local member = task .. ':' .. name
    local at = #leased
    leased[at + 1], leased[at + 2] = server_ms() + number, member
    return 'lease:' .. member
  end
  return ''
end

-- As position.lua tells it.
local function queue_position(entered, name, first_key, last_key)
  local position = entered - (call('HGET', counters, 'taken:' .. name) or 0)
  for i = first_key, last_key do
    position = position + call('XLEN', KEYS[i])
  end
  return position
end

local replies = {}
local argument, key, item = 1, 5, 1
local last_of_all = #ARGV
while argument <= last_of_all do
  local task, expected, commit, at, meta, submission, state, kind, number, name, count =
    unpack(ARGV, argument, argument + 10)
  local first, last_argument = argument + 11, argument + 10 + 2 * count
  argument = last_argument + 1
  local hash, ready = KEYS[key], KEYS[key + 1]
  local first_ahead = key + 2
  local ahead = string.match(kind, '^ready:(%d)$')
  if ahead then
    kind = 'ready'
  end
  key = first_ahead + (ahead or 0)

  local stored = redis.pcall('HMGET', hash, 'version', 'commit', 'place', 'last')
  local version, place, last = stored[1] or '0', stored[3] or '', stored[4] or ''
  if stored.err or not holds(ready, 'stream') then
    replies[item] = -2
  elseif version ~= expected then
    if stored[2] == commit then
      replies[item] = last
    else
      replies[item] = tonumber(version) or -2
    end
  elseif kind == 'ready' and number ~= '0' and call('XLEN', ready) >= tonumber(number) then
    replies[item] = -1
  else
    for i = first, last_argument, 2 do
      version = version + 1
      last = call('XADD', events, '*', 'type', ARGV[i], 'task', task, 'version', version,
        'at', at, 'data', ARGV[i + 1], 'meta', meta, 'prev', last)
    end
    local entered
    if kind ~= 'keep' then
      leave(place, ready)
      place, entered = enter(kind, number, name, task, ready)
    end
    if submission == '' then
      call('HSET', hash, 'version', version, 'state', state, 'place', place,
        'commit', commit, 'last', last)
    else
      if submission == '=' then
        submission = ARGV[first + 1]
      end
      call('HSET', hash, 'version', version, 'submission', submission, 'state', state,
        'place', place, 'commit', commit, 'last', last)
    end
    replies[item] = last
    if ahead then
      replies[item] = string.format('%s %d', last,
        queue_position(entered, name, first_ahead, key - 1))
    end
  end
  item = item + 1
end

for ready, entries in pairs(left_ready) do
  call('XACK', ready, 'workers', unpack(entries))
  call('XDEL', ready, unpack(entries))
end
-- In this order, so that a task that is started and ended in one batch holds no lease after it.
if #leased > 0 then
  call('ZADD', leases, unpack(leased))
end
if #left_leases > 0 then
  call('ZREM', leases, unpack(left_leases))
end
return replies
