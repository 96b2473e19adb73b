package plugintest

import (
	"context"
	"errors"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

// How long a plugin waits for what a host owes it.
const (
	imageTime  = time.Minute
	stallTime  = 30 * time.Second
	kernelTime = 30 * time.Second
)

// waitChecks let a plugin wait in vain, all at the same time, each on an instance of its own.
var waitChecks = []check{
	{name: "create-waits-for-its-image", level: core.LevelJobs, need: anInstance | aMinute, run: createWaits,
		doc: "a create whose image does not come within 60 s is refused with the cause image"},
	{name: "image-waits-for-its-create", level: core.LevelJobs, need: anInstance | aMinute, run: imageWaits,
		doc: "an image whose create does not come within 60 s is refused as deadline"},
	{name: "run-waits-for-its-kernel", level: core.LevelJobs, need: anInstance | aMinute, run: runWaits,
		doc: "a job whose kernel does not come within 30 s is refused with the cause kernel; its entity goes on"},
	{name: "upload-does-not-stall", level: core.LevelJobs, need: anInstance | aMinute, run: uploadStalls,
		doc: "an image that stops coming for 30 s is refused as deadline, and its create with the cause image"},
	{name: "save-does-not-stall", level: core.LevelImages, need: anInstance | aMinute, run: saveStalls,
		doc: "a host that does not answer a window of an image for 30 s ends the save as deadline; the entity goes on"},
}

// within awaits the end of a call whose contract names the time that it may take at
// most. It must not end before either: the host has the time for itself.
func (p *probe) within(what string, limit time.Duration, ended <-chan error) error {
	const slack = time.Second // for clocks that are read in different places
	began := time.Now()
	late := time.NewTimer(limit + p.kit.config.Patience)
	defer late.Stop()
	select {
	case err := <-ended:
		if took := time.Since(began); took < limit-slack {
			p.failf("%s ended after %v (%v); the host has %v", what, took.Round(time.Millisecond), err, limit)
		}
		return err
	case <-late.C:
		p.failf("%s goes on after %v; it must end after %v", what, limit+p.kit.config.Patience, limit)
	case <-p.ctx.Done():
		p.failf("%s goes on: %v", what, context.Cause(p.ctx))
	}
	return errors.New("not reached")
}

// seen is the channel of one event; the wait for it is bounded by the caller's.
func (p *probe) seen(l *line, match func(*core.BackendEvent) bool) (<-chan error, *core.BackendEvent) {
	done, got := make(chan error, 1), new(core.BackendEvent)
	go func() {
		for {
			if e, ok := l.find(match); ok {
				*got = e
				done <- nil
				return
			}
			select {
			case <-l.more:
			case <-l.ended:
				done <- l.cause()
				return
			case <-p.ctx.Done():
				return
			}
		}
	}()
	return done, got
}

// refusedAfter awaits the refusal of a command.
func (e *life) refusedAfter(what string, limit time.Duration, seq core.CommandSeq, cause core.Cause) {
	done, got := e.p.seen(e.l, func(b *core.BackendEvent) bool { return b.Entity == e.id && b.Epoch == e.epoch && b.Command == seq })
	if err := e.p.within(what, limit, done); err != nil {
		e.p.failf("%s: the session ended: %v", what, err)
	}
	if got.Kind != core.EventRefused || got.Cause != cause {
		e.p.failf("%s was answered with %s; it must be refused with the cause %q", what, tell(got), cause)
	}
}

func createWaits(p *probe) {
	l := p.open(deviceName)
	e := p.life(l, p.spec(core.BufferSpec{Name: cellsName, Size: 32}), 1, 0)
	c := e.createCommand()
	l.send(c)
	e.refusedAfter("a create without an image", imageTime, c.Seq, core.CauseImage)
	other := p.entity(l, 8)
	other.completed(other.run(8, 1))
}

func imageWaits(p *probe) {
	l := p.open(deviceName)
	e := p.life(l, p.spec(core.BufferSpec{Name: cellsName, Size: 32}), 1, 0)
	done := make(chan error, 1)
	go func() { done <- p.putImageIn(p.ctx, l, e.id, e.epoch, e.fresh([][]byte{make([]byte, 32)}), nil) }()
	p.refusedWith("an image without a create", p.within("an image without a create", imageTime, done), core.ErrDeadline)
	e.create(e.fresh([][]byte{make([]byte, 32)}))
	e.completed(e.run(8, 1))
}

func runWaits(p *probe) {
	l := p.open(deviceName)
	e := p.entity(l, 8)
	c := e.mix(8, 1)
	absent := core.DigestOf([]byte("a kernel that nobody uploads\n"))
	c.JobSpec.Kernels = map[string]core.Digest{p.kit.kernel.Format: absent}
	l.send(c)
	e.refusedAfter("a run without its kernel", kernelTime, c.Seq, core.CauseKernel)
	e.completed(e.run(8, 2))
}

func uploadStalls(p *probe) {
	l := p.open(deviceName)
	e := p.life(l, p.spec(core.BufferSpec{Name: cellsName, Size: 2 * core.ChunkSize}), 1, 0)
	from := e.fresh([][]byte{toBytes(counted(2 * core.ChunkSize / 4))})
	c := e.createCommand()
	l.send(c)
	const half = 2 // the header and the first chunk
	done := make(chan error, 1)
	go func() { done <- p.stallImage(l, e.id, e.epoch, from, half) }()
	p.refusedWith("an image that stops coming", p.within("an image that stops coming", stallTime, done), core.ErrDeadline)
	if got := e.refused("a create whose image stopped coming", c.Seq); got.Cause != core.CauseImage {
		p.failf("the refusal is %s; its cause must be %q", tell(&got), core.CauseImage)
	}
	next := e.again(l)
	next.create(from)
	next.completed(next.run(8, 1))
}

func saveStalls(p *probe) {
	l := p.open(deviceName)
	before := counted(8)
	e := p.filled(l, before)
	e.suspend()
	done := make(chan error, 1)
	go func() { done <- e.stallSave() }()
	p.refusedWith("a save whose host is silent", p.within("a save whose host is silent", stallTime, done), core.ErrDeadline)
	p.same("after a save that was given up", e.cells(), before)
	e.resume()
	e.completed(e.run(8, 1))
}
