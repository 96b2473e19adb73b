package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/gpuwm/gpuwm/cmd/gpuwm/cli"
	"github.com/gpuwm/gpuwm/core"
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
	// kept is where directories of ended instances go.
	kept string
	env  []string
	// runtime is where sockets are made.
	runtime string
	log     []string
	// outputs are the result files as they were when the last run was started.
	outputs map[string][]byte
	// seen is what the processes have logged.
	seen observed
}

// seedSize is that of the input file of an ordinary trial.
const seedSize = 256 << 10

// bulk is more than the store writes in one transaction of an image.
const bulk = 20 << 20

// newTrial prepares a trial in a directory of its own. path is a program with
// crash points; size is that of the input file.
func newTrial(t *testing.T, path string, size int, env ...string) *trial {
	t.Helper()
	dir := t.TempDir()
	runtime, err := runtimeDir()
	if err != nil {
		t.Fatal(err)
	}
	tr := &trial{t: t, path: path, dir: dir, data: filepath.Join(dir, "data"), kept: filepath.Join(dir, "kept"), runtime: runtime}
	if err := os.Mkdir(tr.kept, 0o700); err != nil {
		t.Fatal(err)
	}
	tr.env = environment(filepath.Join(dir, "home"), runtime, append(env, "GPUWM_CRASH_KEEP="+tr.kept)...)
	tr.seen.done, tr.seen.images, tr.seen.instances = map[core.JobID]bool{}, map[core.Generation]uint64{1: 0}, map[string]bool{}
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
	if left, err := os.ReadDir(tr.runtime); err != nil || len(left) > 0 {
		tr.t.Errorf("sockets are left in %s: %v %v", tr.runtime, left, err)
	}
	tr.checkExecuted(executed, total, jobs[0].ID, calm)
}

// checkExecuted compares what was reported with what the engines counted. When
// the last run was a new one, with later jobs, because the one before had come to its end and
// only its process had not, then the output must have been there already, and
// the instances before are not its.
func (tr *trial) checkExecuted(executed, total uint64, first core.JobID, calm map[string][]byte) {
	tr.t.Helper()
	o := &tr.seen
	o.mu.Lock()
	defer o.mu.Unlock()
	anew := first > 1
	lost, counted := o.lost, o.ranByAll(tr, first)
	if o.err != nil {
		tr.t.Fatal(o.err)
	}
	if anew {
		lost -= o.lostBefore
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
	tr.t.Logf("%d instances, %d workgroups executed again, %d lay after the last image, new run: %v", len(o.instances), executed-total, lost, anew)
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
	tr := newTrial(t, binary(t, crashBinary), size)
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
