package agx

import (
	"fmt"
	"strings"
	"testing"

	"github.com/gpuwm/gpuwm/core"
)

// TestLifeInDocs keeps the page's trace of a job's life equal to what passes between
// driver and firmware: a boot, a job of 60 workgroups, the end.
func TestLifeInDocs(t *testing.T) {
	w := testWorld(t, setup{})
	var b strings.Builder
	part := func(title string) {
		fmt.Fprintf(&b, "# %s\n", title)
		for _, line := range w.Trace.Since(w.law.told, 1<<14) {
			w.law.told = line.Seq
			switch line.Kind {
			case "OP", "QUEUE", "LOG", "STATE", "POWER":
				continue
			}
			fmt.Fprintf(&b, "%10.3f ms  %-7s %s\n", float64(line.At.Microseconds())/1000, line.Kind, line.Text)
		}
	}
	part("boot")
	l := w.Create("a", nil)
	w.OK(l.Run(background, w.Job(1, 60, "workgroup=1ms")))
	w.Until("the job", func() bool { return l.Ended[core.JobID(1)] != "" })
	part("a job of 60 workgroups of 1 ms: one to measure, eight, then 25 each and the rest")
	w.OK(l.Destroy(background))
	part("the end of its entity")
	embed(t, "life", "```\n"+b.String()+"```\n")
}
