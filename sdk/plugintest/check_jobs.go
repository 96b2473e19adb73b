package plugintest

import (
	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/sdk/internal/wire"
)

const (
	// rowJobs are the jobs of a row, each of rowGroups workgroups.
	rowJobs   = 24
	rowGroups = 16
)

var jobChecks = []check{
	{name: "starts-every-job", level: core.LevelJobs, run: startsEvery,
		doc: "every job is reported as started, once, before its end"},
	{name: "completes-every-job", level: core.LevelJobs, run: completesEvery,
		doc: "every job is reported as completed"},
	{name: "completes-once", level: core.LevelJobs, run: completesOnce,
		doc: "no job is reported as completed twice"},
	{name: "completes-in-order", level: core.LevelJobs, run: completesInOrder,
		doc: "jobs of an entity complete in the order in which they were sent"},
	{name: "runs-one-after-another", level: core.LevelJobs, run: oneAfterAnother,
		doc: "a job of an entity starts after the one before it has ended"},
	{name: "counts-workgroups-done", level: core.LevelJobs, run: countsDone,
		doc: "a completed job reports all its workgroups as done"},
	{name: "counts-workgroups-executed", level: core.LevelJobs, run: countsExecuted,
		doc: "a completed job reports as executed the workgroups that the engine ran for it in this epoch"},
	{name: "grid-of-three-dimensions", level: core.LevelJobs, run: gridThree,
		doc: "a grid counts x times y times z workgroups"},
	{name: "starts-at-first", level: core.LevelJobs, run: startsAtFirst,
		doc: "a run from a first workgroup on executes the rest, and counts those before as done"},
	{name: "nothing-left-to-run", level: core.LevelJobs, run: nothingLeft,
		doc: "a run whose workgroups are all done completes, and executes none"},
	{name: "every-entry-runs", level: core.LevelJobs, run: everyEntry,
		doc: "a kernel may have several entries, with arguments of every kind and several buffers"},
	{name: "ring-takes-its-credits", level: core.LevelJobs, run: ringTakes,
		doc: "a ring takes as many jobs of one credit as the device declares credits"},
	{name: "entities-do-not-mix", level: core.LevelJobs, run: entitiesMix,
		doc: "jobs of several entities all complete, those of each in order"},
	{name: "batch-of-256-commands", level: core.LevelJobs, run: batchOf256,
		doc: "a batch may hold 256 commands"},
	{name: "batch-in-either-form", level: core.LevelJobs, run: batchForms,
		doc: "what a flag abbreviates may be written out; the count may be padded or not"},
	{name: "entities-can-be-many", level: core.LevelJobs, run: entitiesMany,
		doc: "several entities live at once, and an identifier that was never used is free"},
}

// row sends a row of jobs, waits for the end of the last, destroys the entity, and
// returns its jobs and events.
func row(p *probe) ([]core.JobID, []core.BackendEvent) {
	l := p.open(deviceName)
	e := p.entity(l, rowGroups)
	var jobs []core.JobID
	var batch []core.Command
	for n := range rowJobs {
		c := e.mix(rowGroups, uint32(n))
		batch, jobs = append(batch, c), append(jobs, c.Job)
	}
	l.send(batch...)
	e.completed(jobs[rowJobs-1])
	e.destroy()
	return jobs, e.own()
}

// places returns where each job has an event of a kind, and how many.
func places(events []core.BackendEvent, kind core.BackendEventKind) (at map[core.JobID]int, count map[core.JobID]int) {
	at, count = make(map[core.JobID]int), make(map[core.JobID]int)
	for i, b := range events {
		if b.Kind == kind {
			if count[b.Job]++; count[b.Job] == 1 {
				at[b.Job] = i
			}
		}
	}
	return at, count
}

func startsEvery(p *probe) {
	jobs, events := row(p)
	at, count := places(events, core.EventStarted)
	ends, ended := places(events, core.EventCompleted)
	for n, job := range jobs {
		if count[job] != 1 {
			p.failf("job %d of %d was reported as started %d times; it must be once", n+1, len(jobs), count[job])
		}
		if ended[job] > 0 && at[job] > ends[job] {
			p.failf("job %d of %d was reported as started after its end", n+1, len(jobs))
		}
	}
}

