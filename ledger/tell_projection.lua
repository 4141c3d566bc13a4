#!lua flags=allow-oom
-- Says how far a node's read model is. Also at the memory limit: what was seen can be trimmed.
--
-- KEYS  1 projections
-- ARGV  1 node, 2 what it says (JSON)
return redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
