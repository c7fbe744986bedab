-- KEYS a node's list; ARGV cursor, about how many. Returns {next cursor, session, record, ...}.
local page = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
table.insert(page[2], 1, page[1])
return page[2]
