-- Appends events: the only thing that changes a task. Carries out a batch of items, in order; for
-- each one atomically: compare the version, write the events, save the snapshot, and move the task
-- from its old place to its new one. It knows places, not statuses. After queues.lua, positions.lua,
-- entries.lua.
--
-- KEYS  1-4 as queues.lua has them, 5 events stream, 6 due, 7 leases, then for each item its task hash
-- ARGV  1 staged_max, 2 the priorities, the most urgent first, with a comma after each,
--       then for each item:
--         task id, expected version, commit, at (ms), meta (JSON), queue, kb_id,
--         submission ("" keeps the stored one, "=" takes the first event's data, and an entry behind
--         that says up to where it is known that no such task was evicted; anything else is put in
--         the place of the stored one),
--         state (JSON), then its new place, as kind, number, name:
--           keep  0          ""            stay where it is
--           ready queue_max  ""            refused when so many wait there already; 0 = no bound
--           ready queue_max  tell          as ready, and its position in the queue is told
--           due   at_ms      ""
--           lease lease_ms   attempt       from now on, by this server's clock
--           callback at_ms   host          in the host's line, see callbacks.lua; at once, where it
--                                          comes from another place
--           none  0          ""
--         the number of events n, then n times: type, data (JSON)
-- Returns for each item: the position of its last event (a string; after a space its position in
-- the queue, where it was asked for), or the task's version when it is not the expected one, or
--   -1  when the queue is full
--   -2  when its task hash, or a key of its queue or of its host's line, is something else, or its
--       version is no number
--   -3  when a task would be started out of a backlog past a limit
--   -4  when the task may have been evicted, as far as is known
--
-- An item whose commit is the task's last one was applied before, and its reply lost: it is
-- answered again, not applied again.

local events, due, leases = KEYS[5], KEYS[6], KEYS[7]
local priorities = ARGV[2]

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
    and holds(counters, 'hash') and holds(admitted, 'hash') and holds(limits, 'hash')) then
  return redis.error_reply('WRONGTYPE the events, due, leases, counters, admitted or limits key of '
    .. 'this partition holds something else')
end

local callbacks, bell = prefix .. 'callbacks', prefix .. 'callback-bell'
local function line_of(host)
  return prefix .. 'callbacks:' .. host
end

-- Whether the item may leave or enter a host's line.
local function line_is_sound(host)
  return holds(callbacks, 'zset') and holds(bell, 'list') and holds(line_of(host), 'zset')
end

local now_ms
local function server_ms()
  if not now_ms then
    local time = call('TIME')
    now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
  end
  return now_ms
end

-- What is known of a queue that something enters or leaves, looked at once a batch.
local queues = {}
local function look_at(queue)
  local known = queues[queue]
  if not known then
    local ready = ready_of(queue)
    known = { sound = holds(ready, 'stream') and holds(backlog_of(queue), 'zset') }
    queues[queue] = known
  end
  return known
end

local function count(known, queue)
  if not known.length then
    known.length = call('XLEN', ready_of(queue))
    known.untaken = known.length < staged_max and known.length or untaken(queue, known.length)
    known.held = held_in(queue)
  end
end

-- What the batch takes out of ready streams, and what it takes out of the leases and puts there.
-- Done at its end: one command for many members costs a fraction of one for each.
local left_ready, left_leases, leased = {}, {}, {}
-- Types whose backlogs may move up at the end, each with one of its queues; and kb_ids that have a
-- place of their limit free again, each with the queue that freed it.
local loosened, kbs_with_room = {}, {}

