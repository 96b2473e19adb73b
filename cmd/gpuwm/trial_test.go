package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/gpuwm/gpuwm/cmd/gpuwm/cli"
	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/core/usage"
)

// trialFile is the work of a trial. fill counts every workgroup in `counter`,
// and step turns each word into another one, so that a workgroup that is lost,
// or whose effect is there twice, shows in the output.
const trialFile = `version: 1
entities:
  - name: e
    mode: long-running
    checkpoint: 60ms
    buffers:
      - {name: state, size: 512KiB, save: {path: state.bin, at: checkpoint}}
      - {name: counter, size: 64KiB, save: counter.bin}
      - {name: seed, file: seed.bin, save: seed.out}
jobs:
  - name: fill
    entity: e
    kernel: {wasm: basic.wasm, entry: fill}
    grid: [15000, 2, 1]
    group: [1, 1, 1]
    args: [{buffer: state}, {buffer: counter}, {u64: 7}]
  - name: step
    entity: e
    kernel: {wasm: basic.wasm, entry: step}
    grid: [32768, 1, 1]
    group: [1, 1, 1]
    args: [{buffer: seed}, {u64: 3}]
  - name: again
    entity: e
    kernel: {wasm: basic.wasm, entry: step}
    grid: [60000, 1, 1]
    group: [1, 1, 1]
    args: [{buffer: state}, {u64: 5}]
  - name: more
    entity: e
    kernel: {wasm: basic.wasm, entry: fill}
    grid: [10000, 1, 1]
    group: [1, 1, 1]
    args: [{buffer: state}, {buffer: counter}, {u64: 11}]
`

// trialJobs are the totals of the jobs, by identifier (the first job is 1).
var trialJobs = []uint64{0, 30000, 32768, 60000, 10000}

// trialOutputs are the files that a trial writes.
var trialOutputs = []string{"state.bin", "counter.bin", "seed.out"}

// trial is one run of trialFile, with what happens to it on the way.
type trial struct {
	t    *testing.T
	path string
	dir  string
	data string
	env  []string
	log  []string
	// outputs are the result files as they were when the last run was started.
	outputs map[string][]byte
	// seen is what the processes have logged.
	seen observed
}

// observed is made from the log lines of all processes of a trial, and from
// the engines' own counters.
type observed struct {
	mu sync.Mutex
	// done are the jobs whose workgroups are known to be all done.
	done map[core.JobID]bool
	// images holds the progress in each image that was saved since the last
	// death, by generation; recorded is the last one whose record is committed.
	images   map[core.Generation]uint64
	recorded core.Generation
	// restored is the progress that the present plugin instance began with.
	restored uint64
	// instance is the present one; usage are hard links to the counters of all.
	instance string
	usage    map[string]string
	// lost sums up what lay between the last image and each death of a plugin.
	lost uint64
	// lostBefore and ranBefore are what was lost and what the engines had run when
	// the entity last began from its first image.
	lostBefore, ranBefore uint64
	err                   error
}

// seedSize is that of the input file of an ordinary trial.
const seedSize = 256 << 10

// bulk is more than the store writes in one transaction of an image.
const bulk = 20 << 20

// newTrial prepares a trial in a directory of its own. size is that of the input file.
func newTrial(t *testing.T, path string, size int, env ...string) *trial {
	t.Helper()
	dir := t.TempDir()
	tr := &trial{t: t, path: path, dir: dir, data: filepath.Join(dir, "data")}
	tr.env = environment(filepath.Join(dir, "home"), env...)
	tr.seen.done, tr.seen.images, tr.seen.usage = map[core.JobID]bool{}, map[core.Generation]uint64{1: 0}, map[string]string{}
	tr.seen.recorded = 1
	kernel, err := os.ReadFile("../../plugins/engine/wasm/testdata/basic.wasm")
	if err != nil {
		t.Fatal(err)
	}
	seed := make([]byte, size)
	for i := range seed {
		seed[i] = byte(i*7>>3 ^ i>>18) // no two chunks are equal
	}
	for name, content := range map[string][]byte{"job.yaml": []byte(trialFile), "basic.wasm": kernel, "seed.bin": seed} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		_, _ = killPlugins(tr.data)
		if t.Failed() {
			t.Logf("log of the trial:\n%s", strings.Join(tr.log, "\n"))
		}
	})
	return tr
}

