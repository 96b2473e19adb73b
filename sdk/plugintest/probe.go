package plugintest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/status"

	apiv1 "github.com/gpuwm/gpuwm/api/v1"
	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/sdk/internal/wire"
)

// probe is one check at work: an instance, and what was made on it.
type probe struct {
	kit   *kit
	ctx   context.Context
	level int
	// in is the instance in use; own are those that end with the check.
	in    *instance
	own   []*instance
	lines []*line
	lives []*life
}

// instance returns the shared one, or one of the check's own.
func (p *probe) instance(own bool) *instance {
	if own {
		in := p.launch(leaseUsual)
		return in
	}
	if p.kit.shared == nil {
		in, err := p.kit.start(p.ctx, leaseUsual)
		if err != nil {
			p.failf("the plugin does not start again: %v", err)
		}
		p.kit.shared = in
	}
	return p.kit.shared
}

// launch starts an instance that ends with the check.
func (p *probe) launch(lease time.Duration) *instance {
	in, err := p.kit.start(p.ctx, lease)
	if err != nil {
		p.failf("the plugin does not start: %v", err)
	}
	p.own = append(p.own, in)
	return in
}

// clean destroys what the check made and closes its sessions.
func (p *probe) clean() {
	for _, e := range p.lives {
		if !e.over && e.l.in == p.in && !e.l.left {
			e.destroy()
		}
	}
	for _, l := range p.lines {
		if l.in == p.in {
			l.close()
		}
	}
}

// abandon lets everything go, without a word to the plugin.
func (p *probe) abandon() {
	for _, l := range p.lines {
		l.drop()
	}
}

// bound is the context of one call.
func (p *probe) bound() (context.Context, context.CancelFunc) {
	return context.WithTimeout(p.ctx, p.kit.config.Patience)
}

// alive fails unless the instance answers.
func (p *probe) alive(after string) {
	ctx, cancel := p.bound()
	defer cancel()
	if _, err := p.in.client.Health(ctx, &apiv1.HealthRequest{}); err != nil {
		p.failf("after %s the plugin does not answer Health: %v", after, err)
	}
}

// pending asks how many commands wait or execute.
func (p *probe) pending() uint64 {
	ctx, cancel := p.bound()
	defer cancel()
	m, err := p.in.client.Health(ctx, &apiv1.HealthRequest{})
	if err != nil {
		p.failf("Health: %v", err)
	}
	return m.GetPending()
}

// refusedWith fails unless err is that member of the closed set of errors.
func (p *probe) refusedWith(what string, err error, want ...error) {
	if err == nil {
		p.failf("%s was taken; it must be refused as %q", what, want[0])
	}
	err = wire.FromStatus(err)
	for _, w := range want {
		if errors.Is(err, w) {
			return
		}
	}
	p.failf("%s was refused with %q; the reason must be %q", what, err, want[0])
}

// detailOf returns the detail that every error status carries, nil when there is none.
func detailOf(err error) *apiv1.ErrorDetail {
	st, ok := status.FromError(err)
	if !ok {
		return nil
	}
	for _, d := range st.Details() {
		if detail, ok := d.(*apiv1.ErrorDetail); ok {
			return detail
		}
	}
	return nil
}

// poll asks until it is so, within Patience.
func (p *probe) poll(what string, ok func() bool) {
	limit := time.NewTimer(p.kit.config.Patience)
	defer limit.Stop()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-limit.C:
			p.failf("%s: not within %v", what, p.kit.config.Patience)
		case <-p.ctx.Done():
			p.failf("%s: %v", what, context.Cause(p.ctx))
		}
	}
}

// kinds names the events for people.
var kinds = map[core.BackendEventKind]string{
	core.EventApplied: "applied", core.EventRefused: "refused", core.EventStarted: "started",
	core.EventCompleted: "completed", core.EventCancelled: "cancelled", core.EventMessageDone: "message-done",
	core.EventDestroyed: "destroyed", core.EventEntityLost: "entity-lost", core.EventDeviceHealth: "device-health",
	core.EventProgress: "progress",
}

// tell writes an event in words.
func tell(e *core.BackendEvent) string {
	s := fmt.Sprintf("%s (event %d, entity %d, epoch %d", kinds[e.Kind], e.Seq, e.Entity, e.Epoch)
	if e.Command != 0 {
		s += fmt.Sprintf(", command %d", e.Command)
	}
	if e.Job != 0 {
		s += fmt.Sprintf(", job %d", e.Job)
	}
	if e.Cause != "" || e.Error != "" {
		s += fmt.Sprintf(", cause %q: %s", e.Cause, e.Error)
	}
	return s + ")"
}
