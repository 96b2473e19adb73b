package fw_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	testengine "github.com/gpuwm/gpuwm/plugins/engine/test"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/mali/abi"
	"github.com/gpuwm/gpuwm/plugins/mali/fw"
)

// realClock is the machine's clock as the test engine declares it.
type realClock struct{ hw.Clock }

func (c realClock) AfterFunc(d time.Duration, f func()) testengine.Timer {
	return c.Clock.AfterFunc(d, f)
}

// TestRunWithWork drives the firmware on a goroutine of its own, in a bubble.
func TestRunWithWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, "", nil)
		clock := hw.NewRealClock()
		h.cfg.Clock, h.cfg.Latency = clock, -1
		h.cfg.Engine = testengine.New(testengine.Config{Clock: realClock{clock}})
		var err error
		if h.fw, err = fw.New(h.cfg); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- h.fw.Run(ctx) }()
		h.settle = func(d time.Duration) {
			h.ports.Doorbell.Raise()
			if d > 0 {
				<-time.After(d)
			}
			synctest.Wait()
		}
		h.boot()
		g := h.group(h.vm(1), 0, 1)
		g.start()
		k := g.kernel("workgroup=20ms", 5)
		q := g.queues[0]
		q.job(k.instructions()...)
		h.run(70 * ms)
		if r := k.report(); r.Status != hw.StatusRunning || r.Done == 0 {
			t.Errorf("no sample: %+v", r)
		}
		g.leave(abi.GroupSuspend, 30*ms)
		g.move(3, 2)
		h.run(100 * ms)
		if q.seqno() != 1 || k.report().Executed != 5 {
			t.Errorf("seqno %d, %+v\n%s", q.seqno(), k.report(), h.lines())
		}
		g.output(5)
		q.job(g.kernel("hang at 1", 5).instructions()...)
		h.run(50 * ms)
		cancel()
		if err := <-ended; err != nil { // The test engine can abort.
			t.Error(err)
		}
	})
}

// TestTraceOfAJob shows what a trace looks like.
func TestTraceOfAJob(t *testing.T) {
	h, g := one(t, 1, "", nil)
	k := g.kernel("workgroup=1ms", 2)
	g.queues[0].job(k.instructions()...)
	h.run(5 * ms)
	g.leave(abi.GroupSuspend, 0)
	var kinds []string
	for _, l := range h.trace.Last(100) {
		switch l.Kind {
		case "RETIRE", "CSG_ACK", "CSG_REQ", "RUN", "DB", "MCU":
			kinds = append(kinds, l.At.String()+" "+l.Kind+" "+l.Text)
		}
	}
	want := strings.Split(strings.TrimSpace(traceOfAJob), "\n")
	for i := range max(len(kinds), len(want)) {
		if i >= len(kinds) || i >= len(want) || kinds[i] != strings.TrimSpace(want[i]) {
			t.Fatalf("line %d differs; the trace is\n%s", i, strings.Join(kinds, "\n"))
		}
	}
}

const traceOfAJob = `
0s MCU control=2
0s MCU status enabled
10µs DB 0
10µs DB 0
10µs CSG_REQ csg=0 START|EP_CFG
10µs CSG_ACK csg=0 EP_CFG
10µs CSG_ACK csg=0 START
10µs CSG_ACK csg=0 IDLE
10µs DB 1
10µs RETIRE csg=0 cs=0 extract=0x8 MOVE32 dst=r94 imm=0x1
10µs RETIRE csg=0 cs=0 extract=0x10 FLUSH_CACHE2 l2=0x3 lsc=0x3 other=0x2 flush=r94
10µs RETIRE csg=0 cs=0 extract=0x18 MOVE48 dst=d92 imm=0x7f0000001280
10µs RETIRE csg=0 cs=0 extract=0x20 MOVE32 dst=r94 imm=0x50
11µs RETIRE csg=0 cs=0 extract=0x28 WAIT sb=0x1
11µs RETIRE csg=0 cs=0 extract=0x30 CALL addr=d92 length=r94
11µs RETIRE csg=0 cs=0 extract=0x38 MOVE48 dst=d92 imm=0x7f0000001000
11µs RETIRE csg=0 cs=0 extract=0x40 MOVE48 dst=d94 imm=0x1
11µs RUN csg=0 cs=0 from 0 cores=0x5
2.011ms RUN csg=0 cs=0 done
2.011ms RETIRE csg=0 cs=0 extract=0x48 WAIT sb=0xff
2.011ms CSG_ACK csg=0 SYNC_UPDATE
2.011ms RETIRE csg=0 cs=0 extract=0x50 SYNC_ADD64 data=d94 addr=d92 propagate=0x1
2.011ms RETIRE csg=0 cs=0 extract=0x58 ERROR_BARRIER
2.011ms RETIRE csg=0 cs=0 extract=0x60 NOP
2.011ms RETIRE csg=0 cs=0 extract=0x68 NOP
2.011ms RETIRE csg=0 cs=0 extract=0x70 NOP
2.011ms RETIRE csg=0 cs=0 extract=0x78 NOP
2.011ms RETIRE csg=0 cs=0 extract=0x80 NOP
5.01ms DB 0
5.01ms CSG_REQ csg=0 SUSPEND
5.01ms CSG_ACK csg=0 SUSPEND
`
