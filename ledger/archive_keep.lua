#!lua flags=allow-oom
-- Extends the lease of whoever seals a partition, or gives it back, and keeps how far it is sealed.
-- Also at the memory limit: it puts something in the place of something.
--
-- KEYS  1 archive
-- ARGV  1 generation, 2 lease (ms; 0 gives it back), 3 why sealing halts ("": it goes on),
--       then nothing, or what is sealed: 4 size, 5 entry, 6 digest, 7 passed, 8 "1": events were
--       sealed behind what was accepted
-- Returns 1, or 0 when the partition is not held under this generation any more: nothing is changed.
local call = redis.call
if call('HGET', KEYS[1], 'generation') ~= ARGV[1] then
  return 0
end
local untill = 0
if ARGV[2] ~= '0' then
  local time = call('TIME')
  untill = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2]
end
call('HSET', KEYS[1], 'until', string.format('%.0f', untill))
if ARGV[4] then
  call('HSET', KEYS[1], 'size', ARGV[4], 'entry', ARGV[5], 'digest', ARGV[6], 'passed', ARGV[7])
  if ARGV[8] == '1' then
    call('HDEL', KEYS[1], 'accepted')
  end
end
if ARGV[3] ~= '' then
  call('HSET', KEYS[1], 'halted', ARGV[3])
end
return 1
