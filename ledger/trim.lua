#!lua flags=allow-oom
-- Takes entries away that stand before a bound, a bounded number of them. After entries.lua.
--
-- KEYS  1 events stream, 2 archive
-- ARGV  1 generation of the archiver's lease, 2 the bound: what stands at it stays,
--       3 how many entries at most
-- Returns how many went: fewer than could, as long as it is not 0; or
--   -1  when another archiver has the lease, the archive is halted, or it is not sealed that far
local call = redis.call
local events, archive, bound = KEYS[1], KEYS[2], ARGV[2]
local told = call('HMGET', archive, 'generation', 'entry', 'halted', 'trimmed')
local generation, sealed, halted, trimmed = unpack(told)
if generation ~= ARGV[1] or halted or not sealed or is_before(sealed, bound) then
  return -1
end
-- First: whoever reads must be able to tell that something may be gone.
if not trimmed or is_before(trimmed, bound) then
  call('HSET', archive, 'trimmed', bound)
end
-- Whole nodes of the stream cost next to nothing; what is left of the last one is taken entry by
-- entry, and cannot be more than a node holds.
local gone = call('XTRIM', events, 'MINID', '~', bound, 'LIMIT', ARGV[3])
if gone == 0 then
  gone = call('XTRIM', events, 'MINID', '=', bound)
end
return gone
