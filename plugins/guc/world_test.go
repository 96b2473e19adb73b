package guc

import (
	"context"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/guc/abi"
	"github.com/gpuwm/gpuwm/plugins/guc/driver"
	"github.com/gpuwm/gpuwm/plugins/guc/fw"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/sdk"
	"github.com/hashicorp/go-hclog"
)

// fatal is what *testing.T and *rapid.T share.
type fatal interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

// world is driver, firmware and scripted engine on one goroutine and one clock.
type world struct {
	t        fatal
	clock    *hw.VirtualClock
	arena    *hw.Arena
	ports    hw.Ports
	engine   *scripted
	firmware *fw.Firmware
	// firmwareConfig is what it was made of.
	firmwareConfig fw.Config
	driver         *driver.Driver
	// mute stops the firmware without telling anybody.
	mute   bool
	failed []error
	faults *hw.Faults
	trace  *hw.Trace
	law    *law
	began  time.Duration
	// still keeps the clock from moving while a call waits.
	still bool
	// light leaves the checks after each step out: there are thousands of entities.
	light    bool
	entities core.EntityID
	lives    []*life
	// sizes are the workgroups of each job.
	sizes map[core.JobID]uint64
	// priority is that of entities to come; normal unless set.
	priority core.Priority
	// log holds every report in order, as text.
	log []string
}

// worldTime bounds a run in virtual time.
const worldTime = time.Hour

// setup is how a world is made.
type setup struct {
	// plan is what goes wrong, as text.
	plan     string
	faults   *hw.Faults
	firmware func(*fw.Config)
	driver   func(*driver.Config)
	// arena is the size of the memory; 256 MiB by default.
	arena uint64
	clock *hw.VirtualClock
	// log takes the driver's warnings as JSON lines; nil drops them.
	log io.Writer
}

func newWorld(t fatal, tweak func(*driver.Config)) (*world, func()) {
	t.Helper()
	w, err := setup{driver: tweak}.make(t)
	if err != nil {
		t.Fatal(err)
	}
	return w, w.end
}

// end gives the memory back.
func (w *world) end() {
	w.engine.dead = true
	w.driver.Close(context.Background())
	w.arena.Close()
}

// make assembles a world; an error is the driver's that did not start.
func (s setup) make(t fatal) (*world, error) {
	t.Helper()
	w := &world{t: t, clock: s.clock, faults: s.faults, sizes: map[core.JobID]uint64{}}
	if w.clock == nil {
		w.clock = hw.NewVirtualClock()
	}
	w.began = w.clock.Now()
	w.engine = newScripted(w.clock)
	if s.arena == 0 {
		s.arena = 256 << 20
	}
	var err error
	if w.arena, err = hw.NewArena(s.arena); err != nil {
		t.Fatal(err)
	}
	if s.plan != "" {
		plan, err := hw.ParsePlan(s.plan)
		if err != nil {
			t.Fatal(err)
		}
		if w.faults, err = fw.NewFaults(plan); err != nil {
			t.Fatal(err)
		}
	}
	w.trace = hw.NewTrace(1 << 14)
	w.law = newLaw(w)
	registers, err := hw.NewRegisters(w.arena, abi.RegWindows[:]...)
	if err != nil {
		t.Fatal(err)
	}
	w.ports = hw.Ports{Registers: registers, Doorbell: hw.NewLine(), Interrupt: hw.NewLine()}
	firmware := fw.Config{Arena: w.arena, Ports: w.ports, Engine: w.engine, Clock: w.clock, Trace: w.trace, Faults: w.faults}
	if s.firmware != nil {
		s.firmware(&firmware)
	}
	w.firmwareConfig = firmware
	if w.firmware, err = fw.New(firmware); err != nil {
		t.Fatal(err)
	}
	config := driver.Config{
		Arena: w.arena, Ports: w.ports, Clock: w.clock, Pump: w.pump, Name: "guc0", Engine: "scripted",
		Formats: []string{formatScript}, EntitiesMax: 64,
		Failed: func(err error) { w.failed = append(w.failed, err); w.log = append(w.log, "failed") },
	}
	if s.log != nil {
		config.Log = hclog.New(&hclog.LoggerOptions{Output: s.log, Level: hclog.Warn, JSONFormat: true})
	}
	if s.driver != nil {
		s.driver(&config)
	}
	if w.driver, err = driver.New(config); err != nil {
		t.Fatal(err)
	}
	return w, w.driver.Start(context.Background())
}

