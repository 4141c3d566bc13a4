#!lua flags=allow-oom
-- Takes a partition for whoever seals its events, when nobody holds it. Also at the memory limit:
-- what is sealed can be trimmed.
-- A lease that ends later than it lasts was given before the server's clock was set back: it lasts
-- from now on, or nothing would be sealed until the clock is there again.
--
-- KEYS  1 archive
-- ARGV  1 owner, 2 lease (ms), 3 "force": also while another holds it, who loses it by that
-- Returns {generation, size, entry, digest, passed, accepted}, or {0, owner} while another holds it, or
-- {-1, reason} where sealing was halted.
local call = redis.call
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local known = call('HMGET', KEYS[1], 'owner', 'until', 'generation', 'halted', 'size', 'entry',
  'digest', 'passed', 'accepted', 'lease')
local owner, untill, generation, halted = known[1], known[2], known[3], known[4]
if halted and ARGV[3] ~= 'force' then
  return {-1, halted}
end
local ends, longest = tonumber(untill or 0) or 0, tonumber(known[10] or '')
if owner and owner ~= ARGV[1] and ends > now and ARGV[3] ~= 'force' then
  if longest and ends > now + longest then
    call('HSET', KEYS[1], 'until', string.format('%.0f', now + longest))
  end
  return {0, owner}
end
generation = string.format('%.0f', (tonumber(generation or 0) or 0) + 1)
call('HSET', KEYS[1], 'owner', ARGV[1], 'until', string.format('%.0f', now + ARGV[2]),
  'lease', ARGV[2], 'generation', generation)
return {tonumber(generation), known[5] or '0', known[6] or '0-0', known[7] or '', known[8] or '0',
  known[9] or ''}
