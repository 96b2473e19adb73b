package plugintest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	apiv1 "github.com/gpuwm/gpuwm/api/v1"
	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/sdk"
	"github.com/gpuwm/gpuwm/sdk/internal/wire"
)

// proxy is a plugin that forwards everything to a good one behind it, and lies in one
// thing. It is as much of a plugin as the lies need: it decodes commands and events,
// numbers events itself and keeps them until they are acknowledged, so that it can
// add, drop and change what it likes.
type proxy struct {
	apiv1.UnimplementedBackendServer
	inner apiv1.BackendClient
	lie   lie
	mu    sync.Mutex
	// devices are those that were opened.
	devices map[string]*relay
	// started counts jobs that execute.
	started map[core.JobID]bool
}

// endTime bounds how long a proxy outlives the plugin behind it.
const endTime = 2 * time.Second

// seqRoom is how many commands of the good plugin one of the host's may become.
const seqRoom = 4

// relay is one device between host and good plugin.
type relay struct {
	p  *proxy
	mu sync.Mutex
	// kept are the events that the host has not acknowledged, above those that it
	// was told of.
	kept []relayed
	// last is the last number given, acked the last one acknowledged, seen the last
	// one of the good plugin.
	last, acked, seen core.EventSeq
	// session is the highest one seen.
	session uint64
	stream  apiv1.Backend_SessionServer
	state   state
}

// relayed is one event with the number that it has behind the proxy.
type relayed struct {
	event core.BackendEvent
	up    core.EventSeq
	sent  bool
}

// entityKey is an entity in an epoch.
type entityKey struct {
	entity core.EntityID
	epoch  core.Epoch
}

// state is what lies remember.
type state struct {
	r *relay
	// count counts something by entity and epoch.
	count map[entityKey]int
	// held are events that wait.
	held map[entityKey]core.BackendEvent
	// latest is the highest epoch created, asked the highest message sent, seqs what was seen.
	latest map[core.EntityID]core.Epoch
	asked  map[entityKey]core.CommandSeq
	seqs   map[string]int
	mute   map[core.EntityID]bool
	// sample is the last progress by entity.
	sample map[entityKey]core.BackendEvent
	odd    bool
}

// newProxy puts a proxy before a good plugin that is in this process.
func newProxy(good service, l lie) (p *proxy, hangUp func()) {
	listener := bufconn.Listen(1 << 20)
	go func() { _ = good.Server().Serve(listener) }()
	conn, err := grpc.NewClient("passthrough:good", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(wire.MessageMax), grpc.MaxCallSendMsgSize(2*wire.MessageMax)),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		panic(err)
	}
	p = &proxy{inner: apiv1.NewBackendClient(conn), lie: l, devices: map[string]*relay{}, started: map[core.JobID]bool{}}
	return p, func() { _ = conn.Close() }
}

// lying is a good plugin in this process behind a proxy.
type lying struct {
	good   service
	grpc   *grpc.Server
	hangUp func()
}

func newLying(good service, l lie) service {
	p, hangUp := newProxy(good, l)
	s := &lying{good: good, hangUp: hangUp, grpc: grpc.NewServer(grpc.MaxRecvMsgSize(wire.MessageMax), grpc.MaxSendMsgSize(wire.MessageMax))}
	apiv1.RegisterBackendServer(s.grpc, p)
	return s
}

func (s *lying) Server() *grpc.Server { return s.grpc }

func (s *lying) Stop() {
	s.grpc.Stop()
	s.hangUp()
	s.good.Stop()
}

