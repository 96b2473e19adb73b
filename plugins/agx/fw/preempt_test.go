package fw_test

import (
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/plugins/agx/abi"
	"github.com/gpuwm/gpuwm/plugins/agx/fw"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// preemptible puts a command into the ring that may be made to leave, and a queue's info that allows that; change
// changes both.
func (q *queue) preemptible(work uint64, change func(rc *abi.RunCompute, end *abi.FinalizeCompute, info *abi.QueueInfo)) (value uint32) {
	h := q.h
	h.Helper()
	var info abi.QueueInfo
	if err := h.abi.Decode(h.bytes(q.info, h.abi.Size(&info)), &info); err != nil {
		h.Fatal(err)
	}
	info.Priority = abi.PlainPriority(q.level)
	value = q.command(work, func(rc *abi.RunCompute, ops *[]abi.Operation) {
		end := (*ops)[4].(*abi.FinalizeCompute)
		for _, op := range (*ops)[:4] {
			end.Restart -= int32(len(h.abi.AppendOp(nil, op)))
		}
		if change != nil {
			change(rc, end, &info)
		}
	})
	if q.fresh { // From the first kick on it is the firmware's.
		h.write(q.info, &info)
	}
	q.expect(1)
	q.kick()
	return value
}

// TestComputePreempt: a command leaves the pipe for a stronger one where firmware, command and queue allow it, and
// goes on after it where it was.
func TestComputePreempt(t *testing.T) {
	type rc = *abi.RunCompute
	type end = *abi.FinalizeCompute
	type info = *abi.QueueInfo
	for name, c := range map[string]struct {
		script  string
		change  func(rc, end, info)
		off     bool
		at      time.Duration // when the strong one is done
		timeout bool
	}{
		"preempted":        {script: "workgroup=1ms", at: 16 * time.Millisecond},
		"off":              {script: "workgroup=1ms", off: true, at: 105 * time.Millisecond},
		"command forbids":  {script: "workgroup=1ms", change: func(c rc, _ end, _ info) { c.Meta.NoPreemption = 1 }, at: 105 * time.Millisecond},
		"queue forbids":    {script: "workgroup=1ms", change: func(_ rc, _ end, i info) { i.Priority = abi.ComputePriority(3) }, at: 105 * time.Millisecond},
		"no way back":      {script: "workgroup=1ms", change: func(_ rc, e end, _ info) { e.Restart = 0 }, at: 105 * time.Millisecond},
		"way back to else": {script: "workgroup=1ms", change: func(_ rc, e end, _ info) { e.Restart += 8 }, at: 105 * time.Millisecond},
		"store too long":   {script: "workgroup=1ms hang at 10", at: 105500 * time.Microsecond, timeout: true}, // 40 ms to store, 50 ms to be killed.
	} {
		t.Run(name, func(t *testing.T) {
			h := newReady(t, func(cfg *fw.Config) { cfg.ComputePreempt = !c.off })
			weak, strong := h.queue(3, 1, 1), h.queue(1, 2, 2)
			work := h.dispatch(c.script, 100)
			value := weak.preemptible(work, c.change)
			h.advance(10500 * time.Microsecond)
			strong.submit("workgroup=1ms", 5)
			h.advance(c.at - 1 - h.clock.Now())
			if h.stamp(2) == strong.value {
				t.Error("the strong one is done too early")
			}
			if h.advance(1); h.stamp(2) != strong.value {
				t.Errorf("the strong one is not done: %+v", h.fw.Queues())
			}
			h.advance(time.Second)
			if h.stamp(1) != value || h.fw.Counters().Misuses > 0 {
				t.Errorf("stamp %#x, want %#x", h.stamp(1), value)
			}
			r, preempted := h.report(work, 100), h.fw.Counters().Preempted
			switch {
			case c.timeout:
				if r.Status != hw.StatusFault || r.Cause != hw.CauseHang || preempted != 0 || h.fw.Counters().Timeouts != 1 {
					t.Errorf("%+v, preempted %d times", r, preempted)
				}
			case r.Status != hw.StatusDone || r.Executed != 100 || preempted != 0 != (name == "preempted"):
				t.Errorf("%+v, preempted %d times", r, preempted)
			}
		})
	}
}

// TestHaltWhileStored: a halt of the GPU does not concern a command that is not on it.
func TestHaltWhileStored(t *testing.T) {
	h := newPlanned(t, "command id=3 fault", func(cfg *fw.Config) { cfg.ComputePreempt = true })
	weak, strong := h.queue(3, 1, 1), h.queue(1, 2, 2)
	work := h.dispatch("workgroup=1ms", 20)
	value := weak.preemptible(work, nil)
	h.advance(5500 * time.Microsecond)
	h.resumes = false
	strong.submit("workgroup=1ms", 5)
	h.advance(time.Millisecond) // The strong one faults at once.
	if q := h.fw.Queues(); q[0].State != "stored" || len(h.halts) != 0 {
		t.Fatalf("%+v", q)
	}
	h.resumes = true
	h.advance(time.Millisecond)
	if len(h.halts) != 1 || h.halts[0].Slot != 2 {
		t.Errorf("halted %+v", h.halts)
	}
	h.advance(50 * time.Millisecond)
	if r := h.report(work, 20); r.Status != hw.StatusDone || r.Executed != 20 || h.stamp(1) != value {
		t.Errorf("%+v", r)
	}
	h.do(weak.end())
	if c := h.fw.Counters(); c.Misuses > 0 || c.Preempted != 1 {
		t.Errorf("%+v", c)
	}
}
