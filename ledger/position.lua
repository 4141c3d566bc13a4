-- Tells how many tasks will be taken before a waiting one, itself included.
--
-- KEYS  1 counters, 2 task hash, then the ready streams that are more urgent than the task's own
-- ARGV  1 name of the task's queue
-- Returns 1 for the next to be taken, 0 when the task does not wait in a ready stream.
--
-- Each ready entry carries its number in the queue; `taken` is the number that readers have got
-- to. Canceled tasks ahead leave a gap until it is passed, so the answer may be high, never low.
local place = redis.call('HGET', KEYS[2], 'place')
local number = place and string.match(place, '^ready:[^:]+:(%d+)$')
if not number then
  return 0
end
local taken = redis.call('HGET', KEYS[1], 'taken:' .. ARGV[1])
local position = tonumber(number) - tonumber(taken or '0')
if position < 1 then
  return 0
end
for i = 3, #KEYS do
  position = position + redis.call('XLEN', KEYS[i])
end
return position
