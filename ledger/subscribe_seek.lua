-- Sets a group's checkpoint, forwards or back, and lets it go on; whoever held the partition does not
-- any more.
--
-- KEYS  1 checkpoints
-- ARGV  1 the group's tag, 2 checkpoint
local call = redis.call
local lease_field = ARGV[1] .. ':lease'
local generation = string.match(call('HGET', KEYS[1], lease_field) or '', '^%d+') or '0'
call('HSET', KEYS[1], ARGV[1] .. ':at', ARGV[2],
  lease_field, string.format('%.0f 0 ', tonumber(generation) + 1))
call('HDEL', KEYS[1], ARGV[1] .. ':halted')
return 1
