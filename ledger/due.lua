-- Finds tasks whose time has come, by this server's clock. Changes nothing.
--
-- KEYS  1 due, 2 leases
-- ARGV  1 how many of each at most
-- Returns {now (ms), due task ids, expired lease members, ms until the next of either (-1 = none)}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local upcoming = -1
local function expired(key)
  local members = redis.call('ZRANGE', key, '-inf', now, 'BYSCORE', 'LIMIT', 0, ARGV[1])
  local following = redis.call('ZRANGE', key, '(' .. now, '+inf', 'BYSCORE', 'LIMIT', 0, 1,
    'WITHSCORES')
  if #following > 0 then
    local wait = tonumber(following[2]) - now
    if upcoming == -1 or wait < upcoming then
      upcoming = wait
    end
  end
  return members
end
local released, lost = expired(KEYS[1]), expired(KEYS[2])
return {now, released, lost, upcoming}
