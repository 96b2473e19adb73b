package agx

import (
	"fmt"
	"io"
	"slices"

	"github.com/gpuwm/gpuwm/plugins/agx/abi"
	"github.com/gpuwm/gpuwm/plugins/agx/driver"
)

// law is what must hold on both sides, whatever goes wrong. observe is called after
// every step of the world.
type law struct {
	w *world
	// seen is the last line of the trace that was looked at; hash takes the whole
	// trace, when somebody compares runs.
	seen uint64
	// told is the last line that a document has.
	told uint64
	// queues is how many there were at the last look at the VM slots.
	queues int
	hash   io.Writer
}

func newLaw(w *world) *law { return &law{w: w} }

// observe checks what must hold at any time.
func (l *law) observe() {
	w := l.w
	if w.driver == nil {
		return
	}
	for _, line := range w.Trace.Since(l.seen, 1<<14) {
		l.seen = line.Seq
		if l.hash != nil {
			fmt.Fprintln(l.hash, line)
		}
	}
	c := w.firmware.Counters()
	if c.Violations > 0 || c.Misuses > 0 {
		w.Broken("the host broke the rules of the firmware: %d misuses, %d violations", c.Misuses, c.Violations)
	}
	queues := w.driver.Queues()
	l.bindings(queues)
	slots := map[uint32]driver.QueueView{}
	for _, q := range queues {
		if q.Outstanding > driver.DepthMax {
			w.Broken("queue %d has %d commands in its ring", q.ID, q.Outstanding)
		}
		if !q.Held {
			if q.Outstanding > 0 {
				w.Broken("queue %d has commands and no slot", q.ID)
			}
			continue
		}
		if other, taken := slots[q.Slot]; taken {
			w.Broken("queues %d and %d have event slot %d", q.ID, other.ID, q.Slot)
		}
		slots[q.Slot] = q
		if q.Outstanding > 0 && abi.StampsBetween(q.Completed, q.Submitted) < 0 {
			w.Broken("queue %d: completed %#x, submitted %#x", q.ID, q.Completed, q.Submitted)
		}
	}
}

// bindings checks that a VM slot names the address space of a queue that is there, or none. It looks when
// one has come or gone, or is about to go.
func (l *law) bindings(queues []driver.QueueView) {
	ending := func(q driver.QueueView) bool { return q.State == "destroying" }
	if len(queues) == l.queues && !slices.ContainsFunc(queues, ending) {
		return
	}
	l.queues = len(queues)
	for vm, table := range l.w.driver.Bindings() {
		if table == 0 {
			continue
		}
		at := slices.IndexFunc(queues, func(q driver.QueueView) bool { return q.Table == table })
		if at < 0 || queues[at].VM != uint32(vm) || ending(queues[at]) {
			l.w.Broken("vm slot %d names the address space %#x of nobody; queues %+v", vm, table, queues)
		}
	}
}

// quiet checks what must hold when nothing is under way: every slot and all the memory that was
// not there at the beginning are back.
func (l *law) quiet() {
	l.w.T.Helper()
	s := l.w.driver.State()
	if s.EventSlots != 0 || s.VMSlots != 0 || s.Load != 0 || s.Pending != 0 || s.Active != 0 {
		l.w.Broken("not quiet: %+v", s)
	}
	for job, n := range l.w.Engine.Running {
		if n != 0 {
			l.w.Broken("job %d is on the engine %d times", job, n)
		}
	}
}
