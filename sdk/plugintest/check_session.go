package plugintest

import (
	"bytes"
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	apiv1 "github.com/gpuwm/gpuwm/api/v1"
	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/sdk/internal/wire"
)

var sessionChecks = []check{
	{name: "session-describes-the-device", level: core.LevelJobs, run: sessionDescribes,
		doc: "the first reply of a session describes the device: its name, a granularity, at least one format and one credit"},
	{name: "session-needs-a-number", level: core.LevelJobs, run: sessionNeedsNumber,
		doc: "a session with number 0 is refused as invalid"},
	{name: "session-begins-with-open", level: core.LevelJobs, run: sessionBeginsWithOpen,
		doc: "a session whose first message does not open the device is refused"},
	{name: "session-opens-once", level: core.LevelJobs, run: sessionOpensOnce,
		doc: "a second open in a session ends it with an error"},
	{name: "device-needs-a-name", level: core.LevelJobs, run: deviceNeedsName,
		doc: "a device without a name is refused"},
	{name: "unknown-engine-is-refused", level: core.LevelJobs, run: unknownEngine,
		doc: "a device with an engine that the plugin does not declare is refused as invalid"},
	{name: "device-opens-again", level: core.LevelJobs, run: deviceOpensAgain,
		doc: "a later session of the same device finds the same device"},
	{name: "devices-are-separate", level: core.LevelJobs, need: anInstance, run: devicesSeparate,
		doc: "two devices work at once, each numbers its own events from 1"},
	{name: "message-of-16MiB-crosses", level: core.LevelJobs, need: muchData, run: messageCrosses,
		doc: "messages of up to 16 MiB are received"},
	{name: "larger-message-is-refused", level: core.LevelJobs, need: muchData, run: messageTooLarge,
		doc: "a message beyond 16 MiB is refused, and the process lives"},
	{name: "errors-carry-detail", level: core.LevelJobs, run: errorsCarryDetail,
		doc: "every error status carries an ErrorDetail whose reason is one of the closed set"},
}

func sessionDescribes(p *probe) {
	d := p.open(deviceName).describe()
	if d.Name != deviceName {
		p.failf("it describes device %q; %q was opened", d.Name, deviceName)
	}
	if len(d.Formats) == 0 {
		p.failf("it takes no kernel format")
	}
}

func sessionNeedsNumber(p *probe) {
	_, err := p.tryOpen(deviceName, 0, 0, nil)
	p.refusedWith("session 0", err, core.ErrInvalid)
}

func sessionBeginsWithOpen(p *probe) {
	_, err := p.tryOpen(deviceName, 1, 0, func(m *apiv1.SessionRequest) { m.Open = nil })
	p.refusedWith("a session without an open", err, core.ErrInvalid)
	p.alive("a session without an open")
}

func sessionOpensOnce(p *probe) {
	l := p.open(deviceName)
	_ = l.stream.Send(&apiv1.SessionRequest{Open: &apiv1.OpenDevice{
		Spec: &apiv1.DeviceSpec{Name: deviceName, Engine: p.kit.config.Engine}, Session: uint64(l.number),
	}})
	p.refusedWith("a second open", l.broken("a second open"), core.ErrInvalid)
	p.alive("a second open")
}

func deviceNeedsName(p *probe) {
	_, err := p.tryOpen("", 1, 0, nil)
	p.refusedWith("a device without a name", err, core.ErrCorrupt, core.ErrInvalid)
}

func unknownEngine(p *probe) {
	_, err := p.tryOpen("kit-engine", 1, 0, func(m *apiv1.SessionRequest) { m.GetOpen().GetSpec().Engine = "no-such-engine-of-the-kit" })
	p.refusedWith("a device with an unknown engine", err, core.ErrInvalid)
}

func deviceOpensAgain(p *probe) {
	first := p.open(deviceName)
	first.close()
	second := p.open(deviceName)
	if a, b := first.opened.GetDescription(), second.opened.GetDescription(); !proto.Equal(a, b) {
		p.failf("its description was %v, and is %v", a, b)
	}
}

func devicesSeparate(p *probe) {
	for _, device := range []string{deviceName, "kit1"} {
		l := p.open(device)
		e := p.entity(l, 8)
		e.completed(e.run(8, 1))
		if first := l.history()[0]; first.Seq != 1 {
			p.failf("the first event of device %s has number %d; it must be 1", device, first.Seq)
		}
	}
}

// upTo uploads size bytes of a kernel in one message under a wrong digest.
func upTo(p *probe, size int) error {
	l := p.present()
	ctx, cancel := p.bound()
	defer cancel()
	stream, err := p.in.client.PutKernel(ctx, grpc.MaxCallSendMsgSize(2*wire.MessageMax))
	if err != nil {
		return err
	}
	code := bytes.Repeat([]byte{1}, size)
	h := p.kernelHeader(l, core.Kernel{Format: p.kit.kernel.Format, Code: code, Digest: core.DigestOf(nil)})
	_ = stream.Send(&apiv1.PutKernelRequest{Header: h, Code: code})
	_, err = stream.CloseAndRecv()
	return err
}

func messageCrosses(p *probe) {
	const room = 4 << 10 // for the rest of the message
	p.refusedWith("a kernel with a wrong digest in a message of nearly 16 MiB", upTo(p, wire.MessageMax-room), core.ErrCorrupt)
}

func messageTooLarge(p *probe) {
	if err := upTo(p, wire.MessageMax+1); err == nil {
		p.failf("a message beyond 16 MiB was taken")
	}
	p.alive("a message beyond 16 MiB")
}

// errorsCarryDetail makes a few errors and looks at their details.
func errorsCarryDetail(p *probe) {
	l := p.open(deviceName)
	closed := map[string]bool{}
	for _, name := range []string{"closed", "full", "oversize", "not-found", "exists", "invalid", "unsupported", "stale", "corrupt", "gone", "deadline", "busy"} {
		closed[name] = true
	}
	elsewhere := p.kernelHeader(l, p.kit.kernel)
	elsewhere.Device = "no-such-device"
	_, opened := p.tryOpen(deviceName, 0, 0, nil)
	_, got := p.getImage(l, uint64(l.number), 1<<40, 1, nil)
	for what, err := range map[string]error{
		"session 0":                              opened,
		"PutKernel with a wrong digest":          p.putKernel(l, p.kernelHeader(l, core.Kernel{Format: p.kit.kernel.Format, Code: []byte{1}}), []byte{1}),
		"PutKernel to a device that is not open": p.putKernel(l, elsewhere, p.kit.kernel.Code),
		"PutImage for epoch 0":                   p.putImage(l, 1, 0, picture{header: core.ImageHeader{Version: 1, Entity: 1}}, nil),
		"GetImage of no entity":                  got,
	} {
		if err == nil {
			p.failf("%s was taken", what)
		}
		if d := detailOf(err); d == nil {
			p.failf("the error of %s carries no ErrorDetail: %v", what, err)
		} else if !closed[d.GetReason()] {
			p.failf("the error of %s has the reason %q, which is none of the closed set", what, d.GetReason())
		}
	}
}

// stalled begins an upload and leaves it open after its first messages.
func (e *life) stalled(ctx context.Context, from picture, messages int) {
	stop := make(chan struct{})
	go func() {
		_ = e.p.putImageIn(ctx, e.l, e.id, e.epoch, from, func(n int, _ *apiv1.PutImageRequest) bool {
			if n == messages {
				close(stop)
				<-ctx.Done()
				return false
			}
			return true
		})
	}()
	<-stop
}