// start starts a run of the trial.
func (tr *trial) start(env ...string) *process {
	tr.t.Helper()
	tr.log = append(tr.log, "---- gpuwm run "+strings.Join(env, " "))
	tr.outputs = tr.readOutputs()
	p, err := start(tr.path, tr.dir, append(env, tr.env...), []string{
		"run", "job.yaml", "--data-dir", tr.data, "-o", "json", "--log-level", "debug", "--log-format", "json",
	}, func(line string) { tr.seen.line(tr, line) })
	if err != nil {
		tr.t.Fatal(err)
	}
	tr.t.Cleanup(p.kill)
	return p
}

// wait waits for the end of a run and returns its exit code, -1 for SIGKILL.
func (tr *trial) wait(p *process) int {
	tr.t.Helper()
	code, err := p.end()
	tr.log = append(tr.log, lines(p.stderr())...)
	if err != nil {
		tr.t.Fatal(err)
	}
	return code
}

// logLine is what is read of a line of the log.
type logLine struct {
	Message  string          `json:"@message"`
	Instance string          `json:"instance"`
	Image    core.Generation `json:"image"`
	Cursors  string          `json:"cursors"`
	Job      string          `json:"job"`
	State    string          `json:"state"`
}

// line takes one line of the log.
//
// The counters of an instance are linked when the line of its start is seen:
// nothing runs before, and its directory is removed only after its end was
// committed, long after.
func (o *observed) line(tr *trial, text string) {
	var l logLine
	if !strings.HasPrefix(text, "{") || json.Unmarshal([]byte(text), &l) != nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	switch l.Message {
	case "instance started", "instance adopted":
		if l.Instance == o.instance {
			return
		}
		o.died()
		o.instance = l.Instance
		o.usage[l.Instance] = filepath.Join(tr.dir, "usage-"+l.Instance)
		if err := keepUsage(filepath.Join(tr.data, "instances", l.Instance, "usage"), o.usage[l.Instance]); err != nil {
			o.err = fmt.Errorf("link the counters of instance %s: %w", l.Instance, err)
		}
	case "image saved":
		o.images[l.Image] = o.progress(l.Cursors)
	case "entity changed":
		if l.State == "creating" && l.Image == 1 {
			o.begin()
		}
		o.recorded = max(o.recorded, l.Image)
	case "job changed", "job completed":
		if l.State == "flushing" || l.Message == "job completed" {
			id := slices.Index([]string{"", "fill", "step", "again", "more"}, l.Job)
			o.done[core.JobID(id)] = true
		}
	}
}

// begin notes that the entity begins from its first image, which may be that of
// a new run.
func (o *observed) begin() {
	o.images, o.recorded, o.restored = map[core.Generation]uint64{1: 0}, 1, 0
	o.done = map[core.JobID]bool{}
	o.lostBefore, o.ranBefore = o.lost, o.ranByAll()
}

// keepUsage links the counters of an instance. The plugin makes the file when it
// opens a device, unless an empty one is there.
func keepUsage(path, link string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Link(path, link))
}

// progress is how many workgroups were done when an image was made: its cursors
// for the jobs it names; the others are done, or have not begun.
func (o *observed) progress(cursors string) uint64 {
	var sum uint64
	named := map[core.JobID]bool{}
	least := core.JobID(len(trialJobs))
	for item := range strings.FieldsSeq(cursors) {
		job, cursor, _ := strings.Cut(item, ":")
		id, err := strconv.ParseUint(job, 10, 64)
		n, err2 := strconv.ParseUint(cursor, 10, 64)
		if err != nil || err2 != nil || id == 0 {
			o.err = fmt.Errorf("bad cursors %q", cursors)
			return 0
		}
		id = (id-1)%uint64(len(trialJobs)-1) + 1 // a second run goes on counting
		named[core.JobID(id)] = true
		least = min(least, core.JobID(id))
		sum += n
	}
	for id := core.JobID(1); id < core.JobID(len(trialJobs)); id++ {
		if !named[id] && (o.done[id] || len(named) > 0 && id < least) {
			sum += trialJobs[id]
		}
	}
	return sum
}

// died settles the end of the present instance, when its successor appears:
// what it had begun with and what it ran, less what the last recorded image
// holds, has to run again. A save that was logged but whose record was not
// seen does not count as an image. That is all that may be executed twice.
func (o *observed) died() {
	if o.instance == "" {
		return
	}
	ran, err := o.ran(o.instance)
	if err != nil {
		o.err = err
		return
	}
	image := o.images[o.recorded]
	if o.restored+ran < image {
		o.err = fmt.Errorf("image %d holds %d workgroups, but the engine ran only %d + %d", o.recorded, image, o.restored, ran)
		return
	}
	o.lost += o.restored + ran - image
	o.restored = image
}

