package driver

import "github.com/gpuwm/gpuwm/core"

// transitions holds every legal (state, event) and what follows; what is not in
// it is illegal, logged and ignored. In particular: never enable while a disable
// is pending, never register twice, never deregister what is enabled or pending,
// no message about what is banned or killed but its disable and deregistration, no MODE_DONE that nobody waits for.
var transitions = [stateCount]map[event]state{
	unregistered: {sendEnable: enabling, skipSuspend: parked, ban: bannedForgotten, release: gone, gtReset: unregistered, revert: unregistered, wedge: wedged},
	parked:       {skipResume: unregistered, ban: bannedForgotten, release: gone, gtReset: parked, revert: parked, wedge: wedged},
	enabling: {modeEnabled: enabled, sendPolicies: enabling, contextReset: resetPending, ban: resetPending, kill: killedEnabling,
		gtReset: unregistered, revert: unregistered, wedge: wedged},
	enabled: {sendSuspend: suspending, skipSuspend: idleSuspended, sendDisable: disabling, sendPolicies: enabled, sendKick: enabled,
		contextReset: reset, ban: reset, kill: killed, gtReset: unregistered, revert: enabled, wedge: wedged},
	idleSuspended: {skipResume: enabled, sendPolicies: idleSuspended, contextReset: reset, ban: reset, kill: killed,
		gtReset: parked, revert: idleSuspended, wedge: wedged},
	suspending: {modeDisabled: suspended, sendPolicies: suspending, contextReset: banning, ban: banning, kill: killedDisabling,
		gtReset: parked, revert: enabled, wedge: wedged},
	suspended: {sendResume: resuming, sendPolicies: suspended, contextReset: banned, ban: banned, kill: killed,
		gtReset: parked, revert: suspended, wedge: wedged},
	resuming: {modeEnabled: enabled, sendPolicies: resuming, contextReset: resetPending, ban: resetPending, kill: killedEnabling,
		gtReset: unregistered, revert: suspended, wedge: wedged},
	disabling: {modeDisabled: disabled, sendPolicies: disabling, contextReset: banning, ban: banning, kill: killedDisabling,
		gtReset: unregistered, revert: enabled, wedge: wedged},
	disabled: {sendEnable: enabling, skipSuspend: suspended, sendPolicies: disabled, contextReset: banned, ban: banned, kill: killed,
		gtReset: unregistered, revert: disabled, wedge: wedged},
	resetPending: {modeEnabled: reset, contextReset: resetPending, ban: resetPending, kill: killedEnabling,
		gtReset: bannedForgotten, revert: reset, wedge: wedged},
	reset:           {sendBan: banning, contextReset: reset, ban: reset, kill: killed, gtReset: bannedForgotten, revert: reset, wedge: wedged},
	banning:         {modeDisabled: banned, contextReset: banning, ban: banning, kill: killedDisabling, gtReset: bannedForgotten, revert: reset, wedge: wedged},
	banned:          {contextReset: banned, ban: banned, kill: killed, gtReset: bannedForgotten, revert: banned, wedge: wedged},
	bannedForgotten: {ban: bannedForgotten, release: gone, gtReset: bannedForgotten, revert: bannedForgotten, wedge: wedged},
	killedEnabling:  {modeEnabled: killed, contextReset: killedEnabling, kill: killedEnabling, gtReset: gone, revert: killed, wedge: wedged},
	killedDisabling: {modeDisabled: killed, contextReset: killedDisabling, kill: killedDisabling, gtReset: gone, revert: killed, wedge: wedged},
	killed:          {sendDestroy: destroying, contextReset: killed, kill: killed, gtReset: gone, revert: killed, wedge: wedged},
	destroying:      {modeDisabled: deregistering, contextReset: destroying, kill: destroying, gtReset: gone, revert: killed, wedge: wedged},
	deregistering:   {deregistered: gone, contextReset: deregistering, kill: deregistering, gtReset: gone, revert: killed, wedge: wedged},
	gone:            {},
	wedged:          {},
}

// next returns the state after e, or a *core.TransitionError.
func (s state) next(e event) (state, error) {
	to, legal := transitions[s][e]
	if !legal {
		return s, &core.TransitionError{Noun: "guc context", From: s.String(), Event: e.String()}
	}
	return to, nil
}
