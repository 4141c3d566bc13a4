-- Hands out callbacks that are due, and keeps them from others for as long as a post may take.
--
-- Each host has a line of its own, a sorted set of task ids by when they are due, so that one that
-- does not answer holds up nobody else, however much waits for it. The sorted set of the hosts has
-- each by when the first of its line is due (or earlier: a task may have left it since).
--
-- KEYS  1 hosts, 2 bell, a list that holds one element while somebody should come and look. The
--       lines are named by what the first holds: its own name, a colon, the host
-- ARGV  1 lease_ms, 2 settle_ms: what became due within that time is left for later, 3 how many at
--       most, 4 how many of one host at once, then by turns: host, how many of it the caller has in
--       hand already
-- Returns {now (ms), ms until more is due (-1 = none is, as far as is known), then by turns: host,
-- task id}: of the hosts of which least is in hand first
local call = redis.call
local hosts, bell = KEYS[1], KEYS[2]
local lease_ms, settle_ms = tonumber(ARGV[1]), tonumber(ARGV[2])
local left, host_max = tonumber(ARGV[3]), tonumber(ARGV[4])

local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local due = now - settle_ms

local in_hand, busy = {}, 0
for i = 5, #ARGV, 2 do
  in_hand[ARGV[i]] = tonumber(ARGV[i + 1])
  busy = busy + 1
end

-- By how much of it is in hand; each list in order of time.
local levels = {}
for level = 0, host_max do
  levels[level] = {}
end
local limit = left + busy
for _, host in ipairs(call('ZRANGE', hosts, '-inf', due, 'BYSCORE', 'LIMIT', 0, limit)) do
  local level = levels[math.min(in_hand[host] or 0, host_max)]
  level[#level + 1] = host
end

local taken, lines, next_of = {}, {}, {}
-- Those that have no room are not looked at.
for level = 0, host_max - 1 do
  for _, host in ipairs(levels[level]) do
    if left == 0 then
      break
    end
    local line = lines[host]
    if not line then
      line = call('ZRANGE', hosts .. ':' .. host, '-inf', due, 'BYSCORE', 'LIMIT', 0,
        host_max - level)
      lines[host], next_of[host] = line, 1
    end
    local task = line[next_of[host]]
    if task then
      call('ZADD', hosts .. ':' .. host, now + lease_ms, task)
      taken[#taken + 1], taken[#taken + 2] = host, task
      next_of[host], left = next_of[host] + 1, left - 1
      local above = levels[level + 1]
      above[#above + 1] = host
    end
  end
end

for host in pairs(lines) do
  local first = call('ZRANGE', hosts .. ':' .. host, 0, 0, 'WITHSCORES')
  if first[2] then
    call('ZADD', hosts, first[2], host)
  else
    call('ZREM', hosts, host)
  end
end
-- The caller has its hands full, and does not listen: somebody else may.
if left == 0 and call('ZCOUNT', hosts, '-inf', due) > 0 and call('LLEN', bell) == 0 then
  call('RPUSH', bell, '1')
end
local following = call('ZRANGE', hosts, '(' .. due, '+inf', 'BYSCORE', 'LIMIT', 0, 1, 'WITHSCORES')
local wait = following[2] and math.max(0, tonumber(following[2]) + settle_ms - now) or -1
return {now, wait, unpack(taken)}
