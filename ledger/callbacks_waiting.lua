-- Counts callbacks that wait. Changes nothing.
--
-- KEYS  1 hosts, see callbacks.lua
-- ARGV  1 how many hosts are looked at, at most
-- Returns {how many wait, how many of them are due, for how long the oldest of these has been (ms)}
local call = redis.call
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local waiting, due, oldest = 0, 0, 0
for _, host in ipairs(call('ZRANGE', KEYS[1], 0, ARGV[1] - 1)) do
  local line = KEYS[1] .. ':' .. host
  waiting = waiting + call('ZCARD', line)
  due = due + call('ZCOUNT', line, '-inf', now)
  local first = call('ZRANGE', line, 0, 0, 'WITHSCORES')
  if first[2] then
    oldest = math.max(oldest, now - tonumber(first[2]))
  end
end
return {waiting, due, oldest}
