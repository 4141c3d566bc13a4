-- Counts entries of a stream, so many at a time that the server is not held up by it.
--
-- KEYS  1 stream
-- ARGV  1 behind this entry, 2 how many at most, 3 up to this one ("+": to the end)
-- Returns {how many, the last of them}.
local entries = redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], ARGV[3], 'COUNT', ARGV[2])
local last = entries[#entries]
return {#entries, last and last[1] or ARGV[1]}
