package guc

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/guc/abi"
	"github.com/gpuwm/gpuwm/plugins/rig"
	"github.com/gpuwm/gpuwm/sdk"
)

// privateTimestamp is where the context timestamp lies in an image's private part.
const privateTimestamp = 0x10

// createAt makes an entity whose context has this timestamp.
func (w *world) createAt(timestamp uint64) *rig.Life {
	w.T.Helper()
	l := w.Create("earlier", nil)
	w.OK(l.Run(background, w.Job(100, 1, "workgroup=1ms")))
	w.Until("the end of the earlier job", l.Over)
	header, contents := w.suspended(l)
	w.OK(l.Destroy(background))
	binary.LittleEndian.PutUint64(header.Private[privateTimestamp:], timestamp)
	return w.Create("later", sdk.BufferImage(header, contents))
}

// suspended suspends and saves.
func (w *world) suspended(l *rig.Life) (core.ImageHeader, [][]byte) {
	w.T.Helper()
	w.OK(l.Suspend(background))
	image, err := l.Save(background)
	w.OK(err)
	header, contents, err := rig.Copy(image)
	w.OK(err)
	return header, contents
}

// carry stops the firmware between the two stores of a timestamp whose low half wraps, as a look finds it that
// read the low half before and the high half after; resume goes on.
func (w *world) carry() (resume func()) {
	w.T.Helper()
	var registers uint64
	for _, line := range w.Trace.Last(1 << 14) {
		if _, lrc, ok := strings.Cut(line.Text, "lrc="); ok {
			fmt.Sscanf(lrc, "0x%x", &registers)
		}
	}
	at := registers&^uint64(0xFFF) + abi.RegisterOffset - abi.PPHWSPOffset + 4*abi.RegTimestampHi
	high, err := w.Arena.Load32(at)
	w.OK(err)
	w.Mute = true
	w.OK(w.Arena.Store32(at, high+1))
	return func() {
		w.OK(w.Arena.Store32(at, high))
		w.Mute = false
	}
}

// The low half of these timestamps wraps a second later.
const (
	timestampHigh = uint64(5) << 32
	timestampLow  = 1<<32 - 1_000_000
)

// TestTimestampCarry: an hour of execution may end between two words, and the job is not blamed for it.
func TestTimestampCarry(t *testing.T) {
	w := testWorld(t, nil)
	l := w.createAt(timestampHigh | timestampLow)
	w.OK(l.Run(background, w.Job(1, 3, "workgroup=2s")))
	w.Run(500 * time.Millisecond)
	resume := w.carry()
	w.Run(200 * time.Millisecond)
	resume()
	w.Until("the end", l.Over)
	if l.Ended[1] != "completed" || len(l.Lost) > 0 {
		t.Errorf("ended %q, lost %+v", l.Ended[1], l.Lost)
	}
	header, _ := w.suspended(l)
	if got := binary.LittleEndian.Uint64(header.Private[privateTimestamp:]); got < timestampHigh|timestampLow+5_900_000 || got > timestampHigh|timestampLow+6_100_000 {
		t.Errorf("timestamp %#x after 6 s", got)
	}
}

// TestTimestampCarryInImage: nor does an image get a torn one, when the context may still be on its way off.
func TestTimestampCarryInImage(t *testing.T) {
	w := testWorld(t, nil)
	l := w.createAt(timestampHigh | timestampLow)
	w.OK(l.Run(background, w.Job(1, 1, "workgroup=500ms")))
	w.Until("the end", l.Over)
	resume := w.carry()
	header, _ := w.suspended(l)
	resume()
	if got := binary.LittleEndian.Uint64(header.Private[privateTimestamp:]); got < timestampHigh|timestampLow+400_000 || got > timestampHigh|timestampLow+600_000 {
		t.Errorf("timestamp %#x after 500 ms", got)
	}
}
