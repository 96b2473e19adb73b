package host

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	apiv1 "github.com/gpuwm/gpuwm/api/v1"
	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/sdk/internal/memory"
	"github.com/gpuwm/gpuwm/sdk/internal/wire"
)

const (
	// benchRound is how many jobs both sides take in turn.
	benchRound = 16384
	// benchFlight is how many batches are on their way.
	benchFlight = 8
	// benchSocket tells the bare server where to listen.
	benchSocket = "GPUWM_TEST_SOCKET"
)

// bareServer answers each message with those that a batch's events take: a gRPC
// stream and nothing else. The first message of a stream brings the answers.
type bareServer struct {
	apiv1.UnimplementedBackendServer
}

func (bareServer) Session(stream apiv1.Backend_SessionServer) error {
	var answers [][]byte
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		if m.GetAck() != 0 {
			answers = append(answers, m.GetCommands())
			continue
		}
		for _, body := range answers {
			if err := stream.Send(&apiv1.SessionReply{Events: body}); err != nil {
				return err
			}
		}
	}
}

// benchEvents are the messages that the events of a batch of jobs take.
func benchEvents(batch int) (bodies [][]byte) {
	var b wire.EventBatch
	for n := range 2 * batch {
		e := core.BackendEvent{Kind: core.EventStarted, Seq: core.EventSeq(1e6 + n), Entity: 1, Epoch: 1, Job: core.JobID(1e6 + n/2)}
		if n%2 == 1 {
			e.Kind, e.Done, e.Executed, e.ExecutedTime = core.EventCompleted, 16, 16, time.Millisecond
		}
		b.Append(&e)
		if b.Full() || n == 2*batch-1 {
			bodies, b = append(bodies, b.Body()), wire.EventBatch{}
		}
	}
	return bodies
}

// serveBare is the process that the floor is measured with.
func serveBare() {
	listener, err := net.Listen("unix", os.Getenv(benchSocket))
	if err != nil {
		os.Exit(1)
	}
	// As much as the SDK keeps.
	ballast := make([]byte, 16<<20)
	g := grpc.NewServer(grpc.MaxRecvMsgSize(wire.MessageMax))
	apiv1.RegisterBackendServer(g, bareServer{})
	_ = g.Serve(listener)
	runtime.KeepAlive(ballast)
}

// bareStream returns a stream to the floor's process, and its number.
func bareStream(b *testing.B) (apiv1.Backend_SessionClient, int) {
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
	return stream, cmd.Process.Pid
}

// benchCommands makes the commands of a round, or numbers them anew.
func benchCommands(batches [][]core.Command, batch int, first uint64) [][]core.Command {
	if batches == nil {
		for range benchRound / batch {
			commands := make([]core.Command, batch)
			for n := range commands {
				commands[n] = runCommand(1, 1, 1, 1, memory.Instant)
				commands[n].JobSpec.Name = fmt.Sprintf("frame-%03d", n)
			}
			batches = append(batches, commands)
		}
	}
	for _, commands := range batches {
		for n := range commands {
			c := &commands[n]
			c.Seq, c.Job, c.JobSpec.ID, c.JobSpec.Seq = core.CommandSeq(first), core.JobID(first), core.JobID(first), core.JobSeq(first)
			first++
		}
	}
	return batches
}

// sessionBench is one link of ours, and what waits for its jobs.
type sessionBench struct {
	link      *Link
	completed chan int
	pid       int
}

func openBench(b *testing.B) *sessionBench {
	b.Setenv(testCredits, "4096")
	rig := start(b, nil)
	k := rig.open(1)
	rig.create(k, 1, 1, []byte{1})
	k.Close()
	s := &sessionBench{completed: make(chan int, 1024), pid: rig.record.Process.PID}
	ready := make(chan struct{})
	var err error
	s.link, err = rig.inst.Open(b.Context(), core.DeviceSpec{Name: "d0", Backend: "memory", Engine: "none"}, 2, func(events []core.BackendEvent) {
		<-ready
		n := 0
		for i := range events {
			if events[i].Kind == core.EventCompleted {
				n++
			}
		}
		s.link.Ack(events[len(events)-1].Seq)
		s.completed <- n
	})
	if err != nil {
		b.Fatal(err)
	}
	close(ready)
	return s
}

