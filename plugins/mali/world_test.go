package mali

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
	testengine "github.com/gpuwm/gpuwm/plugins/engine/test"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/mali/abi"
	"github.com/gpuwm/gpuwm/plugins/mali/driver"
	"github.com/gpuwm/gpuwm/plugins/mali/fw"
	"github.com/gpuwm/gpuwm/plugins/rig"
	"github.com/gpuwm/gpuwm/sdk"
	"github.com/hashicorp/go-hclog"
)

var background = context.Background()

// fatal is what *testing.T and a seeded run share.
type fatal interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

// world is driver, firmware and test engine on one goroutine and one clock.
type world struct {
	t        fatal
	clock    *hw.VirtualClock
	arena    *hw.Arena
	engine   *rig.Engine
	firmware *fw.Firmware
	driver   *driver.Driver
	faults   *hw.Faults
	trace    *hw.Trace
	failed   []error
	law      *law
	began    time.Duration
	// light leaves the checks after each step out: there are thousands of entities.
	light    bool
	order    *order
	entities core.EntityID
	lives    []*life
	// sizes are the workgroups of each job.
	sizes    map[core.JobID]uint64
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
	arena    uint64
	clock    *hw.VirtualClock
	// log takes the driver's warnings as JSON lines; nil drops them.
	log io.Writer
	// order says what the two sides may do between each other's moves; nil is one after the other.
	order *order
}

// make assembles a world; an error is the driver's that did not start.
func (s setup) make(t fatal) (*world, error) {
	t.Helper()
	w := &world{t: t, clock: s.clock, faults: s.faults, order: s.order, trace: hw.NewTrace(1 << 13), sizes: map[core.JobID]uint64{}}
	if w.clock == nil {
		w.clock = hw.NewVirtualClock()
	}
	w.began = w.clock.Now()
	if s.arena == 0 {
		s.arena = 256 << 20
	}
	var err error
	w.arena, err = hw.NewArena(s.arena)
	w.ok(err)
	if s.plan != "" {
		plan, err := hw.ParsePlan(s.plan)
		w.ok(err)
		w.faults, err = fw.NewFaults(plan)
		w.ok(err)
	}
	w.law = newLaw(w)
	registers, err := hw.NewRegisters(w.arena, abi.RegWindows[:]...)
	w.ok(err)
	ports := hw.Ports{Registers: registers, Doorbell: s.order.line(w), Interrupt: hw.NewLine()}
	w.engine = rig.NewEngine(w.clock)
	firmware := fw.Config{Arena: w.arena, Ports: ports, Engine: w.engine, Clock: w.clock, Trace: w.trace, Faults: w.faults}
	if s.firmware != nil {
		s.firmware(&firmware)
	}
	w.firmware, err = fw.New(firmware)
	w.ok(err)
	image, err := fw.Image(firmware.Identity)
	w.ok(err)
	config := driver.Config{
		Arena: w.arena, Ports: ports, Clock: w.clock, Pump: w.pump, Firmware: image, Name: "mali0", Engine: testengine.Name,
		Formats: []string{testengine.Format},
		Failed:  func(err error) { w.failed = append(w.failed, err); w.log = append(w.log, "failed") },
	}
	if s.log != nil {
		config.Log = hclog.New(&hclog.LoggerOptions{Output: s.log, Level: hclog.Warn, JSONFormat: true})
	}
	if s.driver != nil {
		s.driver(&config)
	}
	w.driver, err = driver.New(config)
	w.ok(err)
	return w, w.driver.Start(background)
}

// testWorld is a world that ends with its test.
func testWorld(t *testing.T, s setup) *world {
	t.Helper()
	w, err := s.make(t)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.end)
	return w
}

// end gives the memory back.
func (w *world) end() {
	w.engine.Kill()
	w.driver.Close(background)
	if err := w.firmware.PowerOff(); err != nil && !errors.Is(err, hw.ErrRunning) {
		w.t.Fatal(err)
	}
	w.arena.Close()
}

