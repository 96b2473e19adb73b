package agx

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/gpuwm/gpuwm/plugins/agx/abi"
	"github.com/gpuwm/gpuwm/plugins/agx/driver"
	"github.com/gpuwm/gpuwm/plugins/agx/fw"
	"github.com/gpuwm/gpuwm/plugins/hw"
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
	// queues is how many there were at the last look at the VM slots, before what they were then.
	queues int
	before []driver.QueueView
	// sequences are the event sequences of each queue's commands, by its uuid.
	sequences map[uint32]span
	hash      io.Writer
}

// span is from where to where a sequence went.
type span struct{ first, last uint64 }

func newLaw(w *world) *law { return &law{w: w, sequences: map[uint32]span{}} }

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
		l.sequence(line)
	}
	c := w.firmware.Counters()
	if c.Violations > 0 || c.Misuses > 0 {
		w.Broken("the host broke the rules of the firmware: %d misuses, %d violations", c.Misuses, c.Violations)
	}
	if c.Preempted > 0 {
		w.Broken("a command was preempted, which the driver forbids")
	}
	queues := w.driver.Queues()
	l.bindings(queues)
	l.bar(queues)
	l.losses(c)
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

// sequence checks that the commands of a queue are numbered without a gap.
func (l *law) sequence(line hw.TraceLine) {
	if line.Kind != "OP" || !strings.Contains(line.Text, "StartCompute") {
		return
	}
	words := map[string]uint64{}
	for _, word := range strings.Fields(line.Text) {
		if name, value, ok := strings.Cut(word, "="); ok {
			words[name], _ = strconv.ParseUint(value, 0, 64)
		}
	}
	uuid, seq := uint32(words["uuid"]), words["event_seq"]
	s, known := l.sequences[uuid]
	if !known {
		s = span{first: seq, last: seq}
	} else if s.last++; s.last != seq {
		l.w.Broken("queue %d: event sequence %d, want %d", uuid, seq, s.last)
	}
	l.sequences[uuid] = s
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

// bar checks that nobody was kicked who goes before a queue that is leaving, or beside it.
func (l *law) bar(queues []driver.QueueView) {
	leaving := func(q driver.QueueView) bool {
		return q.Outstanding > 0 && (q.State == "draining" || q.State == "killed")
	}
	at := func(list []driver.QueueView, id uint32) *driver.QueueView {
		i, found := slices.BinarySearchFunc(list, id, func(q driver.QueueView, id uint32) int { return cmp.Compare(q.ID, id) })
		if !found {
			return nil
		}
		return &list[i]
	}
	for _, out := range queues {
		if was := at(l.before, out.ID); !leaving(out) || was == nil || !leaving(*was) {
			continue
		}
		for _, q := range queues {
			if was := at(l.before, q.ID); q.Level <= out.Level && was != nil && q.Turn != was.Turn {
				l.w.Broken("queue %d was kicked while %d is %s", q.ID, out.ID, out.State)
			}
		}
	}
	l.before = queues
}

// losses checks that nobody is lost before the firmware has taken the work off the GPU and written the
// stamp. Where the plan writes stamps that are wrong, that cannot be said.
func (l *law) losses(c fw.Counters) {
	if len(l.w.Failed) > 0 {
		return
	}
	lost := 0
	for _, life := range l.w.Lives {
		lost += len(life.Lost)
	}
	if uint64(lost) <= c.Killed {
		return
	}
	for _, rule := range l.w.faults.Counts() {
		if rule.Point == fw.PointStamp && rule.Fired > 0 {
			return
		}
	}
	l.w.Broken("%d entities are lost, and the firmware retired %d dead commands", lost, c.Killed)
}

// quiet checks what must hold when nothing is under way: every slot and all the memory that was
// not there at the beginning are back.
func (l *law) quiet() {
	l.w.T.Helper()
	s := l.w.driver.State()
	if s.EventSlots != 0 || s.VMSlots != 0 || s.Load != 0 || s.Pending != 0 || s.Active != 0 {
		l.w.Broken("not quiet: %+v", s)
	}
	if queues := len(l.w.driver.Queues()); s.Remembered > 2*queues {
		l.w.Broken("%d slots remember %d queues", s.Remembered, queues)
	}
	for job, n := range l.w.Engine.Running {
		if n != 0 {
			l.w.Broken("job %d is on the engine %d times", job, n)
		}
	}
}