func completesEvery(p *probe) {
	jobs, events := row(p)
	_, count := places(events, core.EventCompleted)
	for n, job := range jobs {
		if count[job] == 0 {
			p.failf("job %d of %d was not reported as completed, the last one was", n+1, len(jobs))
		}
	}
}

func completesOnce(p *probe) {
	jobs, events := row(p)
	_, count := places(events, core.EventCompleted)
	for n, job := range jobs {
		if count[job] > 1 {
			p.failf("job %d of %d was reported as completed %d times", n+1, len(jobs), count[job])
		}
	}
}

func completesInOrder(p *probe) {
	_, events := row(p)
	var last core.JobID
	for _, b := range events {
		if b.Kind != core.EventCompleted {
			continue
		}
		if b.Job < last {
			p.failf("job %d completed after job %d, which was sent later", b.Job, last)
		}
		last = b.Job
	}
}

func oneAfterAnother(p *probe) {
	jobs, events := row(p)
	starts, _ := places(events, core.EventStarted)
	ends, ended := places(events, core.EventCompleted)
	for n := 1; n < len(jobs); n++ {
		if at, ok := starts[jobs[n]]; ok && ended[jobs[n-1]] > 0 && at < ends[jobs[n-1]] {
			p.failf("job %d of %d started before the one before it had ended", n+1, len(jobs))
		}
	}
}

func countsDone(p *probe) {
	_, events := row(p)
	for _, b := range events {
		if b.Kind == core.EventCompleted && b.Done != rowGroups {
			p.failf("job %d completed with %d of %d workgroups done", b.Job, b.Done, rowGroups)
		}
	}
}

func countsExecuted(p *probe) {
	_, events := row(p)
	for _, b := range events {
		if b.Kind == core.EventCompleted && b.Executed != rowGroups {
			p.failf("job %d completed with %d workgroups executed, and it has %d", b.Job, b.Executed, rowGroups)
		}
	}
}

func gridThree(p *probe) {
	l := p.open(deviceName)
	e := p.entity(l, 60)
	c := e.job("mix", [3]uint32{3, 4, 5}, buffer(cellsName), u32(1))
	l.send(c)
	if got := e.completed(c.Job); got.Done != 60 || got.Executed != 60 {
		p.failf("a job of 3 x 4 x 5 workgroups completed with %d done and %d executed", got.Done, got.Executed)
	}
}

func startsAtFirst(p *probe) {
	l := p.open(deviceName)
	e := p.entity(l, 16)
	c := e.mix(16, 1)
	c.First = 5
	l.send(c)
	if got := e.completed(c.Job); got.Done != 16 || got.Executed != 11 {
		p.failf("a run of 16 workgroups from number 5 on completed with %d done and %d executed; it must be 16 and 11", got.Done, got.Executed)
	}
}

func nothingLeft(p *probe) {
	l := p.open(deviceName)
	e := p.entity(l, 16)
	c := e.mix(16, 1)
	c.First = 16
	l.send(c)
	if got := e.completed(c.Job); got.Done != 16 || got.Executed != 0 {
		p.failf("a run of 16 workgroups that are all done completed with %d done and %d executed; it must be 16 and 0", got.Done, got.Executed)
	}
	e.completed(e.run(16, 2))
}

// argsWords is what the entry args writes.
const argsWords = 12

// scalars are the arguments of the entry args after its buffer.
var scalars = []core.Arg{
	{Kind: core.ArgU32, Bits: 0xfedcba98}, {Kind: core.ArgI32, Bits: 0x80000001}, {Kind: core.ArgF32, Bits: 0xbf9d70a4},
	{Kind: core.ArgU64, Bits: 0xfedcba9876543210}, {Kind: core.ArgI64, Bits: 1<<63 + 2}, {Kind: core.ArgF64, Bits: 0x400921fb54442d18},
}

