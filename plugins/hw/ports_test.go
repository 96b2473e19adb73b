package hw

import (
	"errors"
	"os"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"
)

func TestLineCoalesces(t *testing.T) {
	l := NewLine()
	for range 3 {
		l.Raise()
	}
	<-l.C()
	select {
	case <-l.C():
		t.Error("three raises gave two notifications")
	default:
	}
}

func TestPipeLine(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	send, err := PipeLine(nil, w)
	if err != nil {
		t.Fatal(err)
	}
	receive, err := PipeLine(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer receive.Close()
	send.Raise()
	<-receive.C()
	// More raises than a pipe holds must not block.
	for range 100_000 {
		send.Raise()
	}
	<-receive.C()
	receive.Raise() // Has no pipe to raise: nothing happens.
	if err := errors.Join(send.Close(), send.Close()); err != nil {
		t.Error(err)
	}
	<-receive.Gone()
	send.Raise() // Closed: nothing happens.
	if _, err := PipeLine(nil, nil); !errors.Is(err, ErrInvalid) {
		t.Errorf("no pipe at all: %v", err)
	}
}

func TestPipeLineCloseEndsReader(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	receive, err := PipeLine(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := receive.Close(); err != nil {
		t.Fatal(err)
	}
	<-receive.Gone()
}

func TestRegisters(t *testing.T) {
	a := newArena(t, 2*Granule)
	r, err := NewRegisters(a, 0x190000)
	if err != nil {
		t.Fatal(err)
	}
	r.Store(0x190240, 7)
	if v := r.Load(0x190240); v != 7 {
		t.Errorf("register reads %d", v)
	}
	if v, _ := a.Load32(RegisterPage + 0x240); v != 7 {
		t.Errorf("register page holds %d", v)
	}
	for _, off := range []uint32{0x191000, 0x18fffc, 0x190001, 0} {
		r.Store(off, 1)
		if v := r.Load(off); v != 0xFFFFFFFF {
			t.Errorf("register %#x reads %#x", off, v)
		}
	}
	if _, err := NewRegisters(a, 0x190240); !errors.Is(err, ErrInvalid) {
		t.Errorf("odd window: %v", err)
	}
}

func TestVirtualClock(t *testing.T) {
	c := NewVirtualClock()
	var calls []string
	note := func(s string) func() {
		return func() { calls = append(calls, s+"@"+c.Now().String()) }
	}
	c.AfterFunc(2*time.Second, note("b"))
	c.AfterFunc(time.Second, func() {
		note("a")()
		c.AfterFunc(time.Second, note("c"))
		c.AfterFunc(-time.Second, note("now"))
	})
	stopped := c.AfterFunc(time.Second, note("never"))
	late := c.AfterFunc(time.Minute, note("late"))
	if !stopped.Stop() || stopped.Stop() {
		t.Error("stop reports wrongly")
	}
	if at, ok := c.Next(); !ok || at != time.Second {
		t.Errorf("next %v %v", at, ok)
	}
	c.Advance(3 * time.Second)
	if want := []string{"a@1s", "now@1s", "b@2s", "c@2s"}; !slices.Equal(calls, want) {
		t.Errorf("calls %v, want %v", calls, want)
	}
	if c.Now() != 3*time.Second {
		t.Errorf("now %v", c.Now())
	}
	if !late.Stop() {
		t.Error("a pending call could not be stopped")
	}
	if _, ok := c.Next(); ok {
		t.Error("something is pending")
	}
}

func TestRealClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewRealClock()
		done := make(chan time.Duration, 1)
		c.AfterFunc(time.Hour, func() { done <- c.Now() })
		if at := <-done; at != time.Hour {
			t.Errorf("called at %v", at)
		}
		if !c.AfterFunc(time.Hour, func() {}).Stop() {
			t.Error("a pending call could not be stopped")
		}
	})
}

func TestTrace(t *testing.T) {
	tr := NewTrace(3)
	if got := tr.Last(5); len(got) != 0 {
		t.Errorf("empty trace holds %v", got)
	}
	for i := range 5 {
		tr.Add("H2G", strconv.Itoa(i))
		want := min(i+1, 3)
		got := tr.Last(10)
		if len(got) != want {
			t.Fatalf("after %d lines: %v", i+1, got)
		}
		for j, l := range got {
			if n := i + 1 - want + j; l.Text != strconv.Itoa(n) || l.Seq != uint64(n+1) || l.Kind != "H2G" {
				t.Errorf("after %d lines: line %d is %+v", i+1, j, l)
			}
		}
	}
	if got := tr.Last(2); len(got) != 2 || got[0].Text != "3" || got[1].Text != "4" {
		t.Errorf("last two: %v", got)
	}
	var none *Trace
	none.Add("H2G", "x")
	if none.Last(1) != nil || tr.Last(-1) != nil {
		t.Error("nothing expected")
	}
}
