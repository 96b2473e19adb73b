package wire

import (
	"fmt"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

// benchCommands are runs as an entity's stream has them: alike but for numbers
// and names.
func benchCommands() []core.Command {
	commands := make([]core.Command, BatchCount)
	for n := range commands {
		s := sampleJob()
		s.Name, s.After = fmt.Sprintf("frame-%03d", n), nil
		commands[n] = core.Command{Kind: core.CommandRun, Entity: 5, Epoch: 2, Seq: core.CommandSeq(1e6 + n), Job: core.JobID(1e6 + n), JobSpec: s}
	}
	return commands
}

func benchEvents() []core.BackendEvent {
	events := make([]core.BackendEvent, BatchCount)
	for n := range events {
		e := core.BackendEvent{Kind: core.EventStarted, Seq: core.EventSeq(1e6 + n), Entity: 1, Epoch: 1, Job: core.JobID(1e6 + n/2)}
		if n%2 == 1 {
			e.Kind, e.Done, e.Executed, e.ExecutedTime = core.EventCompleted, 16, 16, time.Millisecond
		}
		events[n] = e
	}
	return events
}

func BenchmarkEncodeCommands(b *testing.B) {
	commands := benchCommands()
	var batch CommandBatch
	b.ReportAllocs()
	for b.Loop() {
		batch.Reset()
		for i := range commands {
			if err := batch.Append(&commands[i]); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/BatchCount, "ns/command")
}

func BenchmarkDecodeCommands(b *testing.B) {
	body := encode(b, benchCommands())
	var d CommandDecoder
	var out []core.Command
	b.ReportAllocs()
	for b.Loop() {
		var err error
		clear(out)
		if out, err = d.Decode(body, out[:0]); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/BatchCount, "ns/command")
}

func BenchmarkEncodeEvents(b *testing.B) {
	events := benchEvents()
	var room []byte
	b.ReportAllocs()
	for b.Loop() {
		batch := NewEventBatch(room)
		for i := range events {
			batch.Append(&events[i])
		}
		room = batch.Body()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/BatchCount, "ns/event")
}

func BenchmarkDecodeEvents(b *testing.B) {
	body := pack(benchEvents()...)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeEvents(body, false, nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/BatchCount, "ns/event")
}
