package plugintest

import (
	"bytes"

	"github.com/gpuwm/gpuwm/core"
)

var portableChecks = []check{
	{name: "foreign-image-continues", level: core.LevelPortable, run: foreignContinues,
		doc: "an image of another backend, in the middle of a job, is continued with the same output"},
	{name: "foreign-image-at-every-cursor", level: core.LevelPortable, run: foreignCursors,
		doc: "it may be at the first workgroup, the last, or after it"},
	{name: "foreign-image-with-several-jobs", level: core.LevelPortable, run: foreignSeveral,
		doc: "it may have several unfinished jobs, of which each has its cursor"},
	{name: "foreign-private-part-is-ignored", level: core.LevelPortable, run: foreignPrivate,
		doc: "the private part of another backend's image is ignored, whatever is in it"},
	{name: "large-private-part-crosses", level: core.LevelPortable, run: foreignLarge,
		doc: "an image with a private part of 8 MiB is taken"},
	{name: "own-image-without-its-private-part", level: core.LevelPortable, run: ownWithout,
		doc: "the backend's own image continues without its private part"},
	{name: "own-image-under-another-name", level: core.LevelPortable, run: ownRenamed,
		doc: "the backend's own image continues as that of another backend"},
	{name: "damaged-private-part-harms-nobody", level: core.LevelPortable, run: ownDamaged,
		doc: "a private part that is damaged is refused or ignored; the plugin and other entities go on"},
	{name: "image-moves-to-another-instance", level: core.LevelPortable, need: anInstance, run: imageMoves,
		doc: "an image continues on a new instance"},
	{name: "image-moves-back-and-forth", level: core.LevelPortable, run: imageBackAndForth,
		doc: "a job that is moved again and again executes each workgroup once"},
	{name: "image-is-finished-elsewhere", level: core.LevelPortable, run: finishedElsewhere,
		doc: "another backend finishes a job from the portable part, with the same output"},
}

const foreignName = "another-backend"

// foreign continues a job from an image that the kit has made: cells, the job's
// cursor, and no private part but this.
func foreign(p *probe, groups int, cursor uint64, private []byte) {
	l := p.present()
	before := counted(groups)
	e := p.life(l, p.spec(core.BufferSpec{Name: cellsName, Size: 4 * uint64(groups)}), 3, 40)
	c := e.mix(groups, 11)
	from := e.fresh([][]byte{toBytes(mixed(before, 11, 0, cursor))})
	from.header.Backend, from.header.Private = foreignName, private
	from.header.Jobs = []core.ImageJob{{Job: c.Job, Cursor: cursor, Executed: cursor, ExecutedTime: 1}}
	e.create(from)
	run := e.command(core.CommandRun)
	run.Job, run.JobSpec, run.First, run.ExecutedTime = c.Job, c.JobSpec, cursor, 1
	l.send(run)
	if got := e.completed(c.Job); got.Done != uint64(groups) || got.Executed != uint64(groups)-cursor {
		p.failf("continued at workgroup %d of %d, the job completed with %d done and %d executed", cursor, groups, got.Done, got.Executed)
	}
	e.suspend()
	p.same("after the job of another backend was continued at workgroup "+itoa(cursor), e.cells(), mixed(before, 11, 0, uint64(groups)))
	e.destroy()
}

func foreignContinues(p *probe) { foreign(p, 100, 37, nil) }

func foreignCursors(p *probe) {
	for _, cursor := range []uint64{0, 1, 63, 64} {
		foreign(p, 64, cursor, nil)
	}
}

func foreignPrivate(p *probe) {
	foreign(p, 64, 10, bytes.Repeat([]byte{0xa5}, 4096))
	foreign(p, 64, 10, []byte("GUCP"))
}

func foreignLarge(p *probe) {
	const most = 8 << 20
	foreign(p, 64, 10, bytes.Repeat([]byte{0xa5}, most))
}