func (w *world) ok(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// settle does what can be done without time passing, and reports whether there was anything.
func (w *world) settle() bool {
	for worked := false; ; worked = true {
		hostFirst := w.order.hostFirst()
		busy := hostFirst && w.driver.Step()
		w.firmware.Step()
		if !w.light {
			if err := w.firmware.Check(); err != nil {
				w.law.broken("firmware: %v", err)
			}
		}
		busy = w.driver.Step() || busy
		if !w.light {
			w.law.observe()
		}
		if !busy {
			return worked
		}
	}
}

// pump settles and moves the clock to the next thing that is due.
func (w *world) pump() bool {
	if w.settle() {
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
			w.law.broken("%s: never happened", what)
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
	cause  core.Cause
	detail string
}

func (r *reports) Started(job core.JobID) {
	if r.started[job] || r.ended[job] != "" {
		r.w.law.broken("%s: job %d started twice or after its end", r.name, job)
	}
	r.started[job] = true
	r.w.log = append(r.w.log, fmt.Sprintf("%s started %d", r.name, job))
}

func (r *reports) end(job core.JobID, how string, u sdk.Usage) {
	if r.ended[job] != "" || len(r.lost) > 0 {
		r.w.law.broken("%s: job %d %s after %q, lost %v", r.name, job, how, r.ended[job], r.lost)
	}
	r.ended[job], r.usage[job] = how, u
	r.w.log = append(r.w.log, fmt.Sprintf("%s %s %d", r.name, how, job))
}

func (r *reports) Completed(job core.JobID, u sdk.Usage) {
	if !r.started[job] {
		r.w.law.broken("%s: job %d completed before it started", r.name, job)
	}
	r.end(job, "completed", u)
}
func (r *reports) Cancelled(job core.JobID, u sdk.Usage) { r.end(job, "cancelled", u) }
func (r *reports) Lost(guilty bool, job core.JobID, u sdk.Usage, cause core.Cause, detail string) {
	if len(r.lost) > 0 || guilty && (job == 0 || r.ended[job] != "") {
		r.w.law.broken("%s: lost twice, or guilty of job %d", r.name, job)
	}
	r.lost = append(r.lost, lostReport{guilty, job, cause, detail})
	r.w.log = append(r.w.log, fmt.Sprintf("%s lost %d %s guilty=%t %s", r.name, job, cause, guilty, detail))
}

// entity is all that the driver's entities can do.
type entity interface {
	sdk.Entity
	sdk.PropertySetter
	sdk.Suspender
	sdk.Saver
	sdk.Sampler
}

// life is an entity with its reports.
type life struct {
	entity
	*reports
	spec *core.EntitySpec
	// given are the jobs that were taken, in order, with their sizes.
	given     []core.JobID
	sizes     map[core.JobID]uint64
	destroyed bool
}

// Run notes what was taken.
func (l *life) Run(ctx context.Context, j sdk.Job) error {
	err := l.entity.Run(ctx, j)
	if err == nil {
		l.given = append(l.given, j.Spec.ID)
		l.sizes[j.Spec.ID] = uint64(j.Spec.Grid[0])
	}
	return err
}

// Suspend checks that nothing of the entity is on the engine when it returns.
func (l *life) Suspend(ctx context.Context) error {
	err := l.entity.Suspend(ctx)
	l.offEngine(err, "suspended")
	return err
}

// Destroy notes that no report may follow, and checks the same.
func (l *life) Destroy(ctx context.Context) error {
	err := l.entity.Destroy(ctx)
	l.destroyed = l.destroyed || err == nil
	l.offEngine(err, "gone")
	return err
}

func (l *life) offEngine(err error, how string) {
	for _, id := range l.given {
		if err == nil && l.w.engine.Running[id] != 0 {
			l.w.law.broken("%s is %s, and job %d is on the engine", l.name, how, id)
		}
	}
}

const bufferSize = 300 << 10 // More than one chunk, and no multiple of it.

// create makes an entity from an image, nil for one of zeroes.
func (w *world) create(name string, image core.ImageSource) *life {
	w.t.Helper()
	l, err := w.tryCreate(name, image)
	w.ok(err)
	return l
}

func (w *world) tryCreate(name string, image core.ImageSource) (*life, error) {
	w.entities++
	size := uint64(bufferSize)
	if w.light {
		size = 64
	}
	spec := &core.EntitySpec{ID: w.entities, Name: name, Mode: core.ModeLongRunning,
		Properties: core.Properties{Priority: core.PriorityNormal}, Buffers: []core.BufferSpec{{Name: "out", Size: size}}}
	if image == nil {
		image = sdk.BufferImage(core.ImageHeader{Version: core.ImageVersion, Buffers: spec.Buffers}, [][]byte{make([]byte, size)})
	}
	if w.priority != "" {
		spec.Properties.Priority = w.priority
	}
	r := &reports{w: w, name: name, started: map[core.JobID]bool{}, ended: map[core.JobID]string{}, usage: map[core.JobID]sdk.Usage{}}
	e, err := w.driver.Create(background, spec, image, r)
	made, _ := e.(entity)
	l := &life{entity: made, reports: r, spec: spec, sizes: map[core.JobID]uint64{}}
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
	k := core.Kernel{Digest: core.DigestOf(code), Format: testengine.Format, Code: code}
	w.ok(w.driver.LoadKernel(background, k))
	return sdk.Job{Epoch: 1, Spec: &core.JobSpec{ID: id, Kernels: map[string]core.Digest{testengine.Format: k.Digest}, Entry: "main",
		Grid: [3]uint32{count, 1, 1}, Group: [3]uint32{1, 1, 1}, Credits: 1,
		Args: []core.Arg{{Kind: core.ArgBuffer, Buffer: "out"}, {Kind: core.ArgU32, Bits: 7}}}}
}

// contents saves a suspended entity and returns header and bytes of its buffer.
func (w *world) contents(l *life) (core.ImageHeader, []byte) {
	w.t.Helper()
	image, err := l.Save(background)
	w.ok(err)
	return image.Header(), w.bytes(image)
}

// bytes are those of an image's first buffer.
func (w *world) bytes(image core.ImageSource) []byte {
	w.t.Helper()
	out := make([]byte, bufferSize)
	w.ok(image.Chunks(func(ref core.ChunkRef, chunk []byte) error {
		copy(out[ref.Index*core.ChunkSize:], chunk)
		return nil
	}))
	return out
}

// copied is an image that survives its device.
func (w *world) copied(image core.ImageSource) core.ImageSource {
	w.t.Helper()
	header := image.Header()
	header.Private = slices.Clone(header.Private)
	return sdk.BufferImage(header, [][]byte{w.bytes(image)})
}

// expected is what a buffer holds after jobs ran so many workgroups each.
func expected(jobs ...uint64) []byte {
	out := make([]byte, bufferSize)
	for _, done := range jobs {
		testengine.Apply(out, 0, done)
	}
	return out
}

// check suspends the entity, compares its buffer, and resumes it.
func (w *world) check(l *life, done ...uint64) {
	w.t.Helper()
	w.ok(l.Suspend(background))
	_, got := w.contents(l)
	if !slices.Equal(got, expected(done...)) {
		w.law.broken("%s: the buffer differs from %v", l.name, done)
	}
	w.ok(l.Resume(background))
}

// law is what must hold whatever goes wrong. observe is called after every step.
type law struct {
	w        *world
	hash     io.Writer
	seen     uint64
	extracts map[core.EntityID][]uint64
}

func newLaw(w *world) *law { return &law{w: w, extracts: map[core.EntityID][]uint64{}} }

// broken ends the test.
func (l *law) broken(format string, args ...any) {
	l.w.t.Helper()
	var tail []string
	for _, line := range l.w.trace.Last(40) {
		tail = append(tail, fmt.Sprintf("%s %s %s", line.At, line.Kind, line.Text))
	}
	text := fmt.Sprintf(format, args...)
	if l.w.driver != nil {
		text += fmt.Sprintf("\nat %s, failed %v, groups %+v", l.w.clock.Now(), l.w.failed, l.w.driver.Groups())
	}
	l.w.t.Fatalf("%s\nreports %q\ntrace:\n%s", text, l.w.log[max(0, len(l.w.log)-20):], strings.Join(tail, "\n"))
}

// observe checks what must hold at any time: no workgroup runs twice in an epoch, who is resident has a priority of its own,
// rings are within bounds and only rise, seqnos are not counted before they are
// handed out, and the firmware saw no mistake of the driver.
func (l *law) observe() {
	if l.w.driver == nil {
		return
	}
	if l.hash != nil {
		for _, line := range l.w.trace.Since(l.seen, 1<<13) {
			l.seen = line.Seq
			fmt.Fprintln(l.hash, line)
		}
	}
	for turn, count := range l.w.engine.Executed {
		if most, known := l.w.sizes[turn.Job]; known && count > most {
			l.broken("job %d ran %d workgroups of %d in epoch %d: some twice", turn.Job, count, most, turn.Epoch)
		}
	}
	slots, priorities := map[int]bool{}, map[int]bool{}
	for _, g := range l.w.driver.Groups() {
		if g.Slot >= 0 {
			if slots[g.Slot] {
				l.broken("slot %d is held twice", g.Slot)
			}
			slots[g.Slot] = true
			if g.State == "active" && !g.Asked {
				if priorities[g.Priority] {
					l.broken("two residents have the priority %d", g.Priority)
				}
				priorities[g.Priority] = true
			}
		}
		last := l.extracts[g.Key]
		for i, q := range g.Queues {
			if q.Extract > q.Insert || q.Insert-q.Extract > q.Size || !g.Dead && q.Done > q.Seqno {
				l.broken("group %d queue %d: %+v", g.Key, i, q)
			}
			// An instruction that was suspended may be fetched again.
			if i < len(last) && q.Extract+abi.InstructionSize < last[i] {
				l.broken("group %d queue %d: EXTRACT fell from %d to %d", g.Key, i, last[i], q.Extract)
			}
		}
		last = last[:0]
		for _, q := range g.Queues {
			last = append(last, q.Extract)
		}
		l.extracts[g.Key] = last
	}
	if v := l.w.firmware.Violations(); len(v) > 0 {
		l.broken("the firmware saw a mistake of the driver: %q", v)
	}
}