// testWorld is a world that ends with its test.
func testWorld(t *testing.T, tweak func(*driver.Config)) *world {
	t.Helper()
	w, end := newWorld(t, tweak)
	t.Cleanup(end)
	return w
}

// settle does what can be done without time passing.
func (w *world) settle() {
	for {
		if !w.mute {
			w.firmware.Step()
			if !w.light {
				w.ok(w.firmware.Check())
			}
		}
		busy := w.driver.Step()
		if !w.light {
			w.law.observe()
		}
		if !busy {
			return
		}
	}
}

// pump settles and moves the clock to the next thing that is due.
func (w *world) pump() bool {
	w.settle()
	if w.still {
		return true
	}
	at, pending := w.clock.Next()
	if !pending || at-w.began > worldTime {
		return false
	}
	w.clock.Advance(at - w.clock.Now())
	return true
}

// run lets d of virtual time pass.
func (w *world) run(d time.Duration) {
	end := w.clock.Now() + d
	for {
		w.settle()
		at, pending := w.clock.Next()
		if !pending || at > end {
			break
		}
		w.clock.Advance(at - w.clock.Now())
	}
	w.clock.Advance(end - w.clock.Now())
	w.settle()
}

// until lets time pass until ok.
func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	for more := true; !ok(); more = w.pump() {
		if !more {
			w.t.Fatalf("%s: never happened; last reports %q", what, w.log[max(0, len(w.log)-20):])
		}
	}
}

// reports takes the reports of one entity.
type reports struct {
	w       *world
	name    string
	started map[core.JobID]bool
	ended   map[core.JobID]string
	usage   map[core.JobID]sdk.Usage
	lost    []lostReport
}

type lostReport struct {
	guilty bool
	job    core.JobID
	usage  sdk.Usage
	cause  core.Cause
	detail string
}

func (w *world) newReports(name string) *reports {
	return &reports{w: w, name: name, started: map[core.JobID]bool{}, ended: map[core.JobID]string{}, usage: map[core.JobID]sdk.Usage{}}
}

func (r *reports) Started(job core.JobID) {
	if r.started[job] || r.ended[job] != "" {
		r.w.t.Fatalf("%s: job %d started twice or after its end", r.name, job)
	}
	r.started[job] = true
	r.w.log = append(r.w.log, fmt.Sprintf("%s started %d", r.name, job))
}

func (r *reports) end(job core.JobID, how string, u sdk.Usage) {
	if r.ended[job] != "" || len(r.lost) > 0 {
		r.w.t.Fatalf("%s: job %d %s after %q, lost %v", r.name, job, how, r.ended[job], r.lost)
	}
	r.ended[job], r.usage[job] = how, u
	r.w.log = append(r.w.log, fmt.Sprintf("%s %s %d", r.name, how, job))
}

func (r *reports) Completed(job core.JobID, u sdk.Usage) {
	if !r.started[job] {
		r.w.t.Fatalf("%s: job %d completed before it started", r.name, job)
	}
	r.end(job, "completed", u)
}
func (r *reports) Cancelled(job core.JobID, u sdk.Usage) { r.end(job, "cancelled", u) }
func (r *reports) Lost(guilty bool, job core.JobID, u sdk.Usage, cause core.Cause, detail string) {
	r.w.law.lost(r, guilty, job)
	r.lost = append(r.lost, lostReport{guilty, job, u, cause, detail})
	r.w.log = append(r.w.log, fmt.Sprintf("%s lost %d %s guilty=%t", r.name, job, cause, guilty))
}

// life is an entity with its reports.
type life struct {
	entity
	*reports
	spec *core.EntitySpec
	// given are the jobs that were taken, in order.
	given     []core.JobID
	destroyed bool
}

// Run notes what was taken.
func (l *life) Run(ctx context.Context, j sdk.Job) error {
	err := l.entity.Run(ctx, j)
	if err == nil {
		l.given = append(l.given, j.Spec.ID)
	}
	return err
}

// Suspend checks that nothing of the entity is on an engine when it returns.
func (l *life) Suspend(ctx context.Context) error {
	err := l.entity.Suspend(ctx)
	for _, id := range l.given {
		if err == nil && l.w.engine.running[id] != 0 {
			l.w.law.broken("%s is suspended, and job %d is on an engine", l.name, id)
		}
	}
	return err
}

