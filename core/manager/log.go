package manager

import (
	"fmt"
	"strings"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/core/sched"
)

// sentence formats what users read as one line, whatever errors bring along.
func sentence(format string, args ...any) string {
	return strings.Join(strings.FieldsFunc(fmt.Sprintf(format, args...), func(r rune) bool {
		return r == '\n' || r == '\r' || r == '\t'
	}), " ")
}

// logReport tells what a plugin reports and no notice does: that a job began, and
// what a suspend cost. Both are for whoever looks closely.
func (d *device) logReport(ev *core.BackendEvent) {
	if !d.log.IsDebug() {
		return
	}
	r := d.records[ev.Entity]
	if r == nil {
		return
	}
	switch {
	case ev.Kind == core.EventStarted && r.byID[ev.Job] != nil:
		d.log.Debug("job started", "entity", r.spec.Name, "job", r.byID[ev.Job].spec.Name, "epoch", ev.Epoch)
	case ev.Kind == core.EventMessageDone && ev.Cost > 0: // Of all messages only a suspend has one.
		d.log.Debug("entity off device", "entity", r.spec.Name, "epoch", ev.Epoch, "took", ev.Cost.Round(time.Microsecond))
	}
}

// logNotice is the one place that turns the schedulers' notices into log lines.
func (d *device) logNotice(n *sched.Notice) {
	name := any(n.Entity)
	var r *entityRecord
	if r = d.records[n.Entity]; r != nil {
		name = r.spec.Name
	}
	switch n.Kind {
	case sched.EntityChanged:
		if n.Cause != core.CauseNone && n.Goal == core.GoalSuspend && n.State == core.Away {
			d.log.Warn("entity suspended", "entity", name, "cause", n.Cause, "error", n.Error)
			return
		}
		d.log.Debug("entity changed", "entity", name, "state", n.State, "goal", n.Goal, "image", n.Image)
	case sched.JobChanged:
		job := any(n.Job)
		if r != nil && r.byID[n.Job] != nil {
			job = r.byID[n.Job].spec.Name
		}
		switch {
		case n.Phase == core.JobCompleted:
			d.log.Debug("job completed", "entity", name, "job", job)
		case n.Phase.Final():
			d.log.Warn("job ended", "entity", name, "job", job, "state", n.Phase, "cause", n.Cause, "error", n.Error)
		default:
			d.log.Debug("job changed", "entity", name, "job", job, "state", n.Phase)
		}
	case sched.OrderViolated:
		d.log.Warn("event out of order", "entity", name, "state", n.State, "error", n.Error)
	}
}
