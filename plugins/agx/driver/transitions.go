package driver

import "github.com/gpuwm/gpuwm/core"

// transitions says what may happen to a queue and what it makes of it. Everything
// else is illegal: it is logged and changes nothing.
var transitions = [stateCount]map[event]state{
	idle:       {kick: busy, hold: suspended, kill: killed, wedge: wedged},
	busy:       {kick: busy, hold: draining, drained: idle, mark: failing, kill: killed, wedge: wedged},
	draining:   {drained: suspended, release: busy, mark: failing, kill: killed, wedge: wedged},
	suspended:  {release: idle, kill: killed, wedge: wedged},
	failing:    {mark: failing, lose: banned, kill: killed, wedge: wedged},
	banned:     {mark: banned, drained: banned, kill: killed, wedge: wedged},
	killed:     {mark: killed, drained: killed, sendDestroy: destroying, forget: gone, wedge: wedged},
	destroying: {destroyed: gone, wedge: wedged},
	gone:       {},
	wedged:     {},
}

// next returns the state after e, or a *core.TransitionError.
func (s state) next(e event) (state, error) {
	to, legal := transitions[s][e]
	if !legal {
		return s, &core.TransitionError{Noun: "agx work queue", From: s.String(), Event: e.String()}
	}
	return to, nil
}

// alive reports whether its jobs may still be executed.
func (s state) alive() bool { return s < failing }

// ending reports whether its end is wanted.
func (s state) ending() bool { return s == killed || s == destroying || s == gone }
