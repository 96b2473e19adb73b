package plugintest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	apiv1 "github.com/gpuwm/gpuwm/api/v1"
	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/sdk/internal/wire"
)

const (
	// samplesMax bounds the progress that is kept of a session.
	samplesMax = 1 << 14
	// lastEvents is how many events a failure tells of.
	lastEvents = 4
)

// line is one session as its host sees it. Unlike a proper host it takes events in
// whatever order and number they come: one check judges that, the others do not.
type line struct {
	p      *probe
	in     *instance
	device string
	number core.Session
	stream apiv1.Backend_SessionClient
	cancel context.CancelFunc
	opened *apiv1.DeviceOpened
	// left says that the session is not ours any more.
	left bool
	// ended is closed when nothing comes any more.
	ended chan struct{}
	more  chan struct{}

	mu struct {
		sync.Mutex
		// events are all that came, in that order; taken those that were awaited.
		events []core.BackendEvent
		taken  []bool
		// samples are the first of progress, sampled counts all.
		samples []core.BackendEvent
		sampled int
		// err is why the session ended.
		err error
	}
}

// open opens a session with the next number.
func (p *probe) open(device string) *line {
	p.in.sessions[device]++
	l, err := p.tryOpen(device, p.in.sessions[device], p.in.acked[device], nil)
	if err != nil {
		p.failf("session %d of device %s does not open: %v", p.in.sessions[device], device, wire.FromStatus(err))
	}
	return l
}

// tryOpen opens a session; change may alter the first message.
func (p *probe) tryOpen(device string, number core.Session, acked core.EventSeq, change func(*apiv1.SessionRequest)) (*line, error) {
	l := &line{p: p, in: p.in, device: device, number: number, ended: make(chan struct{}), more: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(p.ctx)
	l.cancel = cancel
	tooLate := time.AfterFunc(p.kit.config.Patience, cancel)
	var err error
	if l.stream, err = p.in.client.Session(ctx); err != nil {
		cancel()
		return nil, err
	}
	first := &apiv1.SessionRequest{Open: &apiv1.OpenDevice{
		Spec: &apiv1.DeviceSpec{
			Name: device, Backend: p.kit.description.Name, Engine: p.kit.config.Engine, Options: p.kit.config.Options,
		},
		Session: uint64(number), Acked: uint64(acked),
	}}
	if change != nil {
		change(first)
	}
	_ = l.stream.Send(first)
	m, err := l.stream.Recv()
	if err == nil && m.GetOpened() == nil {
		err = errors.New("the first reply carries no description")
	}
	if !tooLate.Stop() && err != nil {
		err = fmt.Errorf("no answer within %v", p.kit.config.Patience)
	}
	if err != nil {
		cancel()
		return nil, err
	}
	l.opened = m.GetOpened()
	p.lines = append(p.lines, l)
	go l.receive()
	return l, nil
}

// describe returns what the plugin declares of the device.
func (l *line) describe() core.DeviceDescription {
	d, err := wire.ToDeviceDescription(l.opened.GetDescription())
	if err != nil {
		l.p.failf("the description of device %s: %v", l.device, err)
	}
	return d
}

// receive takes everything that comes.
func (l *line) receive() {
	defer close(l.ended)
	for {
		m, err := l.stream.Recv()
		if err == nil {
			err = l.put(m)
		}
		if err != nil {
			l.mu.Lock()
			l.mu.err = err
			l.mu.Unlock()
			return
		}
	}
}

func (l *line) put(m *apiv1.SessionReply) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if m.GetOpened() != nil {
		return errors.New("the device was described a second time in one session")
	}
	var err error
	if b := m.GetEvents(); len(b) > 0 {
		if l.mu.events, err = wire.DecodeEvents(b, false, l.mu.events); err != nil {
			return fmt.Errorf("a batch of events is malformed: %w", err)
		}
		for len(l.mu.taken) < len(l.mu.events) {
			l.mu.taken = append(l.mu.taken, false)
		}
	}
	if b := m.GetProgress(); len(b) > 0 {
		samples, err := wire.DecodeEvents(b, true, nil)
		if err != nil {
			return fmt.Errorf("a batch of progress is malformed: %w", err)
		}
		l.mu.sampled += len(samples)
		if len(l.mu.samples) < samplesMax {
			l.mu.samples = append(l.mu.samples, samples...)
		}
	}
	select {
	case l.more <- struct{}{}:
	default:
	}
	return nil
}

