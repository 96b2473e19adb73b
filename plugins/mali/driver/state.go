package driver

import "github.com/gpuwm/gpuwm/core"

// state is where a group stands with the firmware: panthor's states and, between
// them, those in which an acknowledgement is awaited. transitions says what may happen in it.
type state uint8

// The states. What each means and what follows is the sentence in stateRows.
const (
	created state = iota
	starting
	active
	suspending
	suspended
	resuming
	terminating
	forced
	terminated
	unknown
	gone
	wedged
	stateCount
)

// stateRow is what is written down about a state, once.
type stateRow struct {
	name string
	// panthor is the state that panthor has it in.
	panthor string
	// sentence says what it means and what may follow.
	sentence string
}

var stateRows = [stateCount]stateRow{
	created:     {"created", "CREATED", "off-slot, and nothing of it is saved: its next slot begins with START at the first job that is left"},
	starting:    {"starting", "CREATED", "START was requested, its acknowledgement follows, or a reset"},
	active:      {"active", "ACTIVE", "the firmware runs it; a suspend, its end or a reset takes it off"},
	suspending:  {"suspending", "ACTIVE", "SUSPEND was requested; acknowledged, or escalated to TERMINATE"},
	suspended:   {"suspended", "SUSPENDED", "off-slot, its streams are in the suspend buffer: its next slot begins with RESUME"},
	resuming:    {"resuming", "SUSPENDED", "RESUME was requested, its acknowledgement follows, or a reset"},
	terminating: {"terminating", "ACTIVE", "TERMINATE was requested; acknowledged, or forced when that takes too long"},
	forced:      {"forced", "TERMINATED", "given up, but the firmware may still have it: its memory stays until a GPU reset takes the slot away"},
	terminated:  {"terminated", "TERMINATED", "off-slot for good; only its end follows"},
	unknown:     {"unknown", "UNKNOWN", "the firmware contradicted itself; a reset follows"},
	gone:        {"gone", "", "its memory is free; final"},
	wedged:      {"wedged", "", "the device was given up with the group on it; final, the process is replaced"},
}

func (s state) String() string { return stateRows[s].name }

// off reports whether the group is certainly on no slot.
func (s state) off() bool {
	return s == created || s == suspended || s == terminated || s == gone || s == wedged
}

// over reports whether the group can never run again.
func (s state) over() bool {
	return s == forced || s == terminated || s == unknown || s == gone || s == wedged
}

// event is what happens to a group.
type event uint8

// The events.
const (
	sendStart event = iota
	sendResume
	sendSuspend
	sendTerminate
	ackActive
	ackSuspended
	ackTerminated
	contradict
	force
	rebuild
	adoptImage
	drop
	gpuReset
	release
	wedge
	eventCount
)

// eventRow is what is written down about an event, once.
type eventRow struct{ name, sentence string }

var eventRows = [eventCount]eventRow{
	sendStart:     {"send start", "the driver requests START on a slot"},
	sendResume:    {"send resume", "the driver requests RESUME on a slot"},
	sendSuspend:   {"send suspend", "the driver requests SUSPEND"},
	sendTerminate: {"send terminate", "the driver requests TERMINATE: the group is dead, or its SUSPEND late"},
	ackActive:     {"ack active", "START or RESUME was acknowledged"},
	ackSuspended:  {"ack suspended", "SUSPEND was acknowledged"},
	ackTerminated: {"ack terminated", "TERMINATE was acknowledged"},
	contradict:    {"contradict", "a state was acknowledged that was not requested"},
	force:         {"force", "TERMINATE was not acknowledged in time: a GPU reset is near"},
	rebuild:       {"rebuild", "what the firmware saved is dropped: the ring is written anew from the portable part"},
	adoptImage:    {"adopt image", "the suspend buffer of an earlier life, from an image, becomes the group's own"},
	drop:          {"drop", "a group that is off-slot dies"},
	gpuReset:      {"GPU reset", "the GPU was reset: what was on a slot is lost"},
	release:       {"release", "the driver frees a dead group"},
	wedge:         {"wedge", "the device is given up"},
}

func (e event) String() string { return eventRows[e].name }

// transitions holds every legal (state, event) and what follows; what is not in
// it is illegal, logged and ignored. In particular: no RESUME of what was not
// suspended, no START of what was, no request to a slot whose last one is not
// acknowledged but TERMINATE.
var transitions = [stateCount]map[event]state{
	created:     {sendStart: starting, rebuild: created, adoptImage: suspended, drop: terminated, gpuReset: created, wedge: wedged},
	starting:    {ackActive: active, contradict: unknown, sendTerminate: terminating, gpuReset: created, wedge: wedged},
	active:      {sendSuspend: suspending, sendTerminate: terminating, contradict: unknown, gpuReset: created, wedge: wedged},
	suspending:  {ackSuspended: suspended, sendTerminate: terminating, contradict: unknown, gpuReset: created, wedge: wedged},
	suspended:   {sendResume: resuming, rebuild: created, drop: terminated, gpuReset: suspended, wedge: wedged},
	resuming:    {ackActive: active, contradict: unknown, sendTerminate: terminating, gpuReset: created, wedge: wedged},
	terminating: {ackTerminated: terminated, force: forced, contradict: unknown, gpuReset: terminated, wedge: wedged},
	forced:      {gpuReset: terminated, wedge: wedged},
	terminated:  {rebuild: created, drop: terminated, release: gone, gpuReset: terminated, wedge: wedged},
	unknown:     {contradict: unknown, gpuReset: terminated, wedge: wedged},
	gone:        {},
	wedged:      {},
}

// next returns the state after e, or a *core.TransitionError.
func (s state) next(e event) (state, error) {
	to, legal := transitions[s][e]
	if !legal {
		return s, &core.TransitionError{Noun: "mali group", From: s.String(), Event: e.String()}
	}
	return to, nil
}