// round sends the batches and waits for all their jobs.
func (s *sessionBench) round(b *testing.B, batches [][]core.Command) time.Duration {
	begin := time.Now()
	flight := 0
	for _, batch := range batches {
		if !s.link.Send(batch) {
			b.Fatal("link down")
		}
		for flight += len(batch); flight >= benchFlight*len(batch); {
			flight -= <-s.completed
		}
	}
	for flight > 0 {
		flight -= <-s.completed
	}
	return time.Since(begin)
}

// bareRound sends the same bytes and waits for as many answers.
func bareRound(b *testing.B, stream apiv1.Backend_SessionClient, bodies [][]byte, answers int) time.Duration {
	begin := time.Now()
	flight := 0
	for _, body := range bodies {
		if err := stream.Send(&apiv1.SessionRequest{Commands: body}); err != nil {
			b.Fatal(err)
		}
		for flight += answers; flight >= benchFlight*answers; flight-- {
			if _, err := stream.Recv(); err != nil {
				b.Fatal(err)
			}
		}
	}
	for ; flight > 0; flight-- {
		if _, err := stream.Recv(); err != nil {
			b.Fatal(err)
		}
	}
	return time.Since(begin)
}

// cpuTime is what the processes have computed so far.
func cpuTime(b *testing.B, pids ...int) (sum time.Duration) {
	for _, pid := range pids {
		// The clock of a process, as clock_getcpuclockid(3) makes it.
		var now unix.Timespec
		if err := unix.ClockGettime(int32(^pid<<3|2), &now); err != nil {
			b.Fatal(err)
		}
		sum += time.Duration(now.Nano())
	}
	return sum
}

// BenchmarkSession sends jobs through a plugin process and back, and the same
// bytes in the same batches through a bare gRPC stream between two processes.
// Its ratio is our rate over the floor's; the budget is 0.6. The time computed, of
// both processes together, says the same on a busy machine.
func BenchmarkSession(b *testing.B) {
	for _, batch := range []int{64, 256} {
		b.Run(fmt.Sprintf("batch=%d", batch), func(b *testing.B) { benchSession(b, batch) })
	}
}

func benchSession(b *testing.B, batch int) {
	session := openBench(b)
	bare, barePID := bareStream(b)
	answers := benchEvents(batch)
	for _, body := range answers {
		if err := bare.Send(&apiv1.SessionRequest{Commands: body, Ack: 1}); err != nil {
			b.Fatal(err)
		}
	}
	var next uint64 = 1_000_000
	var ours, floor, oursCPU, floorCPU time.Duration
	jobs, sent := 0, 0
	var batches [][]core.Command
	for b.Loop() {
		batches = benchCommands(batches, batch, next)
		next += benchRound
		var bodies [][]byte
		for _, commands := range batches {
			var body wire.CommandBatch
			for i := range commands {
				if err := body.Append(&commands[i]); err != nil {
					b.Fatal(err)
				}
			}
			bodies = append(bodies, body.Body())
			sent += body.Size()
		}
		begin := cpuTime(b, os.Getpid(), session.pid)
		ours += session.round(b, batches)
		oursCPU += cpuTime(b, os.Getpid(), session.pid) - begin
		begin = cpuTime(b, os.Getpid(), barePID)
		floor += bareRound(b, bare, bodies, len(answers))
		floorCPU += cpuTime(b, os.Getpid(), barePID) - begin
		jobs += benchRound
	}
	b.ReportMetric(float64(jobs)/ours.Seconds(), "jobs/s")
	b.ReportMetric(float64(jobs)/floor.Seconds(), "floor-jobs/s")
	b.ReportMetric(floor.Seconds()/ours.Seconds(), "ratio")
	b.ReportMetric(float64(oursCPU.Nanoseconds())/float64(jobs), "cpu-ns/job")
	b.ReportMetric(float64(floorCPU.Nanoseconds())/float64(jobs), "floor-cpu-ns/job")
	b.ReportMetric(float64(sent)/float64(jobs), "B/job")
	b.ReportMetric(0, "ns/op")
}