// send sends commands as one batch after another.
func (l *line) send(commands ...core.Command) {
	for len(commands) > 0 {
		var b wire.CommandBatch
		for len(commands) > 0 && !b.Full() {
			if err := b.Append(&commands[0]); err != nil {
				panic(err) // a slip of the kit
			}
			commands = commands[1:]
		}
		l.raw(b.Body())
	}
}

// raw sends bytes in the place of a batch. An error shows when the end is awaited.
func (l *line) raw(b []byte) { _ = l.stream.Send(&apiv1.SessionRequest{Commands: b}) }

// ack says that events up to one are durable.
func (l *line) ack(seq core.EventSeq) {
	l.in.acked[l.device] = max(l.in.acked[l.device], seq)
	_ = l.stream.Send(&apiv1.SessionRequest{Ack: uint64(seq)})
}

// history returns the events so far.
func (l *line) history() []core.BackendEvent {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]core.BackendEvent(nil), l.mu.events...)
}

// samples returns the progress so far, and how much there was in all.
func (l *line) samples() ([]core.BackendEvent, int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]core.BackendEvent(nil), l.mu.samples...), l.mu.sampled
}

// find takes the first event that matches and was not taken.
func (l *line) find(match func(*core.BackendEvent) bool) (core.BackendEvent, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.mu.events {
		if !l.mu.taken[i] && match(&l.mu.events[i]) {
			l.mu.taken[i] = true
			return l.mu.events[i], true
		}
	}
	return core.BackendEvent{}, false
}

// await returns the first event that matches, and fails when none comes in time.
func (l *line) await(what string, match func(*core.BackendEvent) bool) core.BackendEvent {
	limit := time.NewTimer(l.p.kit.config.Patience)
	defer limit.Stop()
	ended := l.ended
	for {
		if e, ok := l.find(match); ok {
			return e
		}
		select {
		case <-l.more:
		case <-ended:
			if e, ok := l.find(match); ok {
				return e
			}
			l.p.failf("%s did not come: the session ended: %v", what, l.cause())
		case <-limit.C:
			l.p.failf("%s did not come within %v; %s", what, l.p.kit.config.Patience, l.last())
		case <-l.p.ctx.Done():
			l.p.failf("%s did not come: the check took too long; %s", what, l.last())
		}
	}
}

// cause is why the session ended.
func (l *line) cause() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.err
}

// last tells of the last events.
func (l *line) last() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.mu.events) == 0 {
		return "no event came at all"
	}
	var words []string
	for i := max(0, len(l.mu.events)-lastEvents); i < len(l.mu.events); i++ {
		words = append(words, tell(&l.mu.events[i]))
	}
	return "the last events were " + strings.Join(words, ", ")
}

// broken waits for the end of the session and returns its status; nil for an end
// without an error.
func (l *line) broken(after string) error {
	limit := time.NewTimer(l.p.kit.config.Patience)
	defer limit.Stop()
	select {
	case <-l.ended:
	case <-limit.C:
		l.p.failf("after %s the session goes on; it must end with an error", after)
	}
	l.left = true
	if err := l.cause(); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// close acknowledges what came and ends the session in order.
func (l *line) close() {
	if l.left {
		return
	}
	if all := l.history(); len(all) > 0 {
		last := l.in.acked[l.device]
		for i := range all {
			last = max(last, all[i].Seq)
		}
		l.ack(last)
	}
	_ = l.stream.CloseSend()
	// A plugin that keeps the stream open is no worse: the next session ends it.
	limit := time.NewTimer(time.Second)
	defer limit.Stop()
	select {
	case <-l.ended:
	case <-limit.C:
	}
	l.drop()
}

// drop breaks the session off.
func (l *line) drop() {
	l.left = true
	l.cancel()
	<-l.ended
}
