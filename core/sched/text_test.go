package sched

import (
	"fmt"
	"strings"

	"github.com/gpuwm/gpuwm/core"
)

// words joins those that say something.
type words []string

func (w *words) add(format string, args ...any) { *w = append(*w, fmt.Sprintf(format, args...)) }

// when adds the words only if they say something.
func (w *words) when(says bool, format string, args ...any) {
	if says {
		w.add(format, args...)
	}
}

func (w words) String() string { return strings.Join(w, " ") }

func entityText(s *core.EntityState) string {
	var w words
	w.add("e%d %s", s.ID, s.Residency)
	w.when(s.Goal != core.GoalRun, "goal=%s", s.Goal)
	w.when(s.Epoch != 0, "epoch=%d", s.Epoch)
	w.when(s.Commands != 0, "commands=%d", s.Commands)
	w.when(s.Pending != 0, "pending=%d", s.Pending)
	w.when(s.PropertiesPending != 0, "properties=%d", s.PropertiesPending)
	w.add("image=%d", s.Generation)
	w.when(s.Saving != 0, "saving=%d", s.Saving)
	w.when(s.Cut != 0, "cut=%d", s.Cut)
	w.when(s.Faults != 0, "faults=%d", s.Faults)
	w.when(s.Banned, "banned")
	w.when(s.Halted, "halted")
	w.when(s.Closed, "closed")
	w.when(s.Cause != "", "(%s: %s)", s.Cause, s.Error)
	return w.String()
}

func jobText(s *core.JobState) string {
	var w words
	w.add("j%d %s", s.ID, s.Phase)
	w.when(s.Epoch != 0, "epoch=%d", s.Epoch)
	w.when(s.Run != 0, "run=%d", s.Run)
	w.when(s.Cancel != 0, "cancel=%d", s.Cancel)
	w.when(s.Cursor != 0, "cursor=%d", s.Cursor)
	w.when(s.Executed != 0, "executed=%d", s.Executed)
	w.when(s.ExecutedTime != 0, "time=%s", s.ExecutedTime)
	w.when(s.InEpoch != 0, "in-epoch=%d", s.InEpoch)
	w.when(s.Stopping != "", "stopping=%s", s.Stopping)
	w.when(s.Cause != "" || s.Error != "", "(%s: %s)", s.Cause, s.Error)
	return w.String()
}

func commandText(c *core.Command) string {
	var w words
	w.add("e%d.%d #%d", c.Entity, c.Epoch, c.Seq)
	switch c.Kind {
	case core.CommandCreate:
		w.add("create from image %d", c.Generation)
	case core.CommandRun:
		w.add("run j%d from %d", c.Job, c.First)
		w.when(c.ExecutedTime != 0, "after %s", c.ExecutedTime)
	case core.CommandCancel:
		w.add("cancel j%d", c.Job)
	case core.CommandDestroy:
		w.add("destroy")
	case core.CommandMessage:
		w.add("%s", map[core.MessageKind]string{
			core.MessageSuspend: "suspend", core.MessageResume: "resume",
			core.MessageSetProperties: "set properties " + string(c.Properties.Priority),
		}[c.Message])
	}
	return w.String()
}

func effectText(f *Effect) string {
	switch f.Kind {
	case EffectSave:
		if f.Final {
			return fmt.Sprintf("save e%d.%d as image %d, with all files", f.Entity, f.Epoch, f.Generation)
		}
		return fmt.Sprintf("save e%d.%d as image %d", f.Entity, f.Epoch, f.Generation)
	case EffectRetain:
		return fmt.Sprintf("retain image %d of e%d", f.Generation, f.Entity)
	}
	return "restart: " + f.Reason
}

func noticeText(n *Notice) string {
	var w words
	switch n.Kind {
	case JobChanged:
		w.add("j%d %s", n.Job, n.Phase)
	case EntityChanged:
		w.add("e%d %s", n.Entity, n.State)
		w.when(n.Goal != core.GoalRun, "goal=%s", n.Goal)
	case OrderViolated:
		w.add("e%d %s, order violated: %s", n.Entity, n.State, n.Error)
		return w.String()
	}
	w.when(n.Cause != "", "(%s: %s)", n.Cause, n.Error)
	return w.String()
}
