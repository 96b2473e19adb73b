package guc

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// lifeGolden is what passes between driver and firmware.
const lifeGolden = "testdata/life.txt"

// TestLifeOfAJob is the life of a job on the wire, with the driver's own messages: two jobs of an
// entity, a suspend in the middle of the second one, a resume, the end. -rewrite writes it.
func TestLifeOfAJob(t *testing.T) {
	w := testWorld(t, nil)
	a := w.Create("a", nil)
	first := w.Trace.Last(1)[0].Seq
	w.OK(a.Run(background, w.Job(1, 2, "workgroup=1ms")))
	w.Run(20 * time.Millisecond)
	for _, line := range w.Trace.Since(first, 1<<12) { // The device was asleep: its wake is not part of it.
		if strings.Contains(line.Text, "REGISTER_CONTEXT") {
			first = line.Seq - 1
			break
		}
	}
	w.OK(a.Run(background, w.Job(2, 20, "workgroup=1ms")))
	w.Run(8 * time.Millisecond)
	w.OK(a.Suspend(background))
	w.OK(a.Resume(background))
	w.Run(20 * time.Millisecond)
	w.OK(a.Destroy(background))
	var b strings.Builder
	for _, line := range w.Trace.Since(first, 1<<12) {
		fmt.Fprintf(&b, "%-4s %s\n", line.Kind, line.Text)
	}
	if *rewrite {
		w.OK(os.WriteFile(lifeGolden, []byte(b.String()), 0o644))
	}
	want, err := os.ReadFile(lifeGolden)
	if err != nil || string(want) != b.String() {
		t.Errorf("%s is old (go test ./plugins/guc -run TestLifeOfAJob -rewrite): %v, now\n%s", lifeGolden, err, b.String())
	}
}
