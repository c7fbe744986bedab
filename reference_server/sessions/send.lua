-- ARGV prefix, per_device, user, text. Returns to how many of the user's connections the text is on its way.
local reached = 0
for _, status in ipairs(statuses(ARGV[1], ARGV[2], ARGV[3])) do
  local _, owner = split(status)
  reached = reached + redis.call('PUBLISH', ARGV[1] .. 'to:' .. incarnation(owner), cjson.encode(
    {type = 'message', owner = owner, text = ARGV[4]}))
end
return reached
