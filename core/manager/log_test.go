package manager_test

import (
	"strings"
	"sync"
	"testing"

	"github.com/gpuwm/gpuwm/core"
	"github.com/hashicorp/go-hclog"
)

// text is a log that is read afterwards.
type text struct {
	sync.Mutex
	strings.Builder
}

func (l *text) Write(b []byte) (int, error) {
	l.Lock()
	defer l.Unlock()
	return l.Builder.Write(b)
}

// TestSuspendIsLogged: what a suspend cost by the plugin's word is on a line of its own,
// checkpoints included, and only for who looks closely.
func TestSuspendIsLogged(t *testing.T) {
	for _, level := range []hclog.Level{hclog.Debug, hclog.Info} {
		bubble(t, func(t *testing.T, r *rig) {
			log := &text{}
			r.stop(false)
			r.log = hclog.New(&hclog.LoggerOptions{Output: log, Level: level})
			r.start(nil)
			id := r.create(r.entity("x", newJob("a", 400)))[0]
			r.progressed("a", 120)
			r.goal(id, core.GoalSuspend)
			if err := r.manager.WaitAway(t.Context(), id); err != nil {
				t.Fatal(err)
			}
			r.stop(false)
			log.Lock()
			defer log.Unlock()
			asked, got := 0, 0
			for line := range strings.Lines(log.String()) {
				if strings.Contains(line, " state=suspending ") {
					asked++
				}
				if strings.Contains(line, "entity off device:") {
					got++
					if !strings.Contains(line, "entity=x epoch=1 took="+suspendCost.String()) {
						t.Errorf("the line says %q", line)
					}
				}
			}
			if got != asked || (got > 0) != (level == hclog.Debug) {
				t.Errorf("level %s: %d lines for %d suspends in %s", level, got, asked, log.String())
			}
		})
	}
}
