package test

import (
	"bytes"
	"container/heap"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/core/usage"
	"github.com/gpuwm/gpuwm/plugins/engine"
)

// clock is virtual time: calls happen in order of time, then of asking.
type clock struct {
	now   time.Duration
	calls calls
	asked int
}

type call struct {
	at    time.Duration
	order int
	f     func()
}

type calls []*call

func (c calls) Len() int { return len(c) }
func (c calls) Less(i, j int) bool {
	return c[i].at < c[j].at || c[i].at == c[j].at && c[i].order < c[j].order
}
func (c calls) Swap(i, j int) { c[i], c[j] = c[j], c[i] }
func (c *calls) Push(x any)   { *c = append(*c, x.(*call)) }
func (c *calls) Pop() any {
	last := (*c)[len(*c)-1]
	*c = (*c)[:len(*c)-1]
	return last
}

func (c *call) Stop() bool {
	pending := c.f != nil
	c.f = nil
	return pending
}

func (c *clock) Now() time.Duration { return c.now }

func (c *clock) AfterFunc(d time.Duration, f func()) Timer {
	c.asked++
	t := &call{at: c.now + d, order: c.asked, f: f}
	heap.Push(&c.calls, t)
	return t
}

// run lets time pass until the end, or until nothing is left to happen.
func (c *clock) run(end time.Duration) {
	for len(c.calls) > 0 && c.calls[0].at <= end {
		next := heap.Pop(&c.calls).(*call)
		c.now = next.at
		if f := next.f; f != nil {
			next.f = nil
			f()
		}
	}
	c.now = max(c.now, end)
}

const hour = time.Hour

// dispatch is a dispatch of n workgroups on 16 words.
func dispatch(script string, n uint32) (engine.Dispatch, []byte) {
	b := make([]byte, 64<<10)
	return engine.Dispatch{Kernel: core.Kernel{Format: Format, Code: []byte(script)}, Entry: "any", Grid: [3]uint32{n, 1, 1}, Count: uint64(n),
		Args:     []engine.Arg{{Bits: 3}, {Buffer: true, Bits: 1<<20 + 64<<10 - 128}},
		Segments: []engine.Segment{{Address: 1 << 20, Size: 64 << 10, Bytes: b, File: -1}}, Job: 1, Epoch: 1}, b[64<<10-128:]
}

func start(t *testing.T, e *Engine, d engine.Dispatch) (*Execution, *int) {
	t.Helper()
	notices := new(int)
	x, err := e.Start(d, func() { *notices++ })
	if err != nil {
		t.Fatal(err)
	}
	return x.(*Execution), notices
}

func TestTimesAndOutput(t *testing.T) {
	for _, c := range []struct {
		script string
		took   time.Duration
	}{{"", 10 * time.Millisecond}, {"workgroup=3s", 30 * time.Second}, {"cores=4 workgroup=1s", 3 * time.Second}} {
		k := &clock{}
		d, out := dispatch(c.script, 10)
		x, notices := start(t, New(Config{Clock: k}), d)
		k.run(c.took - 1)
		if *notices != 0 {
			t.Errorf("%q: over too early", c.script)
		}
		k.run(c.took)
		if r := x.Result(); *notices != 1 || r.Done != 10 || r.Executed != c.took || r.Err != nil {
			t.Errorf("%q: %d notices, %+v", c.script, *notices, r)
		}
		want := make([]byte, 128)
		Apply(want, 0, 10)
		if !bytes.Equal(out, want) || bytes.Equal(out, make([]byte, 128)) {
			t.Errorf("%q: wrong output", c.script)
		}
	}
}

func TestStopAndContinueAnywhere(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	path := filepath.Join(t.TempDir(), "usage")
	u, err := usage.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = u.Close() })
	k := &clock{}
	e := New(Config{Clock: k, Usage: u})
	d, out := dispatch("cores=3", 1000)
	for d.First < 1000 {
		d.Count = 1000 - d.First
		x, notices := start(t, e, d)
		k.run(k.now + time.Duration(random.IntN(50_000))*time.Microsecond)
		x.Stop()
		x.Stop()
		k.run(k.now + time.Millisecond)
		if r := x.Result(); *notices != 1 || r.Err != nil {
			t.Fatalf("%d notices, %+v", *notices, r)
		}
		d.First += x.Result().Done
	}
	want := make([]byte, 128)
	Apply(want, 0, 1000)
	if !bytes.Equal(out, want) {
		t.Error("wrong output")
	}
	counts, err := usage.Read(path)
	if err != nil || counts[usage.Key{Job: 1, Epoch: 1}] != 1000 {
		t.Errorf("counts %v, %v", counts, err)
	}
}