func foreignSeveral(p *probe) {
	l := p.open(deviceName)
	before := counted(64)
	e := p.life(l, p.spec(core.BufferSpec{Name: "other", Size: 3 * core.ChunkSize}, core.BufferSpec{Name: cellsName, Size: 256}), 2, 9)
	first, second, third := e.mix(64, 1), e.mix(64, 2), e.mix(64, 3)
	// The first is at 20; the second was not begun; the third was never sent.
	other := make([]byte, 3*core.ChunkSize)
	other[core.ChunkSize] = 1
	from := e.fresh([][]byte{other, toBytes(mixed(before, 1, 0, 20))})
	from.header.Backend = foreignName
	from.header.Jobs = []core.ImageJob{{Job: first.Job, Cursor: 20, Executed: 20}, {Job: second.Job}}
	e.create(from)
	for _, c := range []*core.Command{&first, &second, &third} {
		e.seq++
		c.Seq = e.seq
	}
	first.First = 20
	l.send(first, second, third)
	e.completed(third.Job)
	e.suspend()
	i := e.image()
	want := mixed(mixed(mixed(before, 1, 0, 64), 2, 0, 64), 3, 0, 64)
	p.same("after three jobs of another backend", toCells(i.buffers[1]), want)
	if !bytes.Equal(i.buffers[0], other) {
		p.failf("a buffer that no job names was changed")
	}
}

// own continues the backend's own image after a change.
func own(p *probe, change func(h *core.ImageHeader)) {
	l := p.open(deviceName)
	c := p.catch(l)
	from := c.image
	change(&from.header)
	c.restored(p, l, from)
}

func ownWithout(p *probe) { own(p, func(h *core.ImageHeader) { h.Private = nil }) }

func ownRenamed(p *probe) { own(p, func(h *core.ImageHeader) { h.Backend = foreignName }) }

func ownDamaged(p *probe) {
	l := p.open(deviceName)
	bystander := p.entity(l, 8)
	c := p.catch(l)
	c.destroy()
	for _, private := range [][]byte{bytes.Repeat([]byte{0xff}, max(len(c.image.header.Private), 16)), append(bytes.Clone(c.image.header.Private), 1), {0}} {
		from := c.image
		from.header.Private = private
		next := c.again(l)
		create := next.createCommand()
		l.send(create)
		_ = next.upload(from)
		got := next.answer("the answer to a create with a damaged private part", create.Seq)
		switch got.Kind {
		case core.EventApplied:
			next.completed(next.run(8, 1))
			next.destroy()
		case core.EventRefused:
			if got.Cause == core.CauseNone {
				p.failf("the refusal has no cause: %s", tell(&got))
			}
		default:
			p.failf("a create was answered with %s", tell(&got))
		}
		c.epoch, c.seq = next.epoch, next.seq
		p.alive("a damaged private part")
	}
	bystander.completed(bystander.run(8, 1))
}

func imageMoves(p *probe) {
	c := p.catch(p.open(deviceName))
	p.dropAll()
	p.in = p.launch(leaseUsual)
	c.over = true
	c.restored(p, p.open(deviceName), c.image)
}

func imageBackAndForth(p *probe) {
	const moves = 4
	l := p.open(deviceName)
	c := p.catch(l)
	groups := uint64(len(c.before))
	present, executed := c.life, c.executed
	from := c.image
	for n := range moves {
		present.destroy()
		next := present.again(l)
		if n%2 == 1 {
			from.header.Private, from.header.Backend = nil, foreignName
		}
		next.create(from)
		run := c.rest(next)
		l.send(run)
		next.started(run.Job)
		next.suspend()
		from = next.image()
		present = next
		if len(from.header.Jobs) == 0 {
			break // it was quick
		}
		j := from.header.Jobs[0]
		if j.Cursor-c.cursor != j.Executed {
			p.failf("move %d: from workgroup %d the job came to %d, and %d were executed", n+1, c.cursor, j.Cursor, j.Executed)
		}
		executed += j.Executed
		c.cursor = j.Cursor
	}
	present.resume()
	got := present.completed(c.run.Job)
	present.suspend()
	p.same("after "+itoa(moves)+" moves", present.cells(), c.after())
	if got.Done != groups {
		p.failf("a job of %d workgroups completed with %d done", groups, got.Done)
	}
	if executed > groups {
		p.failf("a job of %d workgroups was executed %d times over its moves", groups, executed)
	}
}

// finishedElsewhere finishes the job here.
func finishedElsewhere(p *probe) {
	c := p.catch(p.open(deviceName))
	groups := uint64(len(c.before))
	p.same("after the kit has finished a job from the image at workgroup "+itoa(c.cursor),
		mixed(toCells(c.image.buffers[0]), c.seed, c.cursor, groups), c.after())
}
