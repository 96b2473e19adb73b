package plugintest

import (
	"context"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

// The steps of a life at which either side is killed.
var deathChecks = []check{
	{name: "host-dies-before-the-image", level: core.LevelRecovery, need: anInstance, run: hostBeforeImage,
		doc: "a host that dies between create and image is followed by one that sends both again"},
	{name: "host-dies-in-an-upload", level: core.LevelRecovery, need: anInstance, run: hostInUpload,
		doc: "a host that dies in the middle of an upload: the create is refused, or takes the image of the next host"},
	{name: "host-dies-while-a-job-executes", level: core.LevelRecovery, need: anInstance, run: hostInJob,
		doc: "a host that dies while a job executes: the job goes on, and the next host learns of its end"},
	{name: "host-dies-before-suspend-is-done", level: core.LevelRecovery, need: anInstance, run: hostInSuspend,
		doc: "a host that dies after it sent a suspend: the next one learns that it is done"},
	{name: "host-dies-in-an-image", level: core.LevelRecovery, need: anInstance, run: hostInImage,
		doc: "a host that dies while it takes an image: the entity stays suspended, the next one takes it again"},
	{name: "host-dies-before-an-acknowledgement", level: core.LevelRecovery, need: anInstance, run: hostBeforeAck,
		doc: "a host that dies before it acknowledged is followed by one that gets every event"},
	{name: "host-dies-before-destroyed", level: core.LevelRecovery, need: anInstance, run: hostInDestroy,
		doc: "a host that dies after it sent a destroy: the next one learns that it is done"},
	{name: "plugin-dies-before-the-image", level: core.LevelRecovery, need: aProcess | anInstance, run: pluginDies(func(c *caught, p *probe, l *line) {
		e, _ := empty(p, l, 8)
		l.send(e.createCommand())
	}), doc: "a plugin that is killed between create and image: a new instance continues the entity from its image"},
	{name: "plugin-dies-in-an-upload", level: core.LevelRecovery, need: aProcess | anInstance, run: pluginDies(func(c *caught, p *probe, l *line) {
		e, from := empty(p, l, core.ChunkSize)
		l.send(e.createCommand())
		ctx, cancel := context.WithCancel(p.ctx)
		e.stalled(ctx, from, 2)
		cancel()
	}), doc: "a plugin that is killed in the middle of an upload: a new instance continues the entity from its image"},
	{name: "plugin-dies-while-a-job-executes", level: core.LevelRecovery, need: aProcess | anInstance, run: pluginDies(func(c *caught, p *probe, l *line) {
		c.resume()
	}), doc: "a plugin that is killed while a job executes: a new instance continues the job from its image"},
	{name: "plugin-dies-before-suspend-is-done", level: core.LevelRecovery, need: aProcess | anInstance, run: pluginDies(func(c *caught, p *probe, l *line) {
		c.resume()
		l.send(c.message(core.MessageSuspend))
	}), doc: "a plugin that is killed while it suspends: a new instance continues the job from its image"},
	{name: "plugin-dies-in-an-image", level: core.LevelRecovery, need: aProcess | anInstance, run: pluginDies(func(c *caught, p *probe, l *line) {
		e, _ := large(p, l)
		e.suspend()
		begun(p.ctx, e)
	}), doc: "a plugin that is killed while an image is taken: a new instance continues the job from its image"},
	{name: "plugin-dies-before-destroyed", level: core.LevelRecovery, need: aProcess | anInstance, run: pluginDies(func(c *caught, p *probe, l *line) {
		l.send(c.command(core.CommandDestroy))
	}), doc: "a plugin that is killed while it destroys: a new instance continues the job from its image"},
	{name: "new-instance-begins-anew", level: core.LevelRecovery, need: aProcess | anInstance, run: newInstance,
		doc: "a new instance has another name, holds nothing, takes session 1, and numbers events from 1"},
	{name: "usage-outlives-the-process", level: core.LevelRecovery, need: aProcess | anInstance, run: usageOutlives,
		doc: "a usage file, where one is kept, has every executed workgroup, also after SIGKILL"},
	{name: "process-outlives-its-host", level: core.LevelRecovery, need: aProcess | anInstance, run: outlivesHost,
		doc: "a process whose host is gone, with its end of the standard streams, goes on and is adopted"},
	{name: "lease-holds-while-connected", level: core.LevelRecovery, need: aProcess | anInstance, run: leaseHolds,
		doc: "the lease does not run while a host is connected"},
	{name: "lease-ends-the-process", level: core.LevelRecovery, need: aProcess | anInstance, run: leaseEnds,
		doc: "a process without a host ends by itself when its lease runs out"},
}

// nextHost kills the host and opens the next one's session.
func (p *probe) nextHost() *line {
	for _, l := range p.lines {
		if !l.left {
			l.left = true
			defer l.drop()
		}
	}
	if err := p.in.hostDies(p.ctx); err != nil {
		p.failf("after its host had died the plugin could not be adopted: %v", err)
	}
	return p.open(deviceName)
}

func hostBeforeImage(p *probe) {
	l := p.open(deviceName)
	e, from := empty(p, l, 8)
	c := e.createCommand()
	l.send(c)
	p.poll("the create was taken", func() bool { return p.pending() > 0 })
	l = p.nextHost()
	e.on(l)
	l.send(c)
	if err := e.upload(from); err != nil {
		p.failf("the image of the next host was refused: %v", err)
	}
	e.applied(c.Seq)
	e.completed(e.run(8, 1))
}

// hostInUpload: how much of the upload the plugin has seen nobody knows, so the next
// host does what it must: it sends the create again, and the image until it is taken or
// the create was refused.
func hostInUpload(p *probe) {
	l := p.open(deviceName)
	e, from := empty(p, l, core.ChunkSize)
	c := e.createCommand()
	l.send(c)
	ctx, cancel := context.WithCancel(p.ctx)
	defer cancel()
	e.stalled(ctx, from, 2)
	l = p.nextHost()
	e.on(l)
	l.send(c)
	refused := func(b *core.BackendEvent) bool { return b.Entity == e.id && b.Kind == core.EventRefused }
	var over bool
	p.poll("the image of the next host was taken, or the create refused", func() bool {
		if e.upload(from) == nil {
			return true
		}
		_, over = l.find(refused)
		return over
	})
	if over {
		e = e.again(l)
		e.create(from)
	} else {
		e.applied(c.Seq)
	}
	e.completed(e.run(8, 1))
}

func hostInJob(p *probe) {
	l := p.open(deviceName)
	e := p.filled(l, counted(middleGroups))
	c := e.slow(middleGroups, 4)
	l.send(c)
	e.started(c.Job)
	e.on(p.nextHost())
	if got := e.completed(c.Job); got.Executed != middleGroups {
		p.failf("a job of %d workgroups whose host had died completed with %d executed", middleGroups, got.Executed)
	}
	e.suspend()
	p.same("after a job whose host had died", e.cells(), mixed(counted(middleGroups), 4, 0, middleGroups))
}

func hostInSuspend(p *probe) {
	l := p.open(deviceName)
	e := p.entity(l, foreverGroups)
	job := e.forever(1)
	barrier, suspend := e.message(core.MessageBarrier), e.message(core.MessageSuspend)
	l.send(barrier, suspend) // in one batch: with one answered the other is taken
	e.done(barrier.Seq)
	e.on(p.nextHost())
	e.done(suspend.Seq)
	p.same("with the job suspended", e.cells(), mixed(make([]uint32, foreverGroups), 1, 0, e.image().header.Jobs[0].Cursor))
	e.resume()
	e.cancel(job)
	e.ended(job)
}

func hostInImage(p *probe) {
	l := p.open(deviceName)
	e, content := large(p, l)
	e.completed(e.run(8, 1))
	e.suspend()
	begun(p.ctx, e)
	e.on(p.nextHost())
	p.same("in the image that the next host took", toCells(e.smallImage().buffers[1]), mixed(toCells(content[1]), 1, 0, 8))
	e.resume()
	e.completed(e.run(8, 2))
}

func hostBeforeAck(p *probe) {
	l := p.open(deviceName)
	e := p.entity(l, 8)
	var jobs []core.JobID
	for n := range uint32(4) {
		jobs = append(jobs, e.run(8, n))
	}
	e.barrier()
	before := l.history()
	next := p.nextHost()
	e.on(next)
	for i := range before {
		if b := &before[i]; b.Entity == e.id {
			got := next.await("again "+tell(b)+", which nobody acknowledged", func(o *core.BackendEvent) bool { return o.Seq == b.Seq })
			if !sameEvent(&got, b) {
				p.failf("the host that died had %s, its successor got %s", tell(b), tell(&got))
			}
		}
	}
	_, count := places(before, core.EventCompleted)
	for _, job := range jobs {
		if count[job] == 0 {
			e.completed(job)
		}
	}
}

func hostInDestroy(p *probe) {
	l := p.open(deviceName)
	e := p.entity(l, foreverGroups)
	e.forever(1)
	barrier, destroy := e.message(core.MessageBarrier), e.command(core.CommandDestroy)
	l.send(barrier, destroy)
	e.done(barrier.Seq)
	e.on(p.nextHost())
	if got := e.answer("destroyed", destroy.Seq); got.Kind != core.EventDestroyed {
		p.failf("destroy was answered with %s", tell(&got))
	}
	e.over = true
}

// killed ends the plugin with SIGKILL and starts a new instance.
func (p *probe) killed() *line {
	old := p.in
	for _, l := range p.lines {
		l.left = true
	}
	if err := old.kill(); err != nil {
		p.failf("the plugin is there after SIGKILL: %v", err)
	}
	for _, l := range p.lines {
		l.drop()
	}
	p.in = p.launch(leaseUsual)
	return p.open(deviceName)
}

// pluginDies takes an image in the middle of a job, does something, kills the plugin
// and continues on a new instance from that image.
func pluginDies(do func(c *caught, p *probe, l *line)) func(*probe) {
	return func(p *probe) {
		l := p.open(deviceName)
		c := p.catch(l)
		do(&c, p, l)
		c.restored(p, p.killed(), c.image)
	}
}

func newInstance(p *probe) {
	bringUp(p)
	first := p.in.name
	l := p.killed()
	if got := helloOf(p).GetInstance(); got == first || got != p.in.name {
		p.failf("the new instance says that it is %q; it was started as %q, the one before was %q", got, p.in.name, first)
	}
	if n := len(l.opened.GetHeld()); n != 0 || l.opened.GetAcked() != 0 {
		p.failf("the new instance holds %d entities, and its events begin after %d", n, l.opened.GetAcked())
	}
	e := p.entity(l, 8)
	e.completed(e.run(8, 1))
	if b := l.history()[0]; b.Seq != 1 {
		p.failf("the first event of the new instance is %s", tell(&b))
	}
}

// usageOutlives compares the file with an image, which says how much was executed.
func usageOutlives(p *probe) {
	c := p.catch(p.open(deviceName))
	old := p.in
	key := core.UsageKey{Job: c.run.Job, Epoch: c.epoch}
	count := func() (uint64, int) {
		counts, err := old.launcher.Usage(old.record)
		if err != nil {
			p.failf("the usage file: %v", err)
		}
		return counts[key], len(counts)
	}
	got, all := count()
	if all == 0 {
		p.skipf("the plugin keeps no usage file")
	}
	if got != c.executed {
		p.failf("the usage file has %d workgroups of a suspended job, its image says %d", got, c.executed)
	}
	p.killed()
	if after, _ := count(); after != got {
		p.failf("the usage file had %d workgroups, and after SIGKILL it has %d", got, after)
	}
}

func outlivesHost(p *probe) {
	l := p.open(deviceName)
	e := p.filled(l, counted(middleGroups))
	for n := range uint32(3) {
		c := e.slow(middleGroups, n)
		l.send(c)
		e.started(c.Job)
		l = p.nextHost()
		e.on(l)
		e.completed(c.Job)
	}
}

// leased starts an instance with a short lease, with its device up.
func leased(p *probe) *line {
	p.in = p.launch(leaseShort)
	return bringUp(p)
}

func leaseHolds(p *probe) {
	l := leased(p)
	e := p.entity(l, 8)
	over := time.NewTimer(leaseShort + leaseShort/2)
	defer over.Stop()
	<-over.C
	e.completed(e.run(8, 1))
}

func leaseEnds(p *probe) {
	leased(p)
	p.dropAll()
	p.in.leave()
	if err := p.in.gone(p.ctx, p.kit.config.Patience+leaseShort); err != nil {
		p.failf("with a lease of %v and no host: %v", leaseShort, err)
	}
}
