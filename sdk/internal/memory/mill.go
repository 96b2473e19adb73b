package memory

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/sdk"
)

// Format and code of the conformance kit's native kernels: who takes the format
// implements the entries itself (package plugintest says what each does).
const (
	Format = "conformance"
	code   = "gpuwm conformance 1\n"
)

// spinTime is how long one round of the entry `slow` takes.
const spinTime = 10 * time.Nanosecond

// mill executes the conformance entries of one entity: one job after another,
// workgroup by workgroup, on a goroutine that exists while there is work.
type mill struct {
	e  *entity
	mu sync.Mutex
	// jobs are in the ring, the first executes.
	jobs []*milling
	// off says that the entity is suspended, lost or destroyed.
	off bool
	// running is not nil while the goroutine works; it is closed at its end.
	running chan struct{}
}

// milling is one job in the ring.
type milling struct {
	id      core.JobID
	total   uint64
	usage   sdk.Usage
	started bool
	cancel  bool
	// step executes one workgroup; false means that it faulted.
	step func(w uint64) bool
}

// run appends a job. Errors wrap core.ErrInvalid, or are faults of the kernel.
func (m *mill) run(job sdk.Job) error {
	step, err := m.bind(job.Spec)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.jobs = append(m.jobs, &milling{
		id: job.Spec.ID, total: job.Spec.Workgroups(), usage: sdk.Usage{Done: job.First}, step: step,
	})
	m.kick()
	return nil
}

// kick starts the goroutine if there is something to do. The mutex is held.
func (m *mill) kick() {
	if m.running == nil && !m.off && len(m.jobs) > 0 {
		m.running = make(chan struct{})
		go m.work(m.running)
	}
}

func (m *mill) work(done chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for !m.off && len(m.jobs) > 0 {
		j := m.jobs[0]
		if !j.started {
			j.started = true
			m.e.report.Started(j.id)
		}
		if j.usage.Done < j.total && !j.cancel && !m.advance(j) {
			m.off, m.jobs = true, nil
			m.e.report.Lost(true, j.id, j.usage, core.CauseTrap, "asked for")
			break
		}
		switch {
		case j.usage.Done == j.total:
			m.jobs = m.jobs[1:]
			m.e.report.Completed(j.id, j.usage)
		case j.cancel:
			m.jobs = m.jobs[1:]
			m.e.report.Cancelled(j.id, j.usage)
		}
	}
	m.running = nil
	close(done)
}

// advance executes one workgroup without the mutex.
func (m *mill) advance(j *milling) bool {
	m.mu.Unlock()
	begin := time.Now()
	ok := j.step(j.usage.Done)
	took := time.Since(begin)
	m.mu.Lock()
	j.usage.ExecutedTime += max(took, 1)
	if ok {
		j.usage.Done++
		j.usage.Executed++
	}
	return ok
}

// stop returns when nothing executes. It may be called again.
func (m *mill) stop(ctx context.Context) error {
	m.mu.Lock()
	m.off = true
	running := m.running
	m.mu.Unlock()
	if running == nil {
		return nil
	}
	select {
	case <-running:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop: %w", core.ErrDeadline)
	}
}

func (m *mill) start() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.off = false
	m.kick()
}

// cancel takes a job out, the executing one at the next workgroup.
func (m *mill) cancel(id core.JobID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := slices.IndexFunc(m.jobs, func(j *milling) bool { return j.id == id })
	switch {
	case i < 0:
	case i == 0 && m.running != nil:
		m.jobs[0].cancel = true
	default:
		j := m.jobs[i]
		m.jobs = slices.Delete(m.jobs, i, i+1)
		m.e.report.Cancelled(id, j.usage)
	}
}

func (m *mill) progress() (list []sdk.JobUsage) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, j := range m.jobs {
		if j.started {
			list = append(list, sdk.JobUsage{Job: j.id, Usage: j.usage})
		}
	}
	return list
}

// unfinished lists the jobs of an image.
func (m *mill) unfinished() (list []core.ImageJob) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, j := range m.jobs {
		list = append(list, core.ImageJob{Job: j.id, Cursor: j.usage.Done, Executed: j.usage.Executed, ExecutedTime: j.usage.ExecutedTime})
	}
	return list
}