// ran sums up what the engine of an instance ran.
func (o *observed) ran(instance string) (uint64, error) {
	counts, err := usage.Read(o.usage[instance])
	if err != nil {
		return 0, err
	}
	var sum uint64
	for _, n := range counts {
		sum += n
	}
	return sum, nil
}

// ranByAll sums up what the engines of all instances ran.
func (o *observed) ranByAll() uint64 {
	var sum uint64
	for instance := range o.usage {
		n, err := o.ran(instance)
		if err != nil {
			o.err = err
		}
		sum += n
	}
	return sum
}

// finish checks a trial whose last run has ended: every job complete, the
// output that of an undisturbed run, what was reported as executed is what the
// engines counted, and nothing ran twice but what lay after the last image.
func (tr *trial) finish(p *process, calm map[string][]byte) {
	tr.t.Helper()
	jobs, err := parseJobs(p.stdout.String())
	if err != nil {
		tr.t.Fatal(err)
	}
	var executed, total uint64
	for _, j := range jobs {
		if err := checkJob(j, []string{"state=completed", "cause=", "error=", "done=" + fmt.Sprint(j.Progress.Total)}); err != nil {
			tr.t.Error(err)
		}
		if j.Executed < j.Progress.Total {
			tr.t.Errorf("job %s: %d workgroups executed, %d in all", j.Name, j.Executed, j.Progress.Total)
		}
		executed += j.Executed
		total += j.Progress.Total
	}
	if len(jobs) != len(trialJobs)-1 {
		tr.t.Errorf("%d jobs", len(jobs))
	}
	tr.sameOutput(calm)
	if pids := plugins(tr.data); len(pids) > 0 {
		tr.t.Errorf("plugins %v live on", pids)
	}
	tr.checkExecuted(executed, total, jobs[0].ID >= core.JobID(len(trialJobs)), calm)
}

// checkExecuted compares what was reported with what the engines counted. When
// the last run was a new one, because the one before had come to its end and
// only its process had not, then the output must have been there already, and
// the instances before are not its.
func (tr *trial) checkExecuted(executed, total uint64, anew bool, calm map[string][]byte) {
	tr.t.Helper()
	o := &tr.seen
	o.mu.Lock()
	defer o.mu.Unlock()
	lost, counted := o.lost, o.ranByAll()
	if o.err != nil {
		tr.t.Fatal(o.err)
	}
	if anew {
		lost -= o.lostBefore
		counted -= o.ranBefore
		for name, content := range calm {
			if !bytes.Equal(tr.outputs[name], content) {
				tr.t.Errorf("a new run was begun, but %s was not yet right", name)
			}
		}
	}
	if executed != counted {
		tr.t.Errorf("executed %d, but the engines counted %d", executed, counted)
	}
	if executed-total > lost {
		tr.t.Errorf("executed %d of %d: %d twice, but only %d lay after the last image", executed, total, executed-total, lost)
	}
	tr.t.Logf("%d instances, %d workgroups executed again, %d lay after the last image, new run: %v", len(o.usage), executed-total, lost, anew)
}

// readOutputs returns the result files that are there.
func (tr *trial) readOutputs() map[string][]byte {
	files := map[string][]byte{}
	for _, name := range trialOutputs {
		if content, err := os.ReadFile(filepath.Join(tr.dir, name)); err == nil {
			files[name] = content
		}
	}
	return files
}

func (tr *trial) sameOutput(calm map[string][]byte) {
	tr.t.Helper()
	got := tr.readOutputs()
	for name, want := range calm {
		if d := difference(got[name], want); !bytes.Equal(got[name], want) {
			tr.t.Errorf("%s is not that of an undisturbed run: %s", name, d)
		}
	}
}

// calmOutput is what an undisturbed run writes.
var calmOutput = struct {
	sync.Mutex
	files map[int]map[string][]byte
}{files: map[int]map[string][]byte{}}

// calm runs the trial undisturbed, once for each size of the seed.
func calm(t *testing.T, size int) map[string][]byte {
	t.Helper()
	calmOutput.Lock()
	defer calmOutput.Unlock()
	if files := calmOutput.files[size]; files != nil {
		return files
	}
	tr := newTrial(t, binary(t, gpuwmBinary), size)
	p := tr.start()
	if code := tr.wait(p); code != cli.ExitDone {
		t.Fatalf("undisturbed run: exit code %d", code)
	}
	tr.finish(p, nil)
	files := tr.readOutputs()
	if len(files) != len(trialOutputs) {
		t.Fatalf("undisturbed run: %d of %d result files", len(files), len(trialOutputs))
	}
	calmOutput.files[size] = files
	return files
}
