package driver

import (
	"fmt"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/guc/abi"
	"github.com/gpuwm/gpuwm/plugins/host"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// handle takes one well-formed event of the firmware.
func (d *Driver) handle(body abi.Body) {
	switch m := body.(type) {
	case abi.SchedContextModeDone:
		e := modeDisabled
		if m.Enabled {
			e = modeEnabled
		}
		if q := d.find(m.ID, body); q != nil {
			d.modeDone(q, e)
		}
	case abi.DeregisterContextDone:
		if q := d.find(m.ID, body); q != nil && q.advance(deregistered) {
			if q.leaked {
				d.log.Warn("late deregistration", "entity", q.entity, "slot", q.id)
			}
			q.free()
		}
	case abi.ContextReset:
		d.takeReset(m.ID, body, core.CauseHang, "no preemption point was reached in time")
	case abi.CatError:
		if m.ID == abi.GUCIDUnknown {
			d.log.Warn("memory error without context", "type", m.Type)
			return
		}
		d.takeReset(m.ID, body, core.CauseMemory, fmt.Sprintf("memory error of type %#x", m.Type))
	case abi.StateCapture:
		d.log.Debug("engine state captured", "status", m.Status)
	case abi.EngineFailure:
		d.reset(fmt.Errorf("engine class %d instance %d could not be reset: reason %#x", m.Class, m.Instance, m.Reason))
	case abi.CrashDumpPosted, abi.Exception:
		d.reset(fmt.Errorf("firmware died: %s", body.Action()))
	case abi.VFStateNotify:
		d.notified(m)
	case abi.TLBInvalidationDone:
		d.log.Debug("translations dropped", "fence", m.Seqno)
	default:
		d.log.Warn("unknown firmware event", "event", body.Action())
	}
}

// modeDone takes the answer to an enable or a disable.
func (d *Driver) modeDone(q *queue, e event) {
	d.scanQueue(q)
	if d.failed() || d.phase != phaseUp && d.phase != phaseMoving || !q.advance(e) {
		return
	}
	switch q.state {
	case enabled:
		q.enabledAt = d.config.Clock.Now()
	case suspended, disabled:
		// CONTEXT_RESET may come behind the answer: a job that faulted is neither
		// suspended nor cancelled.
		if found := q.faulted(); found != nil {
			q.advance(ban)
			q.lose(found.cause, found.detail)
		}
	case banned:
		if found := q.evidence; found != nil {
			q.lose(found.cause, found.detail)
		}
	case deregistering:
		if d.phase == phaseMoving {
			return // Everything that is not answered is asked again after the move.
		}
		d.send(abi.DeregisterContext{ID: q.id}, creditNone, 0) // Its credit came with the disable.
	}
	q.settle()
}

func (d *Driver) find(id abi.GUCID, body abi.Body) *queue {
	q := d.queues[id]
	if q == nil {
		d.log.Warn("event without context", "slot", id, "event", body.Action())
	}
	return q
}

// takeReset: the firmware gave a context up. What its running job's descriptor
// says of the fault wins over what the event alone means.
func (d *Driver) takeReset(id abi.GUCID, body abi.Body, cause core.Cause, detail string) {
	q := d.find(id, body)
	if q == nil {
		return
	}
	d.scanQueue(q)
	if d.failed() || d.phase != phaseUp && d.phase != phaseMoving || !q.advance(contextReset) || q.state.dying() {
		return
	}
	if found := q.faulted(); found != nil {
		cause, detail = found.cause, found.detail
	} else if q.published == 0 {
		cause, detail = core.CauseDevice, "context was reset without work"
	}
	q.lose(cause, detail)
	q.settle()
}

// faulted returns what the descriptor of the first job that the firmware sees says of a fault.
func (q *queue) faulted() *evidence {
	if q.published == 0 {
		return nil
	}
	report, err := q.readReport(q.jobs[0])
	if err != nil || report.Status != hw.StatusFault {
		return nil
	}
	return &evidence{host.FaultCause(report.Cause), report.Detail}
}