-- A place is stored as `ready:<entry>`, `backlog:<member>`, `due:<member>`, `lease:<member>`,
-- `callback:<host>` or ''.
local function leave(place, task, queue, kb, kind)
  local old, member = string.match(place, '^(%a+):(.*)$')
  if old == 'ready' then
    local known = look_at(queue)
    if known.length then
      known.length = known.length - 1
    end
    local entries = left_ready[queue] or {}
    left_ready[queue] = entries
    -- Older ledgers have the entry's number behind it.
    entries[#entries + 1] = string.match(member, '^[^:]+')
    admit(queue, kb, -1)
    if kind ~= 'lease' then
      loosened[type_of(queue)] = queue
    end
  elseif old == 'lease' then
    left_leases[#left_leases + 1] = member
    admit(queue, kb, -1)
    if limited() then
      loosened[type_of(queue)], kbs_with_room[kb] = queue, queue
    end
  elseif old == 'due' then
    call('ZREM', due, member)
  elseif old == 'backlog' then
    call('ZREM', backlog_of(queue), member)
  elseif old == 'callback' then
    call('ZREM', line_of(member), task)
    if call('EXISTS', line_of(member)) == 0 then
      call('ZREM', callbacks, member)
    end
  end
end

-- Whether a host has news to come that had none.
local news = false

-- News is for now, also where its time is from before this server's clock was set back.
local function enter_line(host, at, task, before)
  if string.sub(before, 1, 9) ~= 'callback:' then
    at = math.min(at, server_ms() + 1000)
    news = true
  end
  call('ZADD', line_of(host), string.format('%.0f', at), task)
  call('ZADD', callbacks, 'LT', string.format('%.0f', at), host)
  return 'callback:' .. host
end

-- Behind others that wait, unless those are at their limits: what could move up has done so.
local function enter_queue(task, queue, kb, known)
  if known.untaken < staged_max and room(type_of(queue)) > 0 and room('kb:' .. kb) > 0
      and (known.held == 0 or limited() and held_by(queue, owner_named(kb)) == 0) then
    known.length, known.untaken = known.length + 1, known.untaken + 1
    return stage(queue, kb, {task})[1]
  end
  known.held = known.held + 1
  return hold(queue, task, kb, next_age())
end

-- Returns the place to be stored.
local function enter(kind, number, name, task, queue, kb, known, before)
  if kind == 'ready' then
    return enter_queue(task, queue, kb, known)
  elseif kind == 'due' then
    call('ZADD', due, number, task)
    return 'due:' .. task
  elseif kind == 'lease' then
    local member = task .. ':' .. name
    local at = #leased
    leased[at + 1], leased[at + 2] = server_ms() + number, member
    admit(queue, kb, 1)
    return 'lease:' .. member
  elseif kind == 'callback' then
    return enter_line(name, number, task, before)
  end
  return ''
end

-- Up to where finished tasks were let go of; looked up once a batch.
local archive = prefix .. 'archive'
local evicted_up_to
local function may_be_evicted(absent_as_of)
  if evicted_up_to == nil then
    evicted_up_to = holds(archive, 'hash') and call('HGET', archive, 'evicted')
  end
  return evicted_up_to and is_before(absent_as_of, evicted_up_to)
end

local replies, told = {}, {}
local argument, key, item = 3, 8, 1
local last_of_all = #ARGV
while argument <= last_of_all do
  local task, expected, commit, at, meta, queue, kb, submission, state, kind, number, name, n =
    unpack(ARGV, argument, argument + 12)
  local first, last_argument = argument + 13, argument + 12 + 2 * n
  argument = last_argument + 1
  local hash, known = KEYS[key], look_at(queue)
  key = key + 1
  if kind == 'ready' and known.sound then
    count(known, queue)
  end

  local stored = pcall_redis('HMGET', hash, 'version', 'commit', 'place', 'last')
  local version, place, last = stored[1] or '0', stored[3] or '', stored[4] or ''
  local leaves_line = kind ~= 'lease' and string.sub(place, 1, 9) == 'callback:'
  if stored.err or not known.sound or kind == 'callback' and not line_is_sound(name)
      or leaves_line and not line_is_sound(string.sub(place, 10)) then
    replies[item] = -2
  elseif version ~= expected then
    if stored[2] == commit then
      replies[item] = last
    else
      replies[item] = tonumber(version) or -2
    end
  elseif version == '0' and #submission > 1 and may_be_evicted(string.sub(submission, 2)) then
    replies[item] = -4
  elseif kind == 'ready' and number ~= '0' and known.length + known.held >= tonumber(number) then
    replies[item] = -1
  elseif kind == 'lease' and string.sub(place, 1, 8) == 'backlog:'
      and (room(type_of(queue)) < 1 or room('kb:' .. kb) < 1) then
    -- By a claim from before it went back there.
    replies[item] = -3
  else
    for i = first, last_argument, 2 do
      version = version + 1
      last = call('XADD', events, '*', 'type', ARGV[i], 'task', task, 'version', version,
        'at', at, 'data', ARGV[i + 1], 'meta', meta, 'prev', last)
    end
    if kind ~= 'keep' then
      leave(place, task, queue, kb, kind)
      place = enter(kind, number, name, task, queue, kb, known, place)
    end
    if submission == '' then
      call('HSET', hash, 'version', version, 'state', state, 'place', place,
        'commit', commit, 'last', last)
    else
      if string.sub(submission, 1, 1) == '=' then
        submission = ARGV[first + 1]
      end
      call('HSET', hash, 'version', version, 'submission', submission, 'state', state,
        'place', place, 'commit', commit, 'last', last)
    end
    replies[item] = last
    if kind == 'ready' and name == 'tell' then
      told[#told + 1] = {item = item, hash = hash, queue = queue}
    end
  end
  item = item + 1
end

for queue, entries in pairs(left_ready) do
  call('XACK', ready_of(queue), 'workers', unpack(entries))
  call('XDEL', ready_of(queue), unpack(entries))
end
-- In this order, so that a task that is started and ended in one batch holds no lease after it.
if #leased > 0 then
  call('ZADD', leases, unpack(leased))
end
if #left_leases > 0 then
  call('ZREM', leases, unpack(left_leases))
end
-- Where a place became free the next task moves up now: nobody may come to look.
for kb, queue in pairs(kbs_with_room) do
  if is_limited('kb:' .. kb) then
    offer_place(kb, queue, priorities)
  end
end
for _, queue in pairs(loosened) do
  for _, sibling in ipairs(siblings(queue, priorities)) do
    top_up(sibling)
  end
end
if news and call('LLEN', bell) == 0 then
  call('RPUSH', bell, '1')
end
for _, asked in ipairs(told) do
  local position = position_of(asked.hash, asked.queue, priorities)
  replies[asked.item] = string.format('%s %d', replies[asked.item], position)
end
settle()
return replies
