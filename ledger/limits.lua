-- Brings a partition's limits to a newer version, and what stands in line with them: what is more than
-- they let, and nobody has taken, goes back, and what they now let moves up. After queues.lua.
--
-- KEYS  1-4 as queues.lua has them
-- ARGV  1 staged_max, 2 the priorities, the most urgent first, with a comma after each,
--       3 version of the system subject that the limits are from, 4 the version that they change ('':
--       they are all that there are), then pairs: type:<type> or kb:<kb_id>, and how many may be
--       admitted ('': no limit any more)
-- Returns 1 when that was done, 0 when limits as new were there, -1 when others than those to be
-- changed were there: then all have to be sent.
local priorities, version, changed = ARGV[2], ARGV[3], ARGV[4]
local held_version = tonumber(call('HGET', limits, 'version') or '0') or 0
if held_version >= tonumber(version) then
  return 0
end
if changed == '' then
  call('DEL', limits)
elseif held_version ~= tonumber(changed) then
  return -1
end
local set = {'version', version}
for i = 5, #ARGV, 2 do
  if ARGV[i + 1] == '' then
    call('HDEL', limits, ARGV[i])
  else
    set[#set + 1], set[#set + 2] = ARGV[i], ARGV[i + 1]
  end
end
-- In pieces, since the stack of Lua has a bound.
for first = 1, #set, arguments_max do
  call('HSET', limits, unpack(set, first, math.min(first + arguments_max - 1, #set)))
end

keep_limits(priorities)
settle()
return 1