// serveProxy is the life of a proxy process.
func serveProxy(args []string) {
	good := sdk.NewInProcess(good(), os.Getenv(wire.EnvInstance))
	l, ok := lies[args[0]]
	if !ok {
		l = mortals[args[0]]
	}
	p, _ := newProxy(good, l)
	if l.immortal {
		signal.Ignore(syscall.SIGTERM)
	}
	if !l.touchy {
		signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGPIPE)
	}
	if lease, err := time.ParseDuration(os.Getenv(wire.EnvLease)); err == nil && l.impatient {
		time.AfterFunc(lease, func() { os.Exit(0) })
	}
	served := make(chan *grpc.Server, 1)
	go func() {
		<-good.Ended()
		if l.immortal {
			return
		}
		// Replies on their way still leave.
		time.AfterFunc(endTime, func() { os.Exit(0) })
		(<-served).GracefulStop()
		os.Exit(0)
	}()
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig:  plugin.HandshakeConfig{ProtocolVersion: wire.Protocol, MagicCookieKey: wire.CookieKey, MagicCookieValue: wire.CookieValue},
		VersionedPlugins: map[int]plugin.PluginSet{wire.Protocol: {wire.PluginName: &proxied{proxy: p}}},
		GRPCServer: func(opts []grpc.ServerOption) *grpc.Server {
			g := grpc.NewServer(append(opts, grpc.MaxRecvMsgSize(wire.MessageMax), grpc.MaxSendMsgSize(wire.MessageMax))...)
			served <- g
			return g
		},
	})
}

// proxied registers the proxy with go-plugin.
type proxied struct {
	plugin.NetRPCUnsupportedPlugin
	proxy *proxy
}

func (p *proxied) GRPCServer(_ *plugin.GRPCBroker, g *grpc.Server) error {
	apiv1.RegisterBackendServer(g, p.proxy)
	return nil
}

func (p *proxied) GRPCClient(context.Context, *plugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, fmt.Errorf("not a host")
}

func (p *proxy) relay(device string) *relay {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.devices[device]
	if r == nil {
		r = &relay{p: p}
		r.state = state{
			r: r, count: map[entityKey]int{}, held: map[entityKey]core.BackendEvent{}, latest: map[core.EntityID]core.Epoch{},
			asked: map[entityKey]core.CommandSeq{}, seqs: map[string]int{}, mute: map[core.EntityID]bool{}, sample: map[entityKey]core.BackendEvent{},
		}
		p.devices[device] = r
	}
	return r
}

// Session forwards one session.
func (p *proxy) Session(stream apiv1.Backend_SessionServer) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	up, err := p.inner.Session(ctx)
	if err != nil {
		return err
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	open := first.GetOpen()
	if open == nil || open.GetSession() == 0 {
		_ = up.Send(first)
		_, err := up.Recv()
		return err
	}
	r := p.relay(open.GetSpec().GetName())
	r.mu.Lock()
	if p.lie.open != nil {
		p.lie.open(r, open)
	}
	told := core.EventSeq(open.GetAcked())
	open.Acked = uint64(r.acknowledge(told))
	r.mu.Unlock()
	_ = up.Send(first)
	m, err := up.Recv()
	if err != nil {
		return p.say(ctx, err)
	}
	r.mu.Lock()
	r.session = max(r.session, open.GetSession())
	r.stream = stream
	opened := m.GetOpened()
	opened.Acked = uint64(r.acked)
	for _, h := range opened.GetHeld() {
		h.Applied /= seqRoom
	}
	if p.lie.opened != nil {
		p.lie.opened(opened)
	}
	err = stream.Send(m)
	if p.lie.reconnect != nil {
		p.lie.reconnect(r)
	}
	for i := range r.kept {
		r.kept[i].sent = false
	}
	r.send()
	r.mu.Unlock()
	if err != nil {
		return err
	}
	ended := make(chan error, 2)
	go func() { ended <- r.down(stream, up) }()
	go func() { ended <- r.up(stream, up) }()
	err = <-ended
	if p.lie.frail && stream.Context().Err() != nil {
		os.Exit(1)
	}
	return err
}

// acknowledge drops events up to one of ours and returns the number behind the proxy.
func (r *relay) acknowledge(seq core.EventSeq) core.EventSeq {
	var up core.EventSeq
	for len(r.kept) > 0 && r.kept[0].event.Seq <= seq {
		up = r.kept[0].up
		r.acked = r.kept[0].event.Seq
		r.kept = r.kept[1:]
	}
	return up
}

