-- Tells whether the counts that limits go by can be right, and if they cannot, what there is to count.
-- Changes nothing. After queues.lua.
--
-- KEYS  1-4 as queues.lua has them, 5 leases
-- ARGV  1 staged_max, 2 the priorities, the most urgent first, with a comma after each, 3 how many
--       tasks are told at most
-- Returns {} when the counts add up; {-1} when they do not, and there are more tasks; else
--       {number of recounts so far, the counts, running, staged}: the counts flat, a name and what
--       stands there; the lease members; staged flat, three for each: its type:<type>, its kb_id
--       ('' = see the task), its task id.
local leases, tasks_max = KEYS[5], tonumber(ARGV[3])
local queues = known_queues(ARGV[2])
local tasks = call('ZCARD', leases)
for _, queue in ipairs(queues) do
  tasks = tasks + call('XLEN', ready_of(queue.name))
end

-- Every task that stands in line or runs counts once for its type and once for its kb_id.
local counts, sums, is_sound_count = call('HGETALL', admitted), { type = 0, kb = 0 }, true
for i = 1, #counts, 2 do
  local scope = string.match(counts[i], '^(%a+):')
  local count = string.match(counts[i + 1], '^%d+$') and tonumber(counts[i + 1])
  if sums[scope] and count and count > 0 then
    sums[scope] = sums[scope] + count
  else
    is_sound_count = false
  end
end
if is_sound_count and sums.type == tasks and sums.kb == tasks then
  return {}
end
if tasks > tasks_max then
  return {-1}
end

local staged = {}
for _, queue in ipairs(queues) do
  for _, entry in ipairs(call('XRANGE', ready_of(queue.name), '-', '+')) do
    local fields, place = entry[2], 'ready:' .. entry[1]
    local task, kb = fields[1] == 'task' and fields[2], fields[3] == 'kb' and fields[4]
    -- What older versions wrote names no kb_id, and what others wrote counts for nothing.
    local stored = task and not kb and pcall_redis('HGET', prefix .. 'task:' .. task, 'place')
    if kb or type(stored) == 'string' and string.sub(stored, 1, #place) == place then
      local at = #staged
      staged[at + 1], staged[at + 2], staged[at + 3] = type_of(queue.name), kb or '', task or ''
    end
  end
end
local recounts = tonumber(call('HGET', counters, 'recounts') or '') or 0
return {recounts, counts, call('ZRANGE', leases, 0, -1), staged}
