-- ARGV prefix, per_device, user. Returns the sessions that the user is online with.
local sessions = {}
for n, status in ipairs(statuses(ARGV[1], ARGV[2], ARGV[3])) do sessions[n] = split(status) end
return sessions