// up forwards commands and acknowledgements to the good plugin.
func (r *relay) up(stream apiv1.Backend_SessionServer, up apiv1.Backend_SessionClient) error {
	var decoder wire.CommandDecoder
	for {
		m, err := stream.Recv()
		if err != nil {
			_ = up.CloseSend()
			// The good plugin ends the session.
			<-stream.Context().Done()
			return err
		}
		r.mu.Lock()
		if seq := core.EventSeq(m.GetAck()); seq > 0 && seq <= r.last+1 {
			m.Ack = 0
			if !r.p.lie.ignoresAcks && r.stream == stream {
				m.Ack = uint64(r.acknowledge(min(seq, r.last)))
			}
		}
		if b := m.GetCommands(); len(b) > 0 {
			commands, err := decoder.Decode(b, nil)
			if err == nil && r.stream == stream {
				m.Commands = r.change(commands)
			} else if r.p.lie.malformed != nil {
				r.p.lie.malformed(b)
			}
		}
		r.mu.Unlock()
		_ = up.Send(m)
	}
}

// change makes the good plugin's commands of the host's.
func (r *relay) change(commands []core.Command) []byte {
	var b wire.CommandBatch
	for i := range commands {
		c := commands[i]
		c.Seq *= seqRoom
		out := []core.Command{c}
		if r.p.lie.command != nil {
			out = r.p.lie.command(&r.state, c)
		}
		for j := range out {
			if b.Full() {
				panic("too many commands for a batch")
			}
			if err := b.Append(&out[j]); err != nil {
				panic(err)
			}
		}
	}
	if b.Count() == 0 {
		return nil
	}
	return b.Body()
}

// down forwards events and progress to the host.
func (r *relay) down(stream apiv1.Backend_SessionServer, up apiv1.Backend_SessionClient) error {
	for {
		m, err := up.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		var events, samples []core.BackendEvent
		if b := m.GetEvents(); len(b) > 0 {
			if events, err = wire.DecodeEvents(b, false, nil); err != nil {
				return err
			}
		}
		if b := m.GetProgress(); len(b) > 0 {
			if samples, err = wire.DecodeEvents(b, true, nil); err != nil {
				return err
			}
		}
		r.mu.Lock()
		for _, e := range events {
			if e.Seq > r.seen {
				r.seen = e.Seq
				r.take(e)
			}
		}
		if r.stream == stream {
			r.send()
			if r.p.lie.progress != nil {
				samples = r.p.lie.progress(&r.state, samples)
			}
			r.sample(samples)
		}
		r.mu.Unlock()
	}
}

// take gives an event of the good plugin its place here.
func (r *relay) take(e core.BackendEvent) {
	e.Command /= seqRoom
	r.p.mu.Lock()
	switch e.Kind {
	case core.EventStarted:
		r.p.started[e.Job] = true
	case core.EventCompleted, core.EventCancelled, core.EventEntityLost, core.EventDestroyed:
		delete(r.p.started, e.Job)
	}
	r.p.mu.Unlock()
	out := []core.BackendEvent{e}
	if r.p.lie.event != nil {
		out = r.p.lie.event(&r.state, e)
	}
	for _, o := range out {
		r.emit(o, e.Seq)
	}
}

// emit numbers an event and keeps it.
func (r *relay) emit(e core.BackendEvent, up core.EventSeq) {
	r.last++
	e.Seq = r.last
	r.kept = append(r.kept, relayed{event: e, up: up})
}

// send sends what was not sent in this session.
func (r *relay) send() {
	for i := range r.kept {
		k := &r.kept[i]
		if k.sent {
			continue
		}
		k.sent = true
		e := k.event
		if r.p.lie.number != nil {
			e.Seq = r.p.lie.number(&r.state, e.Seq)
		}
		var b wire.EventBatch
		b.Append(&e)
		_ = r.stream.Send(&apiv1.SessionReply{Events: b.Body()})
	}
}

// sample sends progress.
func (r *relay) sample(samples []core.BackendEvent) {
	for len(samples) > 0 {
		var b wire.EventBatch
		for len(samples) > 0 && !b.Full() {
			b.Append(&samples[0])
			samples = samples[1:]
		}
		_ = r.stream.Send(&apiv1.SessionReply{Progress: b.Body()})
	}
}
