package plugintest

import (
	"encoding/binary"

	"github.com/gpuwm/gpuwm/core"
)

// What a device computes can be seen in images only, so the checks of results are of
// their level.
var resultChecks = []check{
	{name: "results-are-exact", level: core.LevelImages, run: resultsExact,
		doc: "a job changes the buffers as its kernel says, every workgroup once"},
	{name: "results-are-in-order", level: core.LevelImages, run: resultsInOrder,
		doc: "jobs of an entity execute in the order in which they were sent"},
	{name: "results-begin-at-first", level: core.LevelImages, run: resultsAtFirst,
		doc: "a run from a first workgroup on leaves those before it alone"},
	{name: "results-of-three-dimensions", level: core.LevelImages, run: resultsThree,
		doc: "workgroups are counted with x fastest, then y, then z"},
	{name: "arguments-arrive", level: core.LevelImages, run: argumentsArrive,
		doc: "a kernel finds the bits of every argument, the grid and the group"},
	{name: "buffers-are-separate", level: core.LevelImages, run: buffersSeparate,
		doc: "a kernel finds the buffers that its arguments name, and writes to no other"},
	{name: "entities-have-memory-of-their-own", level: core.LevelImages, run: entitiesMemory,
		doc: "buffers of the same name of several entities are different memory"},
	{name: "cancel-leaves-a-prefix", level: core.LevelImages, run: cancelPrefix,
		doc: "a cancelled job has done exactly the workgroups that it reports"},
	{name: "fault-in-a-later-epoch-is-forgotten", level: core.LevelImages, run: faultForgotten,
		doc: "an entity that was lost and created again has the buffers of its image"},
}

func resultsExact(p *probe) {
	e := p.filled(p.open(deviceName), counted(1000))
	e.completed(e.run(1000, 42))
	e.suspend()
	p.same("after one job", e.cells(), mixed(counted(1000), 42, 0, 1000))
}

func resultsInOrder(p *probe) {
	const jobs = 20
	e := p.filled(p.open(deviceName), counted(64))
	want := counted(64)
	var last core.JobID
	for n := range uint32(jobs) {
		last = e.run(64, n*n+1)
		want = mixed(want, n*n+1, 0, 64)
	}
	e.completed(last)
	e.suspend()
	p.same("after a row of jobs", e.cells(), want)
}

func resultsAtFirst(p *probe) {
	e := p.filled(p.open(deviceName), counted(64))
	c := e.mix(64, 3)
	c.First = 21
	e.l.send(c)
	e.completed(c.Job)
	e.suspend()
	p.same("after a run from workgroup 21 on", e.cells(), mixed(counted(64), 3, 21, 64))
}

func resultsThree(p *probe) {
	e := p.filled(p.open(deviceName), counted(64))
	c := e.job("mix", [3]uint32{3, 4, 5}, buffer(cellsName), u32(7))
	c.First = 17
	e.l.send(c)
	e.completed(c.Job)
	e.suspend()
	p.same("after a grid of 3 x 4 x 5 from workgroup 17 on", e.cells(), mixed(counted(64), 7, 17, 60))
}

func argumentsArrive(p *probe) {
	e, args, sum := argued(p)
	e.completed(args.Job)
	e.completed(sum.Job)
	e.suspend()
	out := e.image().buffers[0]
	var want [argsWords]uint64
	for i, a := range scalars {
		want[i] = a.Bits
	}
	for d := range 3 {
		want[6+d], want[9+d] = uint64(args.JobSpec.Grid[d]), uint64(args.JobSpec.Group[d])
	}
	names := []string{"the u32", "the i32", "the f32", "the u64", "the i64", "the f64", "grid x", "grid y", "grid z", "group x", "group y", "group z"}
	for i, w := range want {
		if got := binary.LittleEndian.Uint64(out[8*i:]); got != w {
			p.failf("%s arrived as %#x; it was %#x", names[i], got, w)
		}
	}
}

func buffersSeparate(p *probe) {
	e, _, sum := argued(p)
	e.completed(sum.Job)
	e.suspend()
	i := e.image()
	want := counted(8)
	p.same("in a buffer that a job read", toCells(i.buffers[1]), want)
	for w := range want {
		want[w] += uint32(w) + 1
	}
	p.same("in a buffer that a job wrote to", toCells(i.buffers[2]), want)
}

func entitiesMemory(p *probe) {
	l := p.open(deviceName)
	a, b := p.filled(l, counted(64)), p.entity(l, 64)
	ja, jb := a.run(64, 1), b.run(64, 2)
	a.completed(ja)
	b.completed(jb)
	a.suspend()
	b.suspend()
	p.same("in the first entity", a.cells(), mixed(counted(64), 1, 0, 64))
	p.same("in the second entity", b.cells(), mixed(make([]uint32, 64), 2, 0, 64))
}

func cancelPrefix(p *probe) {
	e := p.entity(p.open(deviceName), foreverGroups)
	job := e.forever(3)
	e.cancel(job)
	got := e.ended(job)
	e.suspend()
	p.same("after a job that was cancelled at workgroup "+itoa(got.Done), e.cells(), mixed(make([]uint32, foreverGroups), 3, 0, got.Done))
}

func faultForgotten(p *probe) {
	l := p.open(deviceName)
	e := p.filled(l, counted(16))
	e.completed(e.run(16, 1))
	e.suspend()
	from := e.image()
	e.resume()
	trapped(p, e)
	e.destroy()
	next := e.again(l)
	next.create(from)
	next.suspend()
	p.same("in an entity that was lost and created again", next.cells(), mixed(counted(16), 1, 0, 16))
}