// argued creates an entity for the entries args and sum, and sends one job of each.
func argued(p *probe) (e *life, args, sum core.Command) {
	l := p.open(deviceName)
	e = p.life(l, p.spec(
		core.BufferSpec{Name: "out", Size: 8 * argsWords}, core.BufferSpec{Name: cellsName, Size: 32}, core.BufferSpec{Name: "sums", Size: 32},
	), 1, 0)
	e.create(e.fresh([][]byte{make([]byte, 8*argsWords), toBytes(counted(8)), toBytes([]uint32{1, 2, 3, 4, 5, 6, 7, 8})}))
	args = e.job("args", [3]uint32{2, 3, 4}, append([]core.Arg{buffer("out")}, scalars...)...)
	args.JobSpec.Group = [3]uint32{5, 6, 1}
	sum = e.job("sum", [3]uint32{8, 1, 1}, buffer(cellsName), buffer("sums"))
	l.send(args, sum)
	return e, args, sum
}

func everyEntry(p *probe) {
	e, args, sum := argued(p)
	e.completed(args.Job)
	e.completed(sum.Job)
}

func ringTakes(p *probe) {
	const most = 4096 // a larger ring is not filled
	l := p.open(deviceName)
	e := p.entity(l, 1)
	n := min(int(p.kit.device.Credits), most)
	var batch []core.Command
	for i := range n {
		batch = append(batch, e.mix(1, uint32(i)))
	}
	l.send(batch...)
	for i := range batch {
		if got := e.ended(batch[i].Job); got.Kind != core.EventCompleted {
			p.failf("job %d of %d ended with %s; the device declares %d credits", i+1, n, tell(&got), p.kit.device.Credits)
		}
	}
}

func entitiesMix(p *probe) {
	const entities, each = 6, 8
	l := p.open(deviceName)
	var all []*life
	for range entities {
		all = append(all, p.entity(l, rowGroups))
	}
	var last []core.JobID
	var batch []core.Command
	for n := range each {
		last = last[:0]
		for _, e := range all {
			c := e.mix(rowGroups, uint32(n))
			batch, last = append(batch, c), append(last, c.Job)
		}
	}
	l.send(batch...)
	for i, e := range all {
		e.completed(last[i])
		var before core.JobID
		count := 0
		for _, b := range e.own() {
			if b.Kind == core.EventCompleted {
				if b.Job < before {
					p.failf("entity %d: job %d completed after job %d, which was sent later", e.id, b.Job, before)
				}
				before, count = b.Job, count+1
			}
		}
		if count != each {
			p.failf("entity %d: %d of %d jobs completed before the last one", e.id, count, each)
		}
	}
}

func batchOf256(p *probe) {
	l := p.open(deviceName)
	const entities = 8
	var batch []core.Command
	var all []*life
	var last []core.JobID
	for range entities {
		e := p.entity(l, 1)
		all = append(all, e)
		var job core.JobID
		for n := range wire.BatchCount / entities {
			c := e.mix(1, uint32(n))
			batch, job = append(batch, c), c.Job
		}
		last = append(last, job)
	}
	if p.kit.device.Credits < wire.BatchCount/entities {
		p.skipf("the rings of the device hold %d jobs", p.kit.device.Credits)
	}
	l.raw(packed(batch...))
	for i, e := range all {
		e.completed(last[i])
	}
}

// batchForms sends the same commands abbreviated, written out, and with a count of
// one byte instead of two.
func batchForms(p *probe) {
	l := p.open(deviceName)
	e := p.entity(l, 8)
	var jobs []core.JobID
	var row []core.Command
	for n := range 9 {
		c := e.mix(8, uint32(n))
		if n == 4 {
			c.JobSpec.Args = []core.Arg{buffer(cellsName), u32(1 << 31)}
		}
		row, jobs = append(row, c), append(jobs, c.Job)
	}
	l.raw(packed(row[:3]...))
	for _, c := range row[3:6] {
		l.raw(packed(c))
	}
	padded := packed(row[6:]...)
	l.raw(append([]byte{byte(len(row[6:]))}, padded[2:]...))
	for _, job := range jobs {
		if got := e.completed(job); got.Done != 8 {
			p.failf("job %d completed with %d of 8 workgroups done", job, got.Done)
		}
	}
}

func entitiesMany(p *probe) {
	const most = 32
	n := most
	if d := p.kit.device.EntitiesMax; d > 0 {
		n = min(n, int(d))
	}
	l := p.open(deviceName)
	var all []*life
	var jobs []core.JobID
	for range n {
		e := p.entity(l, 4)
		all, jobs = append(all, e), append(jobs, e.run(4, 1))
	}
	for i, e := range all {
		e.completed(jobs[i])
	}
}
