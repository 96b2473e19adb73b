package hw

import (
	"errors"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
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

// TestInheritedPipe: the ends that another process hands over may block.
func TestInheritedPipe(t *testing.T) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	send, err := PipeLine(nil, os.NewFile(uintptr(fds[1]), "w"))
	if err != nil {
		t.Fatal(err)
	}
	defer send.Close()
	receive, err := PipeLine(os.NewFile(uintptr(fds[0]), "r"), nil)
	if err != nil {
		t.Fatal(err)
	}
	send.Raise()
	<-receive.C() // The reader waits for the next byte from here on.
	closed := make(chan error, 1)
	go func() { closed <- receive.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("close waits for a byte")
	}
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
	two, err := NewRegisters(a, 0x190000, 0x9000)
	if err != nil {
		t.Fatal(err)
	}
	two.Store(0x9000, 7)
	two.Store(0x190000, 8)
	if two.Load(0x9000) != 7 || r.Load(0x190000) != 8 || r.Load(0x9000) != 0xFFFFFFFF || two.Load(0xA000) != 0xFFFFFFFF {
		t.Error("windows overlap")
	}
	for _, bad := range [][]uint32{nil, {0x9000, 0x9000}, make([]uint32, 17)} {
		if _, err := NewRegisters(a, bad...); !errors.Is(err, ErrInvalid) {
			t.Errorf("windows %#x: %v", bad, err)
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

// TestRealClockDoesNotCountPauses: what a stopped process sees afterwards is a
// machine's clock far ahead of the last look.
func TestRealClockDoesNotCountPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewRealClock().(*realClock)
		called := make(chan time.Duration, 1)
		c.AfterFunc(10*time.Second, func() { called <- c.Now() })
		time.Sleep(3 * time.Second)
		c.Now()
		c.mu.Lock()
		c.mu.read = c.mu.read.Add(-time.Hour)
		c.mu.Unlock()
		if now := c.Now(); now != 3*time.Second+2*slice {
			t.Errorf("after 3 s and a pause of an hour it is %v", now)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if len(called) != 0 {
			t.Error("the pause was counted")
		}
		if at := <-called; at != 10*time.Second {
			t.Errorf("called at %v", at)
		}
	})
}
