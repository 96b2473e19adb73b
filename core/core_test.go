package core

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestSentinelsDiffer: each sentinel is found through wrapping, and is no other.
func TestSentinelsDiffer(t *testing.T) {
	all := []error{ErrClosed, ErrFull, ErrOversize, ErrNotFound, ErrExists, ErrInvalid, ErrLongRunningFence,
		ErrCycle, ErrUnsupported, ErrStale, ErrCorrupt, ErrGone, ErrDeadline, ErrBusy}
	texts := map[string]bool{}
	for i, err := range all {
		wrapped := fmt.Errorf("suspend entity render: %w", err)
		for k, other := range all {
			if errors.Is(wrapped, other) != (i == k) {
				t.Errorf("%v is %v: %t", err, other, i != k)
			}
		}
		if texts[err.Error()] {
			t.Errorf("two sentinels say %q", err)
		}
		texts[err.Error()] = true
	}
}

func TestTypedErrors(t *testing.T) {
	var fault *FaultError
	err := fmt.Errorf("run: %w", &FaultError{Cause: CauseTrap, Entity: 1, Job: 2, Detail: "unreachable"})
	if !errors.As(err, &fault) || fault.Job != 2 || err.Error() != "run: trap: unreachable" {
		t.Errorf("%v", err)
	}
	illegal := &TransitionError{Noun: "job a", From: "completed", Event: "to queued"}
	if got := illegal.Error(); got != "job a: to queued is not legal in state completed" {
		t.Error(got)
	}
}

func TestDigestText(t *testing.T) {
	d := DigestOf([]byte("kernel"))
	b, err := json.Marshal(map[string]Digest{"wasm": d})
	if err != nil {
		t.Fatal(err)
	}
	var back map[string]Digest
	if err := json.Unmarshal(b, &back); err != nil || back["wasm"] != d {
		t.Errorf("%s became %v: %v", b, back, err)
	}
	for _, bad := range []string{"", "00", d.String() + "00", strings.Repeat("zz", 32), d.String()[1:]} {
		if err := new(Digest).UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("digest %q was accepted", bad)
		}
	}
}

func TestInstant(t *testing.T) {
	if !Instant(0).Time().IsZero() {
		t.Error("0 is not the zero time")
	}
	now := time.Date(2026, 3, 1, 2, 3, 4, 5, time.UTC)
	at := At(now)
	if !at.Time().Equal(now) || at.Add(time.Second).Sub(at) != time.Second {
		t.Errorf("%v became %v", now, at.Time())
	}
}

func TestFinal(t *testing.T) {
	for phase, final := range map[JobPhase]bool{
		JobHeld: false, JobQueued: false, JobDispatched: false, JobFlushing: false, "": false,
		JobCompleted: true, JobFailed: true, JobTimedOut: true, JobCancelled: true, JobKilled: true, JobDependencyFailed: true,
	} {
		if phase.Final() != final {
			t.Errorf("%q is final: %t", phase, !final)
		}
	}
}

// TestWorkgroups: the largest grid that 32 bits describe does not overflow for two of them.
func TestWorkgroups(t *testing.T) {
	if got := (&JobSpec{Grid: [3]uint32{1<<32 - 1, 1<<32 - 1, 1}}).Workgroups(); got != (1<<32-1)*(1<<32-1) {
		t.Errorf("%d workgroups", got)
	}
	if got := (&JobSpec{Grid: [3]uint32{4, 0, 2}}).Workgroups(); got != 0 {
		t.Errorf("an empty grid has %d workgroups", got)
	}
}

func TestArgs(t *testing.T) {
	for kind, size := range map[ArgKind]int{ArgU32: 4, ArgI32: 4, ArgF32: 4, ArgU64: 8, ArgI64: 8, ArgF64: 8, ArgBuffer: 8} {
		if kind.Size() != size {
			t.Errorf("%s takes %d bytes", kind, kind.Size())
		}
	}
	if got := (Arg{Kind: ArgU32, Bits: 255}).String() + ", " + (Arg{Kind: ArgBuffer, Buffer: "out"}).String(); got != "u32 0xff, buffer out" {
		t.Error(got)
	}
	if got := (Fence{Timeline: 3, Seq: 4}).String(); got != "3:4" {
		t.Error(got)
	}
}
