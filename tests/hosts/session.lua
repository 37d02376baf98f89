-- Makes an Ardour session: one stereo track "Song" with the plugin in it, and a bus for each pair of its outputs named.
-- ardour7-lua session.lua FOLDER NAME RATE PLUGIN strict|flexible [BUS=FIRST_OUTPUT ...]
local folder, name, rate, plugin, io = arg[1], arg[2], tonumber(arg[3]), arg[4], arg[5]

AudioEngine:set_backend("None (Dummy)", "", "")
local session = assert(create_session(folder, name, rate), "no session")
local last = ARDOUR.PresentationInfo.max_order
local track = session:new_audio_track(2, 2, nil, 1, "Song", last, ARDOUR.TrackMode.Normal, true):front()
track:set_strict_io(io == "strict")

local processor = ARDOUR.LuaAPI.new_plugin(session, plugin, ARDOUR.PluginType.VST3, "")
assert(not processor:isnil(), "Ardour has not found the plugin " .. plugin)
assert(track:add_processor_by_index(processor, 0, nil, true) == 0, "the plugin was not added")
if io ~= "strict" then
   track:panner_shell():set_bypassed(true) -- it would pan 14 channels to 14
end
sleep(0.5) -- what is set is done by another thread

for number = 6, #arg do
   local label, first = arg[number]:match("(%a+)=(%d+)")
   local bus =
      session:new_audio_route(2, 2, nil, 1, label, ARDOUR.PresentationInfo.Flag.AudioBus, last):front()
   sleep(0.3)
   for channel = 0, 1 do
      local output = track:output():nth(first - 1 + channel)
      output:disconnect_all()
      assert(output:connect(bus:input():nth(channel):name()) == 0, "no connection to " .. label)
   end
end

print("outputs=" .. track:n_outputs():n_audio())
print("latency=" .. processor:to_insert():signal_latency())
sleep(0.5)
session:save_state("")
close_session()
quit()
