package plugintest

import (
	"context"
	"fmt"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/sdk/internal/wire"
)

// What a plugin holds at most, or, of events, exactly.
const (
	eventsKept    = 16384
	kernelsHeld   = 16384
	imagesWaiting = 1024
	devicesHeld   = 256
	// beyond is by how much the kit goes over a limit.
	beyond = 8
	// barriersAtOnce is less than every plugin must let wait for one entity.
	barriersAtOnce = 200
)

var limitChecks = []check{
	{name: "kernels-are-bounded", level: core.LevelJobs, need: anInstance | muchData, run: kernelsBounded,
		doc: "a device takes at most 16384 kernels; the next one is refused as full, and those that are there stay usable"},
	{name: "waiting-images-are-bounded", level: core.LevelJobs, need: anInstance | muchData, run: imagesBounded,
		doc: "at most 1024 images of a device wait for their create; the next one is refused as full, and those that wait can be created"},
	{name: "devices-are-bounded", level: core.LevelJobs, need: anInstance | muchData, run: devicesBounded,
		doc: "an instance opens at most 256 devices; the next one is refused as full, and those that are open go on"},
	{name: "events-are-kept-up-to-their-limit", level: core.LevelMessages, need: anInstance | muchData, run: eventsKeptFull,
		doc: "when 16384 events are not acknowledged no further command is carried out until there is room; the device and Health go on"},
}

// eventsKeptFull acknowledges nothing until the plugin must stop.
func eventsKeptFull(p *probe) {
	l := p.open(deviceName)
	e, other := p.entity(l, 8), p.entity(l, foreverGroups)
	job := other.slow(foreverGroups, 1)
	count := func() int { return len(l.history()) }
	barriers := func(n int) (last core.CommandSeq) {
		for range n {
			c := e.message(core.MessageBarrier)
			l.send(c)
			last = c.Seq
		}
		return last
	}
	for eventsKept-count() > barriersAtOnce {
		e.done(barriers(barriersAtOnce))
	}
	// A job that is on the device when the last event fits.
	l.send(job)
	other.started(job.Job)
	if left := eventsKept - count(); left > 0 {
		e.done(barriers(left))
	}
	barriers(beyond)
	// Nothing may come; there is no sign for that but time.
	window := time.NewTimer(sampleWindow)
	defer window.Stop()
	<-window.C
	if n := count(); n != eventsKept {
		p.failf("with %d events not acknowledged %d more came: commands were carried out beyond the limit", eventsKept, n-eventsKept)
	}
	p.alive("the last event that fits")
	all := l.history()
	l.ack(all[0].Seq)
	p.poll("after one event was acknowledged another one comes", func() bool { return count() > eventsKept })
	l.ack(all[len(all)-1].Seq)
	p.poll("after all events were acknowledged the rest comes", func() bool { return count() >= eventsKept+beyond })
	other.cancel(job.Job)
	other.ended(job.Job)
}

// nonce makes code that was not uploaded yet, and that its engine takes.
func (p *probe) nonce(n int) (core.Kernel, bool) {
	k := core.Kernel{Format: p.kit.kernel.Format}
	name := fmt.Sprintf("n%07d", n)
	switch k.Format {
	case core.FormatWasm: // A custom section: 0, its size, the size of its name, the name, a byte of content.
		k.Code = append(append([]byte(nil), p.kit.kernel.Code...), 0, byte(len(name)+2), byte(len(name)))
		k.Code = append(append(k.Code, name...), 0)
	case core.FormatOpenCL:
		k.Code = append(append([]byte(nil), p.kit.kernel.Code...), "\n// "+name+"\n"...)
	default:
		return core.Kernel{}, false
	}
	k.Digest = core.DigestOf(k.Code)
	return k, true
}

func kernelsBounded(p *probe) {
	l := p.open(deviceName)
	e := p.entity(l, 8)
	e.completed(e.run(8, 1))
	for n := 1; ; n++ { // One is there.
		k, ok := p.nonce(n)
		if !ok {
			p.skipf("in the format %s there is one code only", p.kit.kernel.Format)
		}
		err := p.putKernel(l, p.kernelHeader(l, k), k.Code)
		if err == nil && n < kernelsHeld {
			continue
		}
		p.refusedWith(fmt.Sprintf("kernel %d of a device", n+1), err, core.ErrFull)
		break
	}
	p.alive("as many kernels as a device takes")
	e.completed(e.run(8, 2))
}

// imagesBounded sends more images than may wait. Which of them are too many is the
// plugin's affair: they arrive in no order.
func imagesBounded(p *probe) {
	l := p.open(deviceName)
	ctx, cancel := context.WithCancel(p.ctx)
	defer cancel()
	type answer struct {
		n   int
		err error
	}
	const all = imagesWaiting + beyond
	answers := make(chan answer, all)
	waiting := make(map[int]*life, all)
	cells := toBytes(counted(8))
	for n := range all {
		e := p.life(l, p.spec(core.BufferSpec{Name: cellsName, Size: uint64(len(cells))}), 1, 0)
		waiting[n] = e
		go func() { answers <- answer{n, p.putImageIn(ctx, l, e.id, e.epoch, e.fresh([][]byte{cells}), nil)} }()
	}
	limit := time.NewTimer(p.kit.config.Patience)
	defer limit.Stop()
	for len(waiting) > imagesWaiting {
		select {
		case a := <-answers:
			p.refusedWith("one of too many images", a.err, core.ErrFull)
			delete(waiting, a.n)
		case <-limit.C:
			p.failf("%d images without a create were sent, and only %d refused as full within %v; at most %d may wait", all, all-len(waiting), p.kit.config.Patience, imagesWaiting)
		}
	}
	for n, e := range waiting { // Any.
		c := e.createCommand()
		l.send(c)
		for a := range answers {
			if a.n == n && a.err != nil {
				p.failf("an image that waited was refused once its create came: %v", wire.FromStatus(a.err))
			}
			if a.n == n {
				break
			}
			p.refusedWith("one of too many images", a.err, core.ErrFull)
			delete(waiting, a.n)
		}
		e.applied(c.Seq)
		e.completed(e.run(8, 1))
		break
	}
	cancel()
	p.alive("many images without a create")
}

func devicesBounded(p *probe) {
	first := p.open(deviceName)
	e := p.entity(first, 8)
	for n := 1; ; n++ {
		_, err := p.tryOpen(fmt.Sprintf("kit-many-%d", n), 1, 0, nil)
		if err == nil && n < devicesHeld {
			continue
		}
		p.refusedWith(fmt.Sprintf("device %d of an instance", n+1), err, core.ErrFull)
		break
	}
	e.completed(e.run(8, 1))
}
