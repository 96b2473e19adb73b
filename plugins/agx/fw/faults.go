package fw

import (
	"github.com/gpuwm/gpuwm/plugins/agx/abi"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// The points of a fault plan; texts says what passes them.
const (
	PointManagement = "management"
	PointInit       = "init"
	PointControl    = "device-control"
	PointPipe       = "pipe"
	PointCommand    = "command"
	PointBarrier    = "barrier"
	PointStamp      = "stamp"
	PointRetired    = "retired"
	PointEvent      = "event"
	PointRX         = "rx"
	PointHalt       = "halt"
	PointLog        = "log"
	PointPowerOff   = "power-off"
)

// The actions of a fault plan; texts says what they do. FaultCrash and FaultMute
// can be at every point.
const (
	FaultDrop      = "drop"
	FaultDelay     = "delay"
	FaultDuplicate = "duplicate"
	FaultVersion   = "version"
	FaultNoGPU     = "no-gpu"
	FaultFreeze    = "freeze"
	FaultFault     = "fault"
	FaultUnknown   = "fault-unknown"
	FaultVM        = "fault-vm"
	FaultSoft      = "soft-fault"
	FaultHang      = "hang"
	FaultHangInfo  = "hang-fault"
	FaultNobody    = "hang-nobody"
	FaultStuck     = "stuck"
	FaultChannel   = "channel-error"
	FaultBlock     = "block"
	FaultKeep      = "keep"
	FaultBack      = "back"
	FaultJump      = "jump"
	FaultTouch     = "touch"
	FaultSlot      = "slot-is"
	FaultType      = "type"
	FaultFull      = "full"
	FaultNever     = "never-halts"
	FaultDeaf      = "ignore-resume"
	FaultAgain     = "again"
	FaultStale     = "stale"
	FaultIndex     = "index"
	FaultEndless   = "endless"
	FaultRace      = "race"
	FaultCrash     = "crash"
	FaultMute      = "mute"
)

// texts says what passes the points, and what the actions do.
var texts = map[string]string{
	PointManagement: "a management message about to be sent, by type",
	PointInit:       "the Init message",
	PointControl:    "a device-control message about to be executed, by name",
	PointPipe:       "a RunWorkQueue about to be taken, by uuid of the queue",
	PointCommand:    "the work of a compute command about to be started, by uuid of its queue",
	PointBarrier:    "a barrier about to be looked at, by uuid of its queue",
	PointStamp:      "a shared stamp about to be written, by event slot",
	PointRetired:    "a command that was retired, by uuid of its queue",
	PointEvent:      "an event about to be written: Flag by event slot, the others by uuid",
	PointRX:         "the message that tells the host to look at the rings",
	PointHalt:       "a halt of the GPU that has begun",
	PointLog:        "a line of the log about to be written",
	PointPowerOff:   "the GPU that has just been switched off",

	FaultDrop:      "loses it; a device-control message is consumed, but nothing is done; of a RunWorkQueue the new items are not seen",
	FaultDelay:     "does it later",
	FaultDuplicate: "does it twice",
	FaultVersion:   "makes HELLO offer only this version",
	FaultNoGPU:     "leaves the endpoints of the GPU out of EPMAP",
	FaultFreeze:    "takes nothing from the ring any more, for so long or until power is off",
	FaultFault:     "makes it an MMU fault of its VM",
	FaultUnknown:   "makes it a fault with an invalid register",
	FaultVM:        "makes it an MMU fault of this VM slot",
	FaultSoft:      "makes all its accesses soft faults: nothing is executed, and it is done",
	FaultHang:      "starts nothing: it runs until the watchdog ends it",
	FaultHangInfo:  "the same, and the fault register is valid at the time-out",
	FaultNobody:    "the same, and the time-out names no slot",
	FaultStuck:     "the same, and nothing takes it off the GPU: the firmware gives up",
	FaultChannel:   "stops its queue with a channel error of this type",
	FaultBlock:     "holds it, for so long or until power is off",
	FaultKeep:      "leaves the stamp as it is",
	FaultBack:      "writes so many values less",
	FaultJump:      "writes so many values more",
	FaultTouch:     "looks at it once more so much later",
	FaultSlot:      "puts another slot into a Flag",
	FaultType:      "sends an event of this type before it",
	FaultFull:      "finds the ring full, from this event on for so long (10 ms)",
	FaultNever:     "never sets halted",
	FaultDeaf:      "ignores the resume",
	FaultAgain:     "halts again when the host resumes",
	FaultStale:     "sends an old Timeout after the resume",
	FaultIndex:     "names this payload",
	FaultEndless:   "leaves the NUL away",
	FaultRace:      "takes so long, and a kick meanwhile has to wait",
	FaultCrash:     "crashes: crash log, message, everything frozen",
	FaultMute:      "the same without a word",
}

// Vocabulary is what a fault plan of this firmware can say.
func Vocabulary() hw.Vocabulary {
	with := func(own ...hw.FaultAction) []hw.FaultAction {
		return append(own, hw.FaultAction{Name: FaultCrash}, hw.FaultAction{Name: FaultMute})
	}
	plain := func(names ...string) []hw.FaultAction {
		var out []hw.FaultAction
		for _, n := range names {
			out = append(out, hw.FaultAction{Name: n})
		}
		return out
	}
	number := func(name string, samples ...string) hw.FaultAction {
		return hw.FaultAction{Name: name, Kind: hw.ValueNumber, Samples: samples}
	}
	lasting := func(name string) hw.FaultAction {
		return hw.FaultAction{Name: name, Kind: hw.ValueDurationOptional, Samples: []string{"", "5ms", "2s"}}
	}
	delay := hw.FaultAction{Name: FaultDelay, Kind: hw.ValueDuration, Samples: []string{"100us", "20ms", "3s"}}
	v := hw.Vocabulary{
		{Name: PointManagement, Names: managementNames, Actions: with(hw.FaultAction{Name: FaultDrop}, delay, number(FaultVersion, "10", "13"), hw.FaultAction{Name: FaultNoGPU})},
		{Name: PointInit, Actions: with(hw.FaultAction{Name: FaultDrop}, delay)},
		{Name: PointControl, Names: controlNames, Actions: with(hw.FaultAction{Name: FaultDrop}, lasting(FaultFreeze))},
		{Name: PointPipe, IDs: true, Actions: with(hw.FaultAction{Name: FaultDrop}, lasting(FaultFreeze))},
		{Name: PointCommand, IDs: true, Actions: with(append(plain(FaultFault, FaultUnknown, FaultSoft, FaultHang, FaultHangInfo, FaultNobody, FaultStuck),
			number(FaultVM, "1", "2", "63"), number(FaultChannel, "0", "1", "2", "3"))...)},
		{Name: PointBarrier, IDs: true, Actions: with(lasting(FaultBlock))},
		{Name: PointStamp, IDs: true, Actions: with(hw.FaultAction{Name: FaultKeep}, number(FaultBack, "1", "2", "200"), number(FaultJump, "1", "2", "200"))},
		{Name: PointRetired, IDs: true, Actions: with(hw.FaultAction{Name: FaultTouch, Kind: hw.ValueDuration, Samples: []string{"1ms", "20ms"}})},
		{Name: PointEvent, Names: eventNames, IDs: true, Actions: with(hw.FaultAction{Name: FaultDrop}, delay, hw.FaultAction{Name: FaultDuplicate},
			number(FaultSlot, "0", "5", "127"), number(FaultType, "2", "5", "7", "99"),
			hw.FaultAction{Name: FaultFull, Kind: hw.ValueDurationOptional, Samples: []string{"", "1ms", "200ms"}})},
		{Name: PointRX, Actions: with(hw.FaultAction{Name: FaultDrop}, delay)},
		{Name: PointHalt, Actions: with(plain(FaultNever, FaultDeaf, FaultAgain, FaultStale)...)},
		{Name: PointLog, Actions: with(number(FaultIndex, "256", "0xffffffff"), hw.FaultAction{Name: FaultEndless})},
		{Name: PointPowerOff, Actions: with(hw.FaultAction{Name: FaultRace, Kind: hw.ValueDuration, Samples: []string{"1ms", "5ms"}})},
	}
	for i := range v {
		v[i].Text = texts[v[i].Name]
		for j := range v[i].Actions {
			v[i].Actions[j].Text = texts[v[i].Actions[j].Name]
		}
	}
	return v
}

// Names of what passes the points.
var (
	managementNames = []string{abi.Hello.String(), abi.EndpointMap.String(), abi.IOPPowerAck.String(), abi.APPower.String(), abi.Pong.String()}
	controlNames    = []string{abi.ControlInitialize.String(), abi.ControlDestroyContext.String(), abi.ControlRecoverChannel.String(),
		abi.ControlUpdateIdleTS.String(), abi.ControlWrite32.String()}
	eventNames = []string{abi.EventFlag.String(), abi.EventFault.String(), abi.EventTimeout.String(), abi.EventChannelError.String()}
)

// NewFaults makes a plan ready for Config.Faults. Errors wrap hw.ErrPlan.
func NewFaults(p hw.Plan) (*hw.Faults, error) { return hw.NewFaults(p, Vocabulary()) }

// RandomPlan draws a plan of so many rules; all of them end.
func RandomPlan(seed uint64, rules int) hw.Plan { return hw.RandomPlan(seed, rules, Vocabulary()) }
