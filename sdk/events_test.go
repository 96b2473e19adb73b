package sdk

import (
	"context"
	"errors"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/sdk/internal/wire"
)

// taken returns the numbers of the first and the last event that go next; 0 when
// nothing does.
func taken(t *testing.T, l *eventLog, sent core.EventSeq) (first, last core.EventSeq) {
	t.Helper()
	body, upTo, _ := l.take(sent, nil)
	if body == nil {
		return 0, 0
	}
	events, err := wire.DecodeEvents(body, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	first, last = events[0].Seq, events[len(events)-1].Seq
	if last != upTo {
		t.Fatalf("events end at %d, announced %d", last, upTo)
	}
	return first, last
}

func started(l *eventLog, count int) {
	for range count {
		l.append(nil, &core.BackendEvent{Kind: core.EventStarted, Entity: 1, Epoch: 1, Job: 1})
	}
}

func TestHeldEventsLeaveTogether(t *testing.T) {
	l := newEventLog(hclog.NewNullLogger())
	expect := func(what string, sent, wantFirst, wantLast core.EventSeq) {
		t.Helper()
		if first, last := taken(t, l, sent); first != wantFirst || last != wantLast {
			t.Errorf("%s: events %d to %d, want %d to %d", what, first, last, wantFirst, wantLast)
		}
	}
	l.hold()
	started(l, 3)
	expect("held", 0, 0, 0)
	started(l, wire.BatchCount)
	expect("full", 0, 1, wire.BatchCount)
	expect("rest is held", wire.BatchCount, 0, 0)
	l.flush()
	expect("flushed", wire.BatchCount, wire.BatchCount+1, wire.BatchCount+3)
	started(l, 1)
	expect("held again", wire.BatchCount+3, 0, 0)
	l.release()
	expect("released", wire.BatchCount+3, wire.BatchCount+4, wire.BatchCount+4)
	started(l, 2)
	expect("not held", wire.BatchCount+4, wire.BatchCount+5, wire.BatchCount+6)
}

func TestAcknowledgedEventsGoAndOthersStay(t *testing.T) {
	l := newEventLog(hclog.NewNullLogger())
	const count = 5*wire.BatchCount + 7
	started(l, count)
	if _, ok := l.ack(count + 1); ok {
		t.Error("an event that was never given is acknowledged")
	}
	for acked := core.EventSeq(0); acked <= count; acked += 101 {
		if _, ok := l.ack(acked); !ok {
			t.Fatalf("acknowledgement of %d refused", acked)
		}
		// Whoever comes new gets all that is left, once and in order.
		next := acked + 1
		for sent := core.EventSeq(0); sent < count; {
			first, last := taken(t, l, sent)
			if first != next {
				t.Fatalf("acknowledged %d: event %d follows, want %d", acked, first, next)
			}
			next, sent = last+1, last
		}
	}
	l.ack(count)
	if first, _ := taken(t, l, 0); first != 0 || len(l.mu.blocks) != 0 {
		t.Errorf("event %d and %d blocks are left", first, len(l.mu.blocks))
	}
}

func TestOnlyEntitiesWithStartedJobsAreSampled(t *testing.T) {
	l := newEventLog(hclog.NewNullLogger())
	var reporters []*reporter
	for n := range 3 {
		r := &reporter{log: l, entity: core.EntityID(n + 1), epoch: 1}
		reporters = append(reporters, r)
		r.Started(7)
		r.Started(8)
	}
	reporters[0].Completed(7, Usage{})
	reporters[0].Completed(8, Usage{})
	reporters[1].Completed(8, Usage{})
	if got := l.running(nil); len(got) != 2 || got[0] != 3 || got[1] != 2 {
		t.Errorf("entities %v, want 3 and 2", got)
	}
	reporters[2].Lost(false, 0, Usage{}, core.CauseDevice, "gone")
	reporters[2].Started(9)
	reporters[1].Completed(7, Usage{})
	if got := l.running(nil); len(got) != 0 {
		t.Errorf("entities %v, want none", got)
	}
}

// TestReplacedSessionAcknowledgesNothing: what a host says that was replaced is
// not heard, however late it is read.
func TestReplacedSessionAcknowledgesNothing(t *testing.T) {
	d := newDevice(core.DeviceSpec{Name: "d0"}, hclog.NewNullLogger(), nil)
	defer d.cancel(nil)
	started(d.events, 3)
	sessions := []*session{{number: 1, d: d}, {number: 2, d: d}}
	for _, s := range sessions {
		s.ctx, s.end = context.WithCancelCause(context.Background())
		defer s.end(nil)
		if _, _, err := d.attach(s); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.ack(sessions[0], 3); !errors.Is(err, core.ErrStale) {
		t.Errorf("session that was replaced: %v", err)
	}
	if first, last := taken(t, d.events, 0); first != 1 || last != 3 {
		t.Errorf("events %d to %d are kept, want 1 to 3", first, last)
	}
	if acked, err := d.ack(sessions[1], 2); err != nil || acked != 2 {
		t.Errorf("present session: %d, %v", acked, err)
	}
	if acked, err := d.ack(sessions[1], 0); err != nil || acked != 2 {
		t.Errorf("host that does not know: %d, %v", acked, err)
	}
}
