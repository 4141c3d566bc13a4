-- Brings a partition's limits to a newer version.
--
-- KEYS  1 limits
-- ARGV  1 version of the system subject that they are from, 2 the version that they change ('': they
--       are all that there are), then pairs: type:<type> or kb:<kb_id>, and how many may be admitted
--       ('': no limit any more)
-- Returns 1 when that was done, 0 when limits as new were there, -1 when others than those to be
-- changed were there: then all have to be sent.
local call = redis.call
local held = tonumber(call('HGET', KEYS[1], 'version') or '0')
if held >= tonumber(ARGV[1]) then
  return 0
end
if ARGV[2] == '' then
  call('DEL', KEYS[1])
elseif held ~= tonumber(ARGV[2]) then
  return -1
end
local set = {'version', ARGV[1]}
for i = 3, #ARGV, 2 do
  if ARGV[i + 1] == '' then
    call('HDEL', KEYS[1], ARGV[i])
  else
    set[#set + 1], set[#set + 2] = ARGV[i], ARGV[i + 1]
  end
end
-- In pieces, since the stack of Lua has a bound.
for first = 1, #set, 1000 do
  call('HSET', KEYS[1], unpack(set, first, math.min(first + 999, #set)))
end
return 1
