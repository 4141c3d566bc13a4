-- What is taken before a waiting task; stands in front of the scripts that tell it. After queues.lua.
--
-- A position may be high, never low, as long as nothing new comes and no limit holds anything back.
-- What it is told from is read once a script: they ask for many at a time.

-- How many kb_ids of a backlog are looked at one by one; all of any others is taken to be ahead.
local owners_max = 100

local function waiting_in(queue)
  local length = pcall_redis('XLEN', ready_of(queue))
  return (type(length) == 'number' and length or 0) + held_in(queue)
end

local function waiting_in_more_urgent(queue, priorities)
  local waiting = 0
  for _, sibling in ipairs(siblings(queue, priorities)) do
    if sibling == queue then
      break
    end
    waiting = waiting + waiting_in(sibling)
  end
  return waiting
end

local known_lines = {}
local function line_of(queue, priorities)
  local line = known_lines[queue]
  if not line then
    line = { more_urgent = waiting_in_more_urgent(queue, priorities), length = 0, rank = {} }
    for rank, entry in ipairs(untaken_entries(queue)) do
      line.length, line.rank[entry[1]] = rank, rank
    end
    known_lines[queue] = line
  end
  return line
end

-- The owners in a backlog in the order of their turns, how many each has, and how many others have.
local function look_at_owners(queue, line)
  line.owners, line.counts, line.others = {}, {}, held_in(queue)
  local turn = call('HGET', counters, 'turn:' .. queue) or ''
  while line.others > 0 and #line.owners < owners_max do
    turn = owner_of(next_in_turn(backlog_of(queue), turn))
    local at, count = #line.owners + 1, held_by(queue, turn)
    line.owners[at], line.counts[at], line.others = turn, count, line.others - count
  end
end

-- Behind all that stand in line. Owners whose turn comes before its own have one more of theirs
-- ahead than the task has of its own, the others as many.
local function position_in_backlog(queue, member, line)
  if not line.owners then
    look_at_owners(queue, line)
  end
  local owner = owner_of(member)
  local before = call('ZLEXCOUNT', backlog_of(queue), '[' .. owner, '(' .. member)
  local position, at_most, is_known = line.length + before + 1 + line.others, before + 1, false
  for at, other in ipairs(line.owners) do
    if other == owner then
      at_most, is_known = before, true
    else
      position = position + math.min(line.counts[at], at_most)
    end
  end
  return is_known and position or position - held_by(queue, owner)
end

-- 1 for the next task of its type and partition to be taken; 0 when it waits in no queue, and when a
-- worker has taken it already.
local function position_of(hash, queue, priorities)
  local kind, member = string.match(call('HGET', hash, 'place') or '', '^(%a+):(.*)$')
  if kind ~= 'ready' and kind ~= 'backlog' then
    return 0
  end
  local line = line_of(queue, priorities)
  local position = kind == 'ready' and line.rank[member] or 0
  if kind == 'backlog' then
    position = position_in_backlog(queue, member, line)
  end
  return position > 0 and position + line.more_urgent or 0
end
