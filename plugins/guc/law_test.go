package guc

import (
	"fmt"
	"strings"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/guc/abi"
)

// law is what must hold on both sides, whatever goes wrong: the invariants at
// the end of section 8 of the reference. observe is called after every step of the world.
type law struct {
	w *world
	// seen is the last line of the trace that was looked at.
	seen uint64
	// registered are the contexts that the firmware was told of and has not
	// said to have forgotten, by what passed on the wire.
	registered map[int]bool
	// seqnos are the last values in each context's status page.
	seqnos map[abi.GUCID][2]uint32
	owners map[abi.GUCID]core.EntityID
}

func newLaw(w *world) *law {
	return &law{w: w, registered: map[int]bool{}, seqnos: map[abi.GUCID][2]uint32{}, owners: map[abi.GUCID]core.EntityID{}}
}

// observe checks what must hold at any time.
func (l *law) observe() {
	if l.w.driver == nil {
		return
	}
	l.follow()
	l.contexts()
	if free, lent, all := l.w.driver.Credits(); free+lent > all {
		l.w.Broken("credit: %d free and %d lent of %d", free, lent, all)
	}
}

// follow reads the trace: an id is not used again before the firmware has
// forgotten it.
func (l *law) follow() {
	for _, line := range l.w.Trace.Since(l.seen, 1<<14) {
		if line.Seq > l.seen+1 {
			clear(l.registered) // Slower than the trace: ids are checked again from here on.
		}
		l.seen = line.Seq
		var id int
		text := line.Text
		at := strings.Index(text, "guc_id=")
		if at >= 0 {
			fmt.Sscanf(text[at:], "guc_id=%d", &id)
		}
		switch {
		case line.Kind == "H2G" && strings.Contains(text, " FAST_REQUEST REGISTER_CONTEXT "):
			if l.registered[id] {
				l.w.Broken("guc_id %d registered again before its end", id)
			}
			l.registered[id] = true
		case line.Kind == "G2H" && strings.Contains(text, " DEREGISTER_CONTEXT_DONE "), line.Kind == "G2H" && strings.HasPrefix(text, "EVENT DEREGISTER_CONTEXT_DONE "):
			delete(l.registered, id)
		case l.forgets(line.Kind, text):
			clear(l.registered)
		}
	}
}

// forgets reports whether a line says that the firmware knows no context any more.
func (l *law) forgets(kind, text string) bool {
	return kind == "MMIO" && (strings.Contains(text, "CONTROL_CTB") || strings.Contains(text, "CLIENT_SOFT_RESET"))
}

// contexts checks that seqnos in memory only rise and stay within what was handed out.
func (l *law) contexts() {
	for _, c := range l.w.driver.Contexts() {
		last, known := l.seqnos[c.ID]
		if known && l.owners[c.ID] == c.Entity && (!abi.Passed(c.Finished, last[1]) || !abi.Passed(c.Started, last[0])) {
			l.w.Broken("guc_id %d: seqnos fell from %d to %d and %d", c.ID, last, c.Started, c.Finished)
		}
		if !abi.Passed(c.Seqno, c.Finished) || !abi.Passed(c.Seqno, c.Started) {
			l.w.Broken("guc_id %d: seqnos %d and %d in memory, %d handed out", c.ID, c.Started, c.Finished, c.Seqno)
		}
		l.seqnos[c.ID], l.owners[c.ID] = [2]uint32{c.Started, c.Finished}, c.Entity
	}
}

// quiet checks what must hold when nothing is under way: the credit is back but for
// what lost messages took, and every question has its answer.
func (l *law) quiet() {
	l.w.T.Helper()
	free, lent, all := l.w.driver.Credits()
	awaited, leaked := l.w.driver.Awaited()
	if awaited != 0 || free+lent+3*leaked != all {
		l.w.Broken("not quiet: %d answers awaited, credit %d free, %d lent, %d contexts leaked, of %d", awaited, free, lent, leaked, all)
	}
	for job, n := range l.w.Engine.Running {
		if n != 0 {
			l.w.Broken("job %d is on an engine %d times", job, n)
		}
	}
	if c := l.w.firmware.Counters(); c.ModeSets != c.ModeDones+c.ModesForgotten {
		l.w.Broken("%d mode sets, %d answered, %d forgotten", c.ModeSets, c.ModeDones, c.ModesForgotten)
	}
}
