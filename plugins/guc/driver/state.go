package driver

// state is where a queue's context stands with the firmware and with the driver:
// one value in place of the flag bits that Xe keeps. transitions.go says what may happen in it.
type state uint8

// The states. What each means and what follows is the sentence in stateRows.
const (
	unregistered state = iota
	parked
	enabling
	enabled
	idleSuspended
	suspending
	suspended
	resuming
	disabling
	disabled
	resetPending
	reset
	banning
	banned
	bannedForgotten
	killedEnabling
	killedDisabling
	killed
	destroying
	deregistering
	gone
	wedged
	stateCount
)

// stateRow is what is written down about a state, once.
type stateRow struct {
	name string
	// flags are the bits that Xe has set in it.
	flags string
	// sentence says what it means and what may follow.
	sentence string
}

var stateRows = [stateCount]stateRow{
	unregistered:    {"unregistered", "", "the firmware does not know the context; its first job registers it, a suspend parks it"},
	parked:          {"parked", "SUSPENDED", "suspended and unknown to the firmware; a resume makes it unregistered again"},
	enabling:        {"enabling", "REGISTERED ENABLED PENDING_ENABLE", "MODE_SET(1) was sent; MODE_DONE(1) follows, or a GT reset"},
	enabled:         {"enabled", "REGISTERED ENABLED", "the firmware may execute it; a suspend, a cancel, a reset or the end takes it off"},
	idleSuspended:   {"idle-suspended", "REGISTERED ENABLED SUSPENDED IDLE_SKIP_SUSPEND", "suspended without a disable, because the firmware sees no work of it; the tail is not published until a resume"},
	suspending:      {"suspending", "REGISTERED SUSPENDED PENDING_DISABLE", "MODE_SET(0) was sent for a suspend; MODE_DONE(0) confirms it"},
	suspended:       {"suspended", "REGISTERED SUSPENDED", "off every engine until a resume"},
	resuming:        {"resuming", "REGISTERED ENABLED PENDING_ENABLE PENDING_RESUME", "MODE_SET(1) was sent to end a suspend; MODE_DONE(1) follows, or a GT reset"},
	disabling:       {"disabling", "REGISTERED PENDING_DISABLE", "MODE_SET(0) was sent to take a job out of the ring; MODE_DONE(0) follows, or a GT reset"},
	disabled:        {"disabled", "REGISTERED", "off every engine while the ring is written anew; enabled again with the next job"},
	resetPending:    {"reset-pending", "REGISTERED ENABLED PENDING_ENABLE RESET", "the context was given up before its MODE_DONE(1) came; that follows first"},
	reset:           {"reset", "REGISTERED ENABLED RESET", "the firmware gave the context up, or the driver blames it; the ban follows"},
	banning:         {"banning", "REGISTERED PENDING_DISABLE BANNED", "MODE_SET(0) was sent for good; MODE_DONE(0) follows, or a GT reset"},
	banned:          {"banned", "REGISTERED BANNED", "off every engine for good; only its end follows"},
	bannedForgotten: {"banned-forgotten", "BANNED", "banned, and unknown to the firmware since a GT reset; only its end follows"},
	killedEnabling:  {"killed-enabling", "REGISTERED ENABLED PENDING_ENABLE KILLED", "its end is wanted, MODE_DONE(1) is still awaited"},
	killedDisabling: {"killed-disabling", "REGISTERED PENDING_DISABLE KILLED", "its end is wanted, MODE_DONE(0) is still awaited"},
	killed:          {"killed", "REGISTERED KILLED", "its end is wanted and nothing is pending; the disable with the credit of both answers follows"},
	destroying:      {"destroying", "REGISTERED KILLED PENDING_DISABLE DESTROYED", "MODE_SET(0) was sent on the way to the end; MODE_DONE(0) lets the deregistration follow"},
	deregistering:   {"deregistering", "REGISTERED KILLED DESTROYED", "DEREGISTER was sent; the id is kept until DEREGISTER_DONE, or a GT reset"},
	gone:            {"gone", "", "id and memory are free; final"},
	wedged:          {"wedged", "WEDGED", "the device was given up with the context on it; final, the process is replaced"},
}

