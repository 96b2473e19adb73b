package rig

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/gpuwm/gpuwm/core"
	testengine "github.com/gpuwm/gpuwm/plugins/engine/test"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/sdk"
)

// T is what *testing.T and a test that says how to repeat itself share.
type T interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

// Driver is a vendor's driver that is stepped.
type Driver interface {
	sdk.Device
	Step() bool
}

// Firmware is a vendor's firmware that is stepped.
type Firmware interface {
	Step()
	Check() error
}

// World is one device on one goroutine and one clock. The vendor's test fills in
// Driver and Firmware; everything else is ready after New.
type World struct {
	T        T
	Clock    *hw.VirtualClock
	Arena    *hw.Arena
	Engine   *Engine
	Trace    *hw.Trace
	Driver   Driver
	Firmware Firmware
	// Failed is what the driver's Failed was called with; Fail is that function.
	Failed []error
	// Observe, unless nil, checks after every step what the vendor's law is.
	Observe func()
	// Mute stops the firmware without telling anybody.
	Mute bool
	// Still keeps the clock from moving while a call waits.
	Still bool
	// Light leaves the checks after each step out, where there are thousands of entities.
	Light bool
	// Priority is that of entities to come; normal unless set.
	Priority core.Priority
	Lives    []*Life
	// Sizes are the workgroups of each job.
	Sizes map[core.JobID]uint64
	// Note is said when the test breaks, for instance the plan.
	Note string
	// Log holds every report in order, as text.
	Log      []string
	began    time.Duration
	entities core.EntityID
}

const (
	// worldTime bounds a run in virtual time.
	worldTime  = 24 * time.Hour
	traceLines = 1 << 14
	logTail    = 20
)

// New makes a world without driver and firmware; clock may go on from another one's.
func New(t T, clock *hw.VirtualClock, arena uint64) *World {
	t.Helper()
	a, err := hw.NewArena(arena)
	if err != nil {
		t.Fatal(err)
	}
	return &World{T: t, Clock: clock, Arena: a, Engine: NewEngine(clock), Trace: hw.NewTrace(traceLines),
		Sizes: map[core.JobID]uint64{}, began: clock.Now()}
}

// Fail is for the driver's configuration.
func (w *World) Fail(err error) {
	w.Failed = append(w.Failed, err)
	w.Log = append(w.Log, "failed")
}

// End gives the memory back.
func (w *World) End() {
	w.Engine.Kill()
	w.Driver.Close(context.Background())
	w.Arena.Close()
}

// Broken ends the test with the last of what happened.
func (w *World) Broken(format string, args ...any) {
	w.T.Helper()
	tail := ""
	for _, line := range w.Trace.Last(3 * logTail) {
		tail += "\n" + line.Kind + " " + line.Text
	}
	w.T.Fatalf("%s\n%s\nat %s, failed %v, reports %q\ntrace:%s", fmt.Sprintf(format, args...), w.Note, w.Clock.Now(), w.Failed, w.Log[max(0, len(w.Log)-logTail):], tail)
}

// Settle does what can be done without time passing.
func (w *World) Settle() {
	for {
		if !w.Mute {
			w.Firmware.Step()
			if !w.Light {
				w.OK(w.Firmware.Check())
			}
		}
		busy := w.Driver.Step()
		if !w.Light {
			w.observe()
		}
		if !busy {
			return
		}
	}
}

// observe checks what must hold for every vendor, and then the vendor's own.
func (w *World) observe() {
	for t, count := range w.Engine.Executed {
		if most, known := w.Sizes[t.Job]; known && count > most {
			w.Broken("job %d ran %d workgroups of %d in epoch %d: some twice", t.Job, count, most, t.Epoch)
		}
	}
	if w.Observe != nil {
		w.Observe()
	}
}

// Pump settles and moves the clock to the next thing that is due; false when
// nothing is. It is for the driver's configuration.
func (w *World) Pump() bool {
	w.Settle()
	if w.Still {
		return true
	}
	at, pending := w.Clock.Next()
	if !pending || at-w.began > worldTime {
		return false
	}
	w.Clock.Advance(at - w.Clock.Now())
	return true
}

// Run lets d of virtual time pass.
func (w *World) Run(d time.Duration) {
	end := w.Clock.Now() + d
	for {
		w.Settle()
		at, pending := w.Clock.Next()
		if !pending || at > end {
			break
		}
		w.Clock.Advance(at - w.Clock.Now())
	}
	w.Clock.Advance(end - w.Clock.Now())
	w.Settle()
}