func TestTrap(t *testing.T) {
	k := &clock{}
	d, _ := dispatch("cores=4 trap at 6", 100)
	x, notices := start(t, New(Config{Clock: k}), d)
	k.run(hour)
	var fault *core.FaultError
	if r := x.Result(); *notices != 1 || r.Done != 6 || !errors.As(r.Err, &fault) || fault.Cause != core.CauseTrap {
		t.Errorf("%d notices, %+v", *notices, r)
	}
}

func TestHangAndAbort(t *testing.T) {
	k := &clock{}
	d, out := dispatch("cores=2 hang at 5", 20)
	x, notices := start(t, New(Config{Clock: k}), d)
	x2, notices2 := start(t, New(Config{Clock: k}), d)
	k.run(hour)
	x.Stop()
	k.run(2 * hour)
	if done, took := x.Progress(); done != 19 || took != 2*hour || *notices != 0 {
		t.Errorf("%d done in %v, %d notices", done, took, *notices)
	}
	x.Abort()
	x.Abort()
	if r := x.Result(); *notices != 1 || r.Done != 5 || r.Err != nil || r.Executed != 2*hour {
		t.Errorf("%d notices, %+v", *notices, r)
	}
	before := bytes.Clone(out)
	x2.Abort()
	k.run(3 * hour)
	if *notices2 != 1 || !bytes.Equal(before, out) {
		t.Error("something happened after the abort")
	}
}

func TestAbortLosesWhatIsInFlight(t *testing.T) {
	k := &clock{}
	d, out := dispatch("cores=4", 20)
	x, notices := start(t, New(Config{Clock: k}), d)
	k.run(2500 * time.Microsecond)
	x.Abort()
	k.run(hour)
	want := make([]byte, 128)
	Apply(want, 0, 8)
	if r := x.Result(); r.Done != 8 || *notices != 1 || !bytes.Equal(out, want) {
		t.Errorf("%+v, %d notices", r, *notices)
	}
}

func TestRefusals(t *testing.T) {
	k := &clock{}
	e := New(Config{Clock: k})
	for _, bad := range []string{"workgroup=1", "workgroup=0s", "cores=0", "cores=9999", "hang", "hang at", "trap at x", "nonsense"} {
		kernel := core.Kernel{Format: Format, Code: []byte(bad)}
		if err := e.Check(kernel, "any"); !errors.Is(err, core.ErrInvalid) {
			t.Errorf("%q: %v", bad, err)
		}
		d, _ := dispatch(bad, 1)
		x, notices := start(t, e, d)
		k.run(k.now)
		var fault *core.FaultError
		if !errors.As(x.Result().Err, &fault) || fault.Cause != core.CauseKernel || *notices != 1 {
			t.Errorf("%q ran: %+v", bad, x.Result())
		}
	}
	if err := e.Check(core.Kernel{Format: core.FormatWasm}, "any"); !errors.Is(err, core.ErrUnsupported) {
		t.Errorf("other format: %v", err)
	}
	d, _ := dispatch("", 1)
	d.Args[1].Bits = 7
	x, _ := start(t, e, d)
	k.run(k.now)
	if x.Result().Err == nil {
		t.Error("an address in no buffer was taken")
	}
	d.Count = 2
	if _, err := e.Start(d, nil); !errors.Is(err, core.ErrInvalid) {
		t.Errorf("range beyond the grid: %v", err)
	}
	d.Count = 0
	x, notices := start(t, e, d)
	k.run(k.now)
	if *notices != 1 || x.Result().Done != 0 {
		t.Errorf("empty dispatch: %d notices", *notices)
	}
	_ = e.Close()
	if _, err := e.Start(d, nil); !errors.Is(err, core.ErrClosed) {
		t.Errorf("after close: %v", err)
	}
}