func (s state) String() string { return stateRows[s].name }

// off reports whether the context is certainly on no engine.
func (s state) off() bool {
	switch s {
	case unregistered, parked, suspended, disabled, banned, bannedForgotten, deregistering, gone:
		return true
	}
	return false
}

// pending reports whether an answer of the firmware is awaited, within a bound.
func (s state) pending() bool {
	switch s {
	case enabling, resuming, resetPending, killedEnabling, suspending, disabling, banning, killedDisabling, destroying, deregistering:
		return true
	}
	return false
}

// leaving reports whether the firmware was asked to take the context off.
func (s state) leaving() bool {
	switch s {
	case suspending, disabling, banning, killedDisabling, destroying:
		return true
	}
	return false
}

// known reports whether the firmware has the context's registration.
func (s state) known() bool {
	switch s {
	case unregistered, parked, bannedForgotten, gone, wedged:
		return false
	}
	return true
}

// alive reports whether the context takes work and messages.
func (s state) alive() bool { return s <= disabled }

// dying reports whether the entity's end is wanted, or was.
func (s state) dying() bool { return s >= killedEnabling && s <= gone }

// held reports whether the context is confirmed suspended.
func (s state) held() bool { return s == parked || s == idleSuspended || s == suspended }

// event is what happens to a queue's context: messages sent and received, and
// what the driver decides.
type event uint8

// The events.
const (
	sendEnable event = iota
	sendResume
	sendSuspend
	skipSuspend
	skipResume
	sendDisable
	sendBan
	sendDestroy
	sendPolicies
	sendKick
	ban
	kill
	release
	modeEnabled
	modeDisabled
	deregistered
	contextReset
	gtReset
	revert
	wedge
	eventCount
)

// eventRow is what is written down about an event, once.
type eventRow struct{ name, sentence string }

var eventRows = [eventCount]eventRow{
	sendEnable:   {"send enable", "the driver sends MODE_SET(1), after REGISTER and POLICIES if the firmware does not know the context"},
	sendResume:   {"send resume", "the driver sends MODE_SET(1) to end a suspend"},
	sendSuspend:  {"send suspend", "the driver sends MODE_SET(0) for a suspend"},
	skipSuspend:  {"skip suspend", "a suspend is granted without a message: the firmware sees no work"},
	skipResume:   {"skip resume", "a suspend that needed no message ends"},
	sendDisable:  {"send disable", "the driver sends MODE_SET(0) to take a job out"},
	sendBan:      {"send ban", "the driver sends PT = 1 µs and MODE_SET(0), for good"},
	sendDestroy:  {"send destroy", "the driver sends PT = 1 µs and MODE_SET(0), with the credit of the deregistration too"},
	sendPolicies: {"send policies", "the driver sends UPDATE_CONTEXT_POLICIES"},
	sendKick:     {"send kick", "the driver sends SCHED_CONTEXT"},
	ban:          {"ban", "the driver gives the context's work up: blamed for a hang, or a victim"},
	kill:         {"kill", "the entity's end is wanted"},
	release:      {"release", "the driver frees a context that the firmware does not know"},
	modeEnabled:  {"mode enabled", "MODE_DONE(1) came"},
	modeDisabled: {"mode disabled", "MODE_DONE(0) came; on the way to the end the driver answers it with DEREGISTER_CONTEXT"},
	deregistered: {"deregistered", "DEREGISTER_CONTEXT_DONE came"},
	contextReset: {"context reset", "CONTEXT_RESET or a CAT error came: not scheduled any more, still registered"},
	gtReset:      {"GT reset", "the firmware was loaded anew, or told to forget all contexts"},
	revert:       {"revert", "the device moved: what was asked of the firmware and not answered is taken back"},
	wedge:        {"wedge", "the device is given up"},
}

func (e event) String() string { return eventRows[e].name }
