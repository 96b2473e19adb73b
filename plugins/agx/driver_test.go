package agx

import (
	"slices"
	"testing"
	"time"
)

func TestLifeOfJobs(t *testing.T) {
	w := testWorld(t, setup{})
	l := w.Create("a", nil)
	w.OK(l.Run(background, w.Job(1, 40, "workgroup=1ms")))
	w.OK(l.Run(background, w.Job(2, 10, "workgroup=3ms")))
	resumed := w.Job(3, 20, "workgroup=1ms")
	resumed.First = 20 // Nothing left to do.
	w.OK(l.Run(background, resumed))
	w.Until("the third job", func() bool { return l.Ended[3] != "" })
	want := []string{"a started 1", "a completed 1", "a started 2", "a completed 2", "a started 3", "a completed 3"}
	if !slices.Equal(w.Log, want) {
		t.Errorf("reports %q, want %q", w.Log, want)
	}
	if u := l.Usage[1]; u.Done != 40 || u.Executed != 40 || u.ExecutedTime != 40*time.Millisecond {
		t.Errorf("usage %+v", u)
	}
	if u := l.Usage[3]; u.Done != 20 || u.Executed != 0 {
		t.Errorf("usage of the job without work %+v", u)
	}
	w.Check(l, 40, 10)
	w.OK(l.Destroy(background))
	w.OK(l.Destroy(background))
	w.law.quiet()
}
