#!lua flags=allow-oom
-- Takes a partition for a member of a subscription, when nobody holds it. Also at the memory limit:
-- what a group keeps is small, and whoever reads it may be who makes room.
-- A lease that ends later than it lasts was given before the server's clock was set back: it lasts
-- from now on, or nobody would read on until the clock is there again.
--
-- KEYS  1 checkpoints
-- ARGV  1 the group's tag, 2 member, 3 lease (ms), 4 the checkpoint where a new group begins
-- Returns {generation, checkpoint}, or {0, owner} while another holds it, or {-1, reason} when the
-- group is halted there.
local call = redis.call
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local at_field, lease_field = ARGV[1] .. ':at', ARGV[1] .. ':lease'
local lasts_field = ARGV[1] .. ':lasts'
local halted = call('HGET', KEYS[1], ARGV[1] .. ':halted')
if halted then
  return {-1, halted}
end
local lease = call('HGET', KEYS[1], lease_field) or '0 0 '
local generation, untill, owner = string.match(lease, '^(%d+) (%d+) (.*)$')
if tonumber(untill) > now and owner ~= ARGV[2] then
  local ends = now + (tonumber(call('HGET', KEYS[1], lasts_field) or '') or math.huge)
  if tonumber(untill) > ends then
    call('HSET', KEYS[1], lease_field, string.format('%s %.0f %s', generation, ends, owner))
  end
  return {0, owner}
end
generation = tonumber(generation) + 1
local at = call('HGET', KEYS[1], at_field)
if not at then
  at = ARGV[4]
  call('HSET', KEYS[1], at_field, at)
end
call('HSET', KEYS[1], lease_field,
  string.format('%.0f %.0f %s', generation, now + ARGV[3], ARGV[2]), lasts_field, ARGV[3])
return {generation, at}
