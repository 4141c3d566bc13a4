-- How the tasks of a queue wait; stands in front of the scripts that put them there or take them.
--
-- A queue is `<type>:<priority>`. Its tasks wait in two places. The ready stream, which workers read
-- through their consumer group, is short: at most staged_max entries that nobody has taken yet. All
-- others are in the backlog, a sorted set in the order of (kb_id, age), and move to the ready stream
-- one of each kb_id in turn. So whoever submits 100,000 tasks delays another's first one by the few
-- that are staged, and by one for each kb_id that waits.
--
-- A task that is staged or running is admitted. A limit bounds how many of one type or of one kb_id
-- are; it is kept by staging no more.
--
-- KEYS  1 prefix of the partition's keys, 2 counters, 3 admitted, 4 limits
-- ARGV  1 staged_max
--
-- Ready streams, backlogs and the hashes of the tasks that move are named by what the partition
-- holds, so only their prefix can be declared. It has the hash tag of the other keys, so they are on
-- the same node of a cluster.

local prefix, counters, admitted, limits = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local staged_max = tonumber(ARGV[1])
local call, pcall_redis = redis.call, redis.pcall

-- How many kb_ids at their limits one refill passes over; the next one goes on from there.
local passed_over_max = 100
-- Ages begin above so many, to have room below for what goes back to the front of a backlog.
local first_age = 1000
-- How many arguments one command is given at most.
local arguments_max = 1000

local function ready_of(queue)
  return prefix .. 'ready:' .. queue
end

local function backlog_of(queue)
  return prefix .. 'backlog:' .. queue
end

local type_names = {}
local function type_of(queue)
  local name = type_names[queue]
  if not name then
    name = 'type:' .. string.match(queue, '^(.*):')
    type_names[queue] = name
  end
  return name
end

-- Admission. -----------------------------------------------------------------------------------

local admitted_by, admitted_before, limit_of = {}, {}, {}
local any_limit
-- The age of the youngest task that was ever held in a backlog, once it was asked for.
local ages

local function admit(queue, kb, by)
  local kind, owner = type_of(queue), 'kb:' .. kb
  admitted_by[kind] = (admitted_by[kind] or 0) + by
  admitted_by[owner] = (admitted_by[owner] or 0) + by
end

-- Whether there are limits at all: the hash holds its own version too.
local function limited()
  if any_limit == nil then
    any_limit = call('HLEN', limits) > 1
  end
  return any_limit
end

local function is_limited(name)
  if limit_of[name] == nil then
    local limit = limited() and tonumber(call('HGET', limits, name) or '') or false
    limit_of[name] = limit
    admitted_before[name] = limit and tonumber(call('HGET', admitted, name) or '') or 0
  end
  return limit_of[name] ~= false
end

-- How many more of `type:<type>` or `kb:<kb_id>` may be admitted.
local function room(name)
  if not is_limited(name) then
    return arguments_max
  end
  return limit_of[name] - admitted_before[name] - (admitted_by[name] or 0)
end

-- Writes down what was admitted, what has left and what was held; done once, at the end of a script.
local function settle()
  for name, by in pairs(admitted_by) do
    local count = by ~= 0 and pcall_redis('HINCRBY', admitted, name, by)
    if type(count) == 'table' then
      -- What stands there is no number: counting begins anew.
      call('HSET', admitted, name, by)
      count = by
    end
    if count and count <= 0 then
      call('HDEL', admitted, name)
    end
  end
  if ages then
    call('HSET', counters, 'held', ages)
  end
end

-- Ready streams and backlogs. ------------------------------------------------------------------

-- Writes down, once in a script, that a queue has been used: that is how all of them are found.
local noted_queues = {}
local function note(queue)
  if not noted_queues[queue] then
    call('HSETNX', counters, 'used:' .. queue, 1)
    noted_queues[queue] = true
  end
end

