package host

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	apiv1 "github.com/gpuwm/gpuwm/api/v1"
	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/sdk/internal/memory"
	"github.com/gpuwm/gpuwm/sdk/internal/wire"
)

const (
	benchBatch  = 256
	benchWindow = 8 * benchBatch
	benchRound  = 64 * benchBatch
	// benchSocket tells the bare server where to listen.
	benchSocket = "GPUWM_TEST_SOCKET"
)

// bareServer answers each message with two, of the bytes that a batch's events
// take: a gRPC stream and nothing else.
type bareServer struct {
	apiv1.UnimplementedBackendServer
}

func (bareServer) Session(stream apiv1.Backend_SessionServer) error {
	var first uint64 = 1
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		if len(m.GetCommands()) == 0 {
			continue
		}
		for range 2 {
			if err := stream.Send(&apiv1.SessionReply{Events: benchEvents(first)}); err != nil {
				return err
			}
			first += benchBatch
		}
	}
}

var benchEventsBody []byte

// benchEvents is a body as long as that of the events of half a batch.
func benchEvents(uint64) []byte {
	if benchEventsBody == nil {
		var body []byte
		for n := range uint64(benchBatch / 2) {
			e := core.BackendEvent{Kind: core.EventStarted, Seq: core.EventSeq(1e6 + n), Entity: 1, Epoch: 1, Job: core.JobID(1e6 + n)}
			body = wire.AppendEvent(body, &e)
			e.Kind, e.Done, e.Executed, e.ExecutedTime = core.EventCompleted, 16, 16, time.Millisecond
			body = wire.AppendEvent(body, &e)
		}
		benchEventsBody = wire.PutCount(body, benchBatch)
	}
	return benchEventsBody
}

// serveBare is the process that the floor is measured with.
func serveBare() {
	listener, err := net.Listen("unix", os.Getenv(benchSocket))
	if err != nil {
		os.Exit(1)
	}
	g := grpc.NewServer(grpc.MaxRecvMsgSize(wire.MessageMax))
	apiv1.RegisterBackendServer(g, bareServer{})
	_ = g.Serve(listener)
}

func bareStream(b *testing.B) apiv1.Backend_SessionClient {
	dir, err := os.MkdirTemp("", "bare")
	if err != nil {
		b.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	exe, _ := os.Executable()
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), testRole+"=bare", benchSocket+"="+socket)
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	b.Cleanup(func() {
		cancel()
		_ = conn.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = os.RemoveAll(dir)
	})
	stream, err := apiv1.NewBackendClient(conn).Session(ctx)
	if err != nil {
		b.Fatal(err)
	}
	return stream
}

// benchCommands makes the commands of a round, or numbers them anew.
func benchCommands(batches [][]core.Command, first uint64) [][]core.Command {
	if batches == nil {
		for range benchRound / benchBatch {
			batch := make([]core.Command, benchBatch)
			for n := range batch {
				batch[n] = runCommand(1, 1, 1, 1, memory.Instant)
			}
			batches = append(batches, batch)
		}
	}
	for _, batch := range batches {
		for n := range batch {
			c := &batch[n]
			c.Seq, c.Job, c.JobSpec.ID, c.JobSpec.Seq = core.CommandSeq(first), core.JobID(first), core.JobID(first), core.JobSeq(first)
			first++
		}
	}
	return batches
}

// BenchmarkSession sends jobs through a plugin process and back, and the same
// bytes in the same batches through a bare gRPC stream between two processes.
// Its ratio is our rate over the floor's; the budget is 0.6.
func BenchmarkSession(b *testing.B) {
	b.Setenv(testCredits, "4096")
	rig := start(b, nil)
	k := rig.open(1)
	rig.create(k, 1, 1, []byte{1})
	completed := make(chan int, 1024)
	k.Close()
	var link *Link
	ready := make(chan struct{})
	link, err := rig.inst.Open(b.Context(), core.DeviceSpec{Name: "d0", Backend: "memory", Engine: "none"}, 2, func(events []core.BackendEvent) {
		<-ready
		n := 0
		for i := range events {
			if events[i].Kind == core.EventCompleted {
				n++
			}
		}
		link.Ack(events[len(events)-1].Seq)
		completed <- n
	})
	if err != nil {
		b.Fatal(err)
	}
	close(ready)
	bare := bareStream(b)
	var encoder wire.CommandEncoder
	var next uint64 = 1_000_000
	var ours, floor time.Duration
	jobs := 0
	var batches [][]core.Command
	var bodies [][]byte
	for b.Loop() {
		batches = benchCommands(batches, next)
		next += benchRound
		bodies = bodies[:0]
		for _, commands := range batches {
			var body []byte
			for i := range commands {
				if body, err = encoder.Append(body, &commands[i]); err != nil {
					b.Fatal(err)
				}
			}
			bodies = append(bodies, wire.PutCount(body, benchBatch))
		}
		begin := time.Now()
		flight := 0
		for _, batch := range batches {
			if !link.Send(batch) {
				b.Fatal("link down", rig.log)
			}
			for flight += benchBatch; flight >= benchWindow; {
				flight -= <-completed
			}
		}
		for flight > 0 {
			flight -= <-completed
		}
		ours += time.Since(begin)

		begin = time.Now()
		replies := 0
		for _, body := range bodies {
			if err := bare.Send(&apiv1.SessionRequest{Commands: body}); err != nil {
				b.Fatal(err)
			}
			for replies += 2; replies >= 2*benchWindow/benchBatch; replies-- {
				if _, err := bare.Recv(); err != nil {
					b.Fatal(err)
				}
			}
		}
		for ; replies > 0; replies-- {
			if _, err := bare.Recv(); err != nil {
				b.Fatal(err)
			}
		}
		floor += time.Since(begin)
		jobs += benchRound
	}
	b.ReportMetric(float64(jobs)/ours.Seconds(), "jobs/s")
	b.ReportMetric(float64(jobs)/floor.Seconds(), "floor-jobs/s")
	b.ReportMetric(floor.Seconds()/ours.Seconds(), "ratio")
	b.ReportMetric(0, "ns/op")
}