// kinds are the arguments of the entries.
var kinds = map[string][]core.ArgKind{
	"mix":  {core.ArgBuffer, core.ArgU32},
	"slow": {core.ArgBuffer, core.ArgU32, core.ArgU32},
	"trap": {core.ArgBuffer, core.ArgU32, core.ArgU32},
	"args": {core.ArgBuffer, core.ArgU32, core.ArgI32, core.ArgF32, core.ArgU64, core.ArgI64, core.ArgF64},
	"sum":  {core.ArgBuffer, core.ArgBuffer},
}

// bind makes the function that executes one workgroup of a job.
func (m *mill) bind(s *core.JobSpec) (func(uint64) bool, error) {
	want, known := kinds[s.Entry]
	kernel := &core.FaultError{Cause: core.CauseKernel, Entity: m.e.spec.ID, Job: s.ID, Detail: "no entry " + s.Entry}
	if !known {
		return nil, kernel
	}
	if !slices.EqualFunc(s.Args, want, func(a core.Arg, k core.ArgKind) bool { return a.Kind == k }) {
		kernel.Detail = "arguments of " + s.Entry
		return nil, kernel
	}
	buffers := make([][]byte, len(s.Args))
	for i, a := range s.Args {
		if a.Kind != core.ArgBuffer {
			continue
		}
		at := slices.IndexFunc(m.e.header.Buffers, func(b core.BufferSpec) bool { return b.Name == a.Buffer })
		if at < 0 {
			return nil, fmt.Errorf("no buffer %s: %w", a.Buffer, core.ErrInvalid)
		}
		buffers[i] = m.e.buffers[at]
	}
	return steps[s.Entry](s, buffers), nil
}

var le = binary.LittleEndian

// steps are the entries.
var steps = map[string]func(*core.JobSpec, [][]byte) func(uint64) bool{
	"mix":  mix,
	"slow": slow,
	"trap": func(s *core.JobSpec, buffers [][]byte) func(uint64) bool {
		step := mix(s, buffers)
		return func(w uint64) bool { return uint32(w) != uint32(s.Args[2].Bits) && step(w) }
	},
	"args": func(s *core.JobSpec, buffers [][]byte) func(uint64) bool {
		return func(uint64) bool { return list(s, buffers[0]) }
	},
	"sum": func(_ *core.JobSpec, buffers [][]byte) func(uint64) bool {
		return func(w uint64) bool {
			at := 4 * w
			if at+4 > uint64(len(buffers[0])) || at+4 > uint64(len(buffers[1])) {
				return false
			}
			le.PutUint32(buffers[1][at:], le.Uint32(buffers[1][at:])+le.Uint32(buffers[0][at:]))
			return true
		}
	},
}

func mix(s *core.JobSpec, buffers [][]byte) func(uint64) bool {
	cells, seed := buffers[0], uint32(s.Args[1].Bits)
	return func(w uint64) bool {
		at := 4 * w
		if at+4 > uint64(len(cells)) {
			return false
		}
		le.PutUint32(cells[at:], le.Uint32(cells[at:])*33+seed+uint32(w))
		return true
	}
}

// slow waits instead of working: the tests of several kits run side by side.
func slow(s *core.JobSpec, buffers [][]byte) func(uint64) bool {
	step, rounds := mix(s, buffers), time.Duration(uint32(s.Args[2].Bits))
	return func(w uint64) bool {
		<-time.After(rounds * spinTime)
		return step(w)
	}
}

// list writes arguments, grid and group.
func list(s *core.JobSpec, out []byte) bool {
	const words = 12
	if len(out) < 8*words {
		return false
	}
	for i, a := range s.Args[1:] {
		bits := a.Bits
		if a.Kind.Size() == 4 {
			bits = uint64(uint32(bits))
		}
		le.PutUint64(out[8*i:], bits)
	}
	for i := range 3 {
		le.PutUint64(out[8*(6+i):], uint64(s.Grid[i]))
		le.PutUint64(out[8*(9+i):], uint64(s.Group[i]))
	}
	return true
}