-- Puts tasks of one kb_id into the ready stream; returns their new places.
local function stage(queue, kb, tasks)
  note(queue)
  local ready, places = ready_of(queue), {}
  for i, task in ipairs(tasks) do
    places[i] = 'ready:' .. call('XADD', ready, '*', 'task', task, 'kb', kb)
  end
  admit(queue, kb, #tasks)
  return places
end

-- Puts a task into the backlog; returns its new place. A member is its owner (the kb_id, with its
-- length before it, so that no owner begins with another), its age and its id.
local function owner_named(kb)
  return string.format('%04d', #kb) .. kb
end

local function next_age()
  ages = (ages or tonumber(call('HGET', counters, 'held') or '') or first_age) + 1
  return ages
end

local function hold(queue, task, kb, age)
  note(queue)
  -- Not one format of all: Lua 5.1 ends a %s at a zero byte.
  local member = owner_named(kb) .. string.format('%012d', age) .. task
  call('ZADD', backlog_of(queue), 0, member)
  return 'backlog:' .. member
end

local function owner_of(member)
  return string.sub(member, 1, 4 + tonumber(string.sub(member, 1, 4)))
end

local function held_in(queue)
  local held = pcall_redis('ZCARD', backlog_of(queue))
  return type(held) == 'number' and held or 0
end

-- Whether the keys of a queue are of the kind that they must be. A command that fails half-way would
-- leave a task in neither of them, so it is asked before anything moves.
local sound_queues = {}
local function is_sound(queue)
  if sound_queues[queue] == nil then
    local ready, backlog = call('TYPE', ready_of(queue)).ok, call('TYPE', backlog_of(queue)).ok
    sound_queues[queue] = (ready == 'stream' or ready == 'none')
      and (backlog == 'zset' or backlog == 'none')
  end
  return sound_queues[queue]
end

-- How many tasks of an owner a backlog holds.
local function held_by(queue, owner)
  return call('ZLEXCOUNT', backlog_of(queue), '[' .. owner, '(' .. owner .. '\255')
end

-- Entries of the ready stream that nobody has taken yet. (They are that or pending.)
local function untaken(queue, length)
  local pending = length > 0 and pcall_redis('XPENDING', ready_of(queue), 'workers')
  return length - (pending and not pending.err and pending[1] or 0)
end

-- The first member of the owner that comes after `turn`, in a circle.
local function next_in_turn(backlog, turn)
  local found = {}
  if turn ~= '' then
    found = call('ZRANGEBYLEX', backlog, '(' .. turn .. '\255', '+', 'LIMIT', 0, 1)
  end
  if #found == 0 then
    found = call('ZRANGEBYLEX', backlog, '-', '+', 'LIMIT', 0, 1)
  end
  return found[1]
end

-- Whatever stands under the task's key, it must not keep others waiting; a claim says what it is.
local function set_place(task, place)
  local hash = prefix .. 'task:' .. task
  if pcall_redis('HSET', hash, 'place', place) == 1 then
    call('DEL', hash)
  end
end

local function move_to_stage(queue, owner, members)
  local tasks = {}
  call('ZREM', backlog_of(queue), unpack(members))
  for i, member in ipairs(members) do
    tasks[i] = string.sub(member, #owner + 13)
  end
  for i, place in ipairs(stage(queue, string.sub(owner, 5), tasks)) do
    set_place(tasks[i], place)
  end
end

-- Entries that nobody has taken yet, of one queue: those after what its readers have got to.
local function untaken_entries(queue)
  local ready, last = ready_of(queue), '0-0'
  local groups = pcall_redis('XINFO', 'GROUPS', ready)
  if groups.err or not is_sound(queue) then
    return {}
  end
  for _, group in ipairs(groups) do
    for i = 1, #group, 2 do
      if group[i] == 'last-delivered-id' then
        last = group[i + 1]
      end
    end
  end
  return call('XRANGE', ready, '(' .. last, '+')
end

-- All queues that were ever used, the least urgent first; looked for once in a script.
local all_queues
local function known_queues(priorities)
  if all_queues then
    return all_queues
  end
  local rank, ranks = {}, 0
  for priority in string.gmatch(priorities, '([^,]+),') do
    ranks = ranks + 1
    rank[priority] = ranks
  end
  all_queues = {}
  for _, field in ipairs(call('HKEYS', counters)) do
    local queue, priority = string.match(field, '^used:(.*:([^:]+))$')
    if queue and rank[priority] and is_sound(queue) then
      all_queues[#all_queues + 1] = { name = queue, rank = rank[priority] }
    end
  end
  table.sort(all_queues, function(a, b)
    return a.rank > b.rank or a.rank == b.rank and a.name < b.name
  end)
  return all_queues
end

-- Puts an entry that nobody has taken back to the front of its kb_id's backlog.
local function take_back(queue, entry, task, kb)
  local owner = owner_named(kb)
  local first = call('ZRANGEBYLEX', backlog_of(queue), '[' .. owner, '(' .. owner .. '\255',
    'LIMIT', 0, 1)[1]
  local age = first and tonumber(string.sub(first, #owner + 1, #owner + 12)) - 1 or next_age()
  call('XDEL', ready_of(queue), entry)
  set_place(task, hold(queue, task, kb, age))
  admit(queue, kb, -1)
end

-- What stands in line and nobody has taken: all, by kb_id and by type, of the least urgent queue first, the
-- youngest first. Looked for once, and again after entries were taken.
local idle
local function add_idle(name, entry)
  local entries = idle[name] or {}
  idle[name] = entries
  entries[#entries + 1] = entry
end

local function find_idle(priorities)
  idle = {}
  for _, queue in ipairs(known_queues(priorities)) do
    local entries = untaken_entries(queue.name)
    for i = #entries, 1, -1 do
      local id, fields = entries[i][1], entries[i][2]
      if fields[1] == 'task' and fields[3] == 'kb' then
        local entry = { queue = queue.name, rank = queue.rank, id = id, task = fields[2], kb = fields[4] }
        add_idle('all', entry)
        add_idle('kb:' .. entry.kb, entry)
        add_idle(type_of(queue.name), entry)
      end
    end
  end
end

-- A task that stands in line counts against limits before anybody has taken it, and its type may be
-- paused, or have no worker. A worker that would run another one at once goes first: those of the
-- same kb_id in other queues, and those of the same type that are less urgent, are taken back, as many
-- as are in its way. Returns whether that makes room; if it does not, nothing is taken back.
local function make_room(kb, queue, priorities)
  if not idle then
    find_idle(priorities)
  end
  local kind, in_the_way, is_chosen = type_of(queue), {}, {}
  local of_kb, of_type = 1 - room('kb:' .. kb), 1 - room(kind)
  for _, entry in ipairs(idle['kb:' .. kb] or {}) do
    if of_kb > 0 and not entry.gone and entry.queue ~= queue then
      in_the_way[#in_the_way + 1], is_chosen[entry], of_kb = entry, true, of_kb - 1
      if type_of(entry.queue) == kind then
        of_type = of_type - 1
      end
    end
  end
  local rank
  for _, known in ipairs(known_queues(priorities)) do
    rank = known.name == queue and known.rank or rank
  end
  for _, entry in ipairs(of_type > 0 and idle[kind] or {}) do
    if of_type > 0 and not entry.gone and not is_chosen[entry] and entry.rank > rank then
      in_the_way[#in_the_way + 1], of_type = entry, of_type - 1
    end
  end
  if of_kb > 0 or of_type > 0 then
    return false
  end
  for _, entry in ipairs(in_the_way) do
    take_back(entry.queue, entry.id, entry.task, entry.kb)
    entry.gone = true
  end
  return true
end

-- False once a refill has passed over so many kb_ids that it left others for the next one.
local looked_at_all = true

-- Moves up to `wanted` tasks from the backlog to the ready stream, as far as limits let it; returns
-- how many. They will be taken at once when `priorities` are given.
local function refill(queue, wanted, priorities)
  local held = wanted > 0 and held_in(queue) or 0
  local kind = type_of(queue)
  if held == 0 or not is_sound(queue) or room(kind) < 1 and not priorities then
    return 0
  end
  local backlog, turn_field = backlog_of(queue), 'turn:' .. queue
  local turn = call('HGET', counters, turn_field) or ''
  local last_turn, moved, passed_over, first_passed_over = turn, 0, 0, nil
  while moved < wanted and held > 0 and passed_over < passed_over_max do
    local first = next_in_turn(backlog, turn)
    local owner = owner_of(first)
    local kb, alone = string.sub(owner, 5), owner == turn
    turn = owner
    local free = math.min(room('kb:' .. kb), room(kind), wanted - moved)
    if free < 1 and priorities and make_room(kb, queue, priorities) then
      free = 1
    end
    if free > 0 then
      local members = {first}
      if alone and free > 1 then
        members = call('ZRANGEBYLEX', backlog, '[' .. first, '(' .. owner .. '\255', 'LIMIT', 0,
          math.min(free, arguments_max))
      end
      move_to_stage(queue, owner, members)
      moved, held = moved + #members, held - #members
      last_turn, first_passed_over = turn, nil
    elseif alone or owner == first_passed_over then
      break
    else
      passed_over, first_passed_over = passed_over + 1, first_passed_over or owner
    end
  end
  if passed_over == passed_over_max then
    last_turn, looked_at_all = turn, false
  end
  if moved > 0 or passed_over == passed_over_max then
    call('HSET', counters, turn_field, last_turn)
  end
  return moved
end

-- Leaves as many entries for others to find as a ready stream should hold. Where something waits in
-- a backlog that may be admitted, whoever sleeps on the ready stream must be woken.
local function top_up(queue)
  if held_in(queue) > 0 and is_sound(queue) then
    refill(queue, staged_max - untaken(queue, call('XLEN', ready_of(queue))))
  end
end

-- The queues of the same type, the most urgent first.
local function siblings(queue, priorities)
  local prefix_of_type, found = string.match(queue, '^.*:'), {}
  for priority in string.gmatch(priorities, '([^,]+),') do
    found[#found + 1] = prefix_of_type .. priority
  end
  return found
end

-- Queues with a backlog, the most urgent first, and of equal ones those after `freed_by` first.
local function backlogs_after(freed_by, priorities)
  local found = {}
  for _, queue in ipairs(known_queues(priorities)) do
    if held_in(queue.name) > 0 then
      found[#found + 1] = queue
    end
  end
  table.sort(found, function(a, b)
    if a.rank ~= b.rank then
      return a.rank < b.rank
    end
    local a_later, b_later = a.name > freed_by, b.name > freed_by
    if a_later ~= b_later then
      return a_later
    end
    return a.name < b.name
  end)
  return found
end

-- A place of a kb_id at its limit has become free: the most urgent task that it has anywhere moves up,
-- task types taking turns from the one that freed it on.
local function offer_place(kb, freed_by, priorities)
  local owner = owner_named(kb)
  for _, queue in ipairs(backlogs_after(freed_by, priorities)) do
    if room('kb:' .. kb) < 1 then
      return
    end
    local first = call('ZRANGEBYLEX', backlog_of(queue.name), '[' .. owner, '(' .. owner .. '\255',
      'LIMIT', 0, 1)
    if #first > 0 and room(type_of(queue.name)) > 0
        and untaken(queue.name, call('XLEN', ready_of(queue.name))) < staged_max then
      move_to_stage(queue.name, owner, first)
    end
  end
end

-- What stands in line beyond a limit, and nobody has taken, goes back; what limits let moves up.
local function keep_limits(priorities)
  find_idle(priorities)
  for _, entry in ipairs(idle.all or {}) do
    if room(type_of(entry.queue)) < 0 or room('kb:' .. entry.kb) < 0 then
      take_back(entry.queue, entry.id, entry.task, entry.kb)
    end
  end
  local queues = known_queues(priorities)
  for i = #queues, 1, -1 do
    top_up(queues[i].name)
  end
end