// Destroy notes that no report may follow.
func (l *life) Destroy(ctx context.Context) error {
	err := l.entity.Destroy(ctx)
	l.destroyed = l.destroyed || err == nil
	return err
}

// entity is all that the driver's entities can do.
type entity interface {
	sdk.Entity
	sdk.PropertySetter
	sdk.Suspender
	sdk.Saver
	sdk.Sampler
}

const bufferSize = 300 << 10 // More than one chunk, and no multiple of it.

// create makes an entity from an image, nil for one of zeroes.
func (w *world) create(name string, image core.ImageSource) *life {
	w.t.Helper()
	l, err := w.tryCreate(name, image)
	if err != nil {
		w.t.Fatal(err)
	}
	return l
}

func (w *world) tryCreate(name string, image core.ImageSource) (*life, error) {
	w.entities++
	spec := &core.EntitySpec{ID: w.entities, Name: name, Mode: core.ModeLongRunning,
		Properties: core.Properties{Priority: core.PriorityNormal},
		Buffers:    []core.BufferSpec{{Name: "out", Size: bufferSize}, {Name: "more", Size: 100}}}
	if image == nil {
		image = sdk.BufferImage(core.ImageHeader{Version: core.ImageVersion, Buffers: spec.Buffers},
			[][]byte{make([]byte, bufferSize), make([]byte, 100)})
	}
	if w.priority != "" {
		spec.Properties.Priority = w.priority
	}
	r := w.newReports(name)
	e, err := w.driver.Create(context.Background(), spec, image, r)
	made, _ := e.(entity)
	l := &life{entity: made, reports: r, spec: spec}
	if err == nil {
		w.lives = append(w.lives, l)
	}
	return l, err
}

// job makes a job of count workgroups that runs the script.
func (w *world) job(id core.JobID, count uint32, script string) sdk.Job {
	w.t.Helper()
	w.sizes[id] = max(w.sizes[id], uint64(count))
	code := []byte(script)
	k := core.Kernel{Digest: core.DigestOf(code), Format: formatScript, Code: code}
	if err := w.driver.LoadKernel(context.Background(), k); err != nil {
		w.t.Fatal(err)
	}
	return sdk.Job{Epoch: 1, Spec: &core.JobSpec{ID: id, Kernels: map[string]core.Digest{formatScript: k.Digest}, Entry: "main",
		Grid: [3]uint32{count, 1, 1}, Group: [3]uint32{1, 1, 1}, Credits: 1,
		Args: []core.Arg{{Kind: core.ArgBuffer, Buffer: "out"}, {Kind: core.ArgU32, Bits: 7}}}}
}

func (w *world) ok(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// contents saves a suspended entity and returns header and bytes of its first buffer.
func (w *world) contents(l *life) (core.ImageHeader, []byte) {
	w.t.Helper()
	image, err := l.Save(context.Background())
	w.ok(err)
	out := make([]byte, bufferSize)
	w.ok(image.Chunks(func(ref core.ChunkRef, chunk []byte) error {
		if ref.Buffer == 0 {
			copy(out[ref.Index*core.ChunkSize:], chunk)
		}
		return nil
	}))
	return image.Header(), out
}

// expected is what a buffer holds after the jobs ran so many workgroups each, in order.
func expected(jobs ...[2]uint64) []byte {
	out := make([]byte, bufferSize)
	for _, j := range jobs {
		for at := range j[1] {
			mixInto(out, core.JobID(j[0]), at)
		}
	}
	return out
}

// check saves the entity, which must be idle or suspended after, and compares its buffer.
func (w *world) check(l *life, jobs ...[2]uint64) {
	w.t.Helper()
	w.ok(l.Suspend(context.Background()))
	_, got := w.contents(l)
	if !slices.Equal(got, expected(jobs...)) {
		w.t.Fatalf("%s: the buffer differs from %v", l.name, jobs)
	}
	w.ok(l.Resume(context.Background()))
}

// idle checks that all credits are back once nothing is under way.
func (w *world) idle() {
	w.t.Helper()
	w.settle()
	if !w.driver.Idle() || len(w.failed) > 0 {
		w.t.Fatalf("not idle: failed %v, reports %q", w.failed, w.log)
	}
}