// Until lets time pass until ok.
func (w *World) Until(what string, ok func() bool) {
	w.T.Helper()
	for more := true; !ok(); more = w.Pump() {
		if !more {
			w.Broken("%s: never happened", what)
		}
	}
}

// OK ends the test for an error.
func (w *World) OK(err error) {
	w.T.Helper()
	if err != nil {
		w.Broken("%v", err)
	}
}

// BufferSize is the size of an entity's first buffer: more than one chunk, and no multiple of it.
const BufferSize = 300 << 10

// smallSize is the size of the second one.
const smallSize = 100

// Zeroes is the image of an entity that has not begun.
func Zeroes(buffers []core.BufferSpec) core.ImageSource {
	var contents [][]byte
	for _, b := range buffers {
		contents = append(contents, make([]byte, b.Size))
	}
	return sdk.BufferImage(core.ImageHeader{Version: core.ImageVersion, Buffers: buffers}, contents)
}

// Create makes an entity from an image, nil for one of zeroes.
func (w *World) Create(name string, image core.ImageSource) *Life {
	w.T.Helper()
	l, err := w.TryCreate(name, image)
	w.OK(err)
	return l
}

// TryCreate is Create for what may fail.
func (w *World) TryCreate(name string, image core.ImageSource) (*Life, error) {
	w.entities++
	spec := &core.EntitySpec{ID: w.entities, Name: name, Mode: core.ModeLongRunning,
		Properties: core.Properties{Priority: core.PriorityNormal},
		Buffers:    []core.BufferSpec{{Name: "out", Size: BufferSize}, {Name: "more", Size: smallSize}}}
	if image == nil {
		image = Zeroes(spec.Buffers)
	}
	if w.Priority != "" {
		spec.Properties.Priority = w.Priority
	}
	r := &Reports{World: w, Name: name, Started: map[core.JobID]bool{}, Ended: map[core.JobID]string{}, Usage: map[core.JobID]sdk.Usage{}}
	e, err := w.Driver.Create(context.Background(), spec, image, reporter{r})
	made, _ := e.(Entity)
	l := &Life{Entity: made, Reports: r, Spec: spec}
	if err == nil {
		w.Lives = append(w.Lives, l)
	}
	return l, err
}

// Job makes a job of count workgroups that runs a script of the test engine.
func (w *World) Job(id core.JobID, count uint32, script string) sdk.Job {
	w.T.Helper()
	w.Sizes[id] = max(w.Sizes[id], uint64(count))
	code := []byte(script)
	k := core.Kernel{Digest: core.DigestOf(code), Format: testengine.Format, Code: code}
	w.OK(w.Driver.LoadKernel(context.Background(), k))
	return sdk.Job{Epoch: 1, Spec: &core.JobSpec{ID: id, Kernels: map[string]core.Digest{testengine.Format: k.Digest}, Entry: "main",
		Grid: [3]uint32{count, 1, 1}, Group: [3]uint32{1, 1, 1}, Credits: 1,
		Args: []core.Arg{{Kind: core.ArgBuffer, Buffer: "out"}, {Kind: core.ArgU32, Bits: 7}}}}
}

// Contents saves a suspended entity and returns header and bytes of its first buffer.
func (w *World) Contents(l *Life) (core.ImageHeader, []byte) {
	w.T.Helper()
	image, err := l.Save(context.Background())
	w.OK(err)
	header, contents, err := Copy(image)
	w.OK(err)
	return header, contents[0]
}

// Copy reads an image whole.
func Copy(image core.ImageSource) (core.ImageHeader, [][]byte, error) {
	header := image.Header()
	var contents [][]byte
	for _, b := range header.Buffers {
		contents = append(contents, make([]byte, b.Size))
	}
	err := image.Chunks(func(ref core.ChunkRef, chunk []byte) error {
		copy(contents[ref.Buffer][ref.Index*core.ChunkSize:], chunk)
		return nil
	})
	return header, contents, err
}

// Check saves the entity, which must be idle, or suspended, and compares its first buffer with what so
// many workgroups of its jobs make. It leaves the entity running.
func (w *World) Check(l *Life, done ...uint64) {
	w.T.Helper()
	w.OK(l.Suspend(context.Background()))
	_, got := w.Contents(l)
	// The engine sees whole granules.
	want := make([]byte, (BufferSize+hw.Granule-1)/hw.Granule*hw.Granule)
	for _, count := range done {
		testengine.Apply(want, 0, count)
	}
	if !slices.Equal(got, want[:BufferSize]) {
		w.Broken("%s: the buffer differs from that after %v workgroups", l.Name, done)
	}
	w.OK(l.Resume(context.Background()))
}
