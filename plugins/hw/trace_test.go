package hw

import (
	"fmt"
	"sync"
	"testing"
	"time"
)

func showWords(words []uint32) string { return fmt.Sprint(words) }

func TestTrace(t *testing.T) {
	tr := NewTrace(3)
	if got := tr.Last(5); got != nil {
		t.Errorf("empty: %v", got)
	}
	changed := tr.Changed(0)
	select {
	case <-changed:
		t.Error("changed before anything was added")
	default:
	}
	for i := range uint32(5) {
		tr.Add(time.Duration(i)*time.Millisecond, "H2G", showWords, i, i)
	}
	<-changed
	<-tr.Changed(4)
	for _, c := range []struct {
		got  []TraceLine
		want string
	}{
		{tr.Last(2), "[4 3ms H2G [3 3] 5 4ms H2G [4 4]]"},
		{tr.Last(9), "[3 2ms H2G [2 2] 4 3ms H2G [3 3] 5 4ms H2G [4 4]]"},
		{tr.Last(0), "[]"},
		{tr.Since(0, 2), "[3 2ms H2G [2 2] 4 3ms H2G [3 3]]"},
		{tr.Since(3, 9), "[4 3ms H2G [3 3] 5 4ms H2G [4 4]]"},
		{tr.Since(5, 9), "[]"},
		{tr.Since(99, 9), "[]"},
		{tr.Since(0, -1), "[]"},
	} {
		if got := fmt.Sprint(c.got); got != c.want {
			t.Errorf("%s, want %s", got, c.want)
		}
	}
	select {
	case <-tr.Changed(5):
		t.Error("changed after the last line")
	default:
	}
	var none *Trace
	none.Add(0, "H2G", showWords)
	if none.Last(1) != nil || none.Since(0, 1) != nil || none.Changed(0) != nil {
		t.Error("nil holds something")
	}
}

// TestTraceFollowers lets readers follow a writer; each sees numbers that rise.
func TestTraceFollowers(t *testing.T) {
	const lines = 5000
	tr := NewTrace(64)
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			for seq := uint64(0); seq < lines; {
				<-tr.Changed(seq)
				for _, l := range tr.Since(seq, 10) {
					if l.Seq <= seq || l.Text != fmt.Sprint([]uint32{uint32(l.Seq)}) {
						t.Errorf("after %d: %v", seq, l)
						return
					}
					seq = l.Seq
				}
			}
		})
	}
	for i := range uint32(lines) {
		tr.Add(0, "H2G", showWords, i+1)
	}
	readers.Wait()
}

func TestTraceDecodesWhenRead(t *testing.T) {
	tr := NewTrace(3)
	if got := tr.Last(5); len(got) != 0 {
		t.Errorf("empty trace holds %v", got)
	}
	decoded := 0
	decode := func(words []uint32) string {
		decoded++
		return fmt.Sprint(words)
	}
	message := []uint32{0, 7}
	for i := range 5 {
		message[0] = uint32(i)
		decoded = 0
		if tr.Add(0, "H2G", decode, message...); decoded != 0 {
			t.Error("decoded before anybody read")
		}
		want := min(i+1, 3)
		got := tr.Last(10)
		if len(got) != want {
			t.Fatalf("after %d lines: %v", i+1, got)
		}
		for j, l := range got {
			if n := i + 1 - want + j; l.Text != fmt.Sprintf("[%d 7]", n) || l.Seq != uint64(n+1) || l.Kind != "H2G" {
				t.Errorf("after %d lines: line %d is %+v", i+1, j, l)
			}
		}
	}
	if got := tr.Last(2); len(got) != 2 || got[0].Text != "[3 7]" || got[1].Text != "[4 7]" {
		t.Errorf("last two: %v", got)
	}
	var none *Trace
	none.Add(0, "H2G", decode, 1)
	if none.Last(1) != nil || tr.Last(-1) != nil {
		t.Error("nothing expected")
	}
}
