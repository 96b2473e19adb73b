package driver

import "github.com/gpuwm/gpuwm/core"

// state is where a queue's context stands with the firmware.
type state uint8

// The states and what may follow.
const (
	// unregistered: the firmware does not know the context; then enabling or gone.
	unregistered state = iota
	// enabling: MODE_SET(1) was sent; then enabled.
	enabling
	// enabled: the firmware may execute it; then disabling.
	enabled
	// disabling: MODE_SET(0) was sent; then disabled.
	disabling
	// disabled: registered and off every engine; then enabling or deregistering.
	disabled
	// deregistering: DEREGISTER was sent; then gone.
	deregistering
	// gone: the firmware has forgotten it, id and memory are free; final.
	gone
	stateCount
)

// event is what happens to a queue's context: messages sent and received.
type event uint8

// The events.
const (
	// sendEnable: the driver sends MODE_SET(1), the first time after REGISTER and POLICIES.
	sendEnable event = iota
	// sendDisable: the driver sends MODE_SET(0).
	sendDisable
	// sendDeregister: the driver sends DEREGISTER_CONTEXT.
	sendDeregister
	// sendPolicies: the driver sends UPDATE_CONTEXT_POLICIES.
	sendPolicies
	// sendKick: the driver sends SCHED_CONTEXT.
	sendKick
	// release: the driver frees a context that the firmware never knew.
	release
	// modeEnabled: MODE_DONE(1) came.
	modeEnabled
	// modeDisabled: MODE_DONE(0) came.
	modeDisabled
	// deregistered: DEREGISTER_CONTEXT_DONE came.
	deregistered
	// contextReset: CONTEXT_RESET or a CAT error came; the context is not scheduled any more, but still registered.
	contextReset
	eventCount
)

var (
	stateNames = [stateCount]string{"unregistered", "enabling", "enabled", "disabling", "disabled", "deregistering", "gone"}
	eventNames = [eventCount]string{"send enable", "send disable", "send deregister", "send policies", "send kick",
		"release", "enabled", "disabled", "deregistered", "context reset"}
)

func (s state) String() string { return stateNames[s] }
func (e event) String() string { return eventNames[e] }

// transitions holds every legal (state, event); what is not in it is illegal.
// In particular: never enable while a disable is pending, never register twice,
// never deregister what is enabled or pending.
var transitions = map[state]map[event]state{
	unregistered:  {sendEnable: enabling, release: gone},
	enabling:      {modeEnabled: enabled, sendPolicies: enabling, contextReset: enabling},
	enabled:       {sendDisable: disabling, sendPolicies: enabled, sendKick: enabled, contextReset: enabled},
	disabling:     {modeDisabled: disabled, sendPolicies: disabling, contextReset: disabling},
	disabled:      {sendEnable: enabling, sendDeregister: deregistering, sendPolicies: disabled, contextReset: disabled},
	deregistering: {deregistered: gone},
	gone:          {},
}

// next returns the state after e, or a *core.TransitionError.
func (s state) next(e event) (state, error) {
	to, legal := transitions[s][e]
	if !legal {
		return s, &core.TransitionError{Noun: "guc context", From: s.String(), Event: e.String()}
	}
	return to, nil
}

// off reports whether the context is certainly on no engine.
func (s state) off() bool {
	return s == unregistered || s == disabled || s == deregistering || s == gone
}

// pending reports whether an answer of the firmware is awaited.
func (s state) pending() bool { return s == enabling || s == disabling || s == deregistering }

// registered reports whether the firmware takes messages about the context.
func (s state) registered() bool {
	return s == enabling || s == enabled || s == disabling || s == disabled
}
