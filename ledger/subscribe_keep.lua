#!lua flags=allow-oom
-- Extends a lease on a partition, or gives it back, and moves the group's checkpoint on. Also at the
-- memory limit: it puts something in the place of something.
--
-- KEYS  1 checkpoints
-- ARGV  1 the group's tag, 2 generation, 3 lease (ms; 0 gives it back), 4 checkpoint ("" leaves it),
--       5 why the group halts here ("": it goes on)
-- Returns 1, or 0 when the partition is not held under this generation any more: nothing is changed.
local call = redis.call
local at_field, lease_field = ARGV[1] .. ':at', ARGV[1] .. ':lease'
local lease = call('HGET', KEYS[1], lease_field)
local generation, owner = string.match(lease or '', '^(%d+) %d+ (.*)$')
if generation ~= ARGV[2] then
  return 0
end
local function order(checkpoint)
  local ms, seq = string.match(checkpoint, '^(%d+)%-(%d+) ')
  return string.format('%20s%20s', ms, seq)
end
-- A call that was given up may arrive late, after a newer one.
if ARGV[4] ~= '' then
  local at = call('HGET', KEYS[1], at_field)
  if not at or order(at) < order(ARGV[4]) then
    call('HSET', KEYS[1], at_field, ARGV[4])
  end
end
local untill = 0
if ARGV[3] ~= '0' then
  local time = call('TIME')
  untill = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[3]
end
call('HSET', KEYS[1], lease_field, string.format('%s %.0f %s', generation, untill, owner))
if ARGV[5] ~= '' then
  call('HSET', KEYS[1], ARGV[1] .. ':halted', ARGV[5])
end
return 1
