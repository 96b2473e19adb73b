package plugintest

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"

	"google.golang.org/protobuf/proto"

	apiv1 "github.com/gpuwm/gpuwm/api/v1"
	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/sdk/internal/wire"
)

var helloChecks = []check{
	{name: "hello-describes", level: core.LevelJobs, run: helloDescribes,
		doc: "HelloReply has name, engines, a level of 1 to 5, a schema that is empty or a JSON object, proper message types"},
	{name: "hello-names-the-instance", level: core.LevelJobs, run: helloNamesInstance,
		doc: "HelloReply repeats the instance name that the process was started with"},
	{name: "hello-repeats", level: core.LevelJobs, run: helloRepeats,
		doc: "every Hello has the same answer"},
	{name: "protocol-is-negotiated", level: core.LevelJobs, need: aProcess, run: protocolNegotiated,
		doc: "the handshake and HelloReply name the same version of the protocol"},
	{name: "socket-is-private", level: core.LevelJobs, need: aProcess, run: socketPrivate,
		doc: "the plugin serves on a unix socket in the directory it was given, which nobody else may enter"},
	{name: "schema-describes-options", level: core.LevelJobs, run: schemaDescribes,
		doc: "a schema that forbids other options is kept: a device with an unknown option is refused as invalid"},
	{name: "shutdown-ends-the-process", level: core.LevelJobs, need: aProcess | anInstance, run: shutdownEnds,
		doc: "Shutdown replies, and the process ends by itself"},
	{name: "shutdown-while-busy", level: core.LevelJobs, need: aProcess | anInstance, run: shutdownBusy,
		doc: "Shutdown ends the process also while a job executes"},
	{name: "sigterm-ends-the-process", level: core.LevelJobs, need: aProcess | anInstance, run: sigtermEnds,
		doc: "SIGTERM ends the process"},
	{name: "sigterm-while-busy", level: core.LevelJobs, need: aProcess | anInstance, run: sigtermBusy,
		doc: "SIGTERM ends the process also while a job executes"},
	{name: "several-hosts-may-connect", level: core.LevelJobs, run: severalConnect,
		doc: "a second connection is served beside the first"},
	{name: "no-host-no-plugin", level: core.LevelJobs, need: aProcess, run: noHost,
		doc: "started without the cookie it says on standard error what it is, and ends with exit code 1"},
	{name: "other-signals-are-ignored", level: core.LevelJobs, need: aProcess | anInstance, run: signalsIgnored,
		doc: "SIGHUP, SIGINT and SIGPIPE do nothing"},
}

func helloOf(p *probe) *apiv1.HelloReply {
	ctx, cancel := p.bound()
	defer cancel()
	m, err := p.in.client.Hello(ctx, &apiv1.HelloRequest{})
	if err != nil {
		p.failf("Hello: %v", err)
	}
	return m
}

func helloDescribes(p *probe) {
	m := helloOf(p)
	d, err := wire.ToBackendDescription(m)
	if err != nil {
		p.failf("%v", err)
	}
	if m.GetProtocol() != wire.Protocol {
		p.failf("it speaks protocol %d; this is %d", m.GetProtocol(), wire.Protocol)
	}
	if slices.Contains(d.Engines, "") {
		p.failf("it names an engine without a name")
	}
}

func helloNamesInstance(p *probe) {
	if got := helloOf(p).GetInstance(); got != p.in.name {
		p.failf("it says %q; environment variable %s says %q", got, wire.EnvInstance, p.in.name)
	}
}

func helloRepeats(p *probe) {
	if first, second := helloOf(p), helloOf(p); !proto.Equal(first, second) {
		p.failf("two answers differ: %v and %v", first, second)
	}
}

func protocolNegotiated(p *probe) {
	if shake, hello := p.in.record.ProtocolVersion, helloOf(p).GetProtocol(); shake != wire.Protocol || int(hello) != shake {
		p.failf("the handshake says %d, hello says %d; this is protocol %d", shake, hello, wire.Protocol)
	}
}

func socketPrivate(p *probe) {
	const others = 0o077
	dir := filepath.Dir(p.in.record.Address)
	info, err := os.Stat(dir)
	if p.in.record.Network != "unix" || err != nil {
		p.failf("it serves on %s %s: %v", p.in.record.Network, p.in.record.Address, err)
	}
	if info.Mode().Perm()&others != 0 {
		p.failf("the directory of its socket has mode %v; nobody else may enter it", info.Mode().Perm())
	}
}

// schemaDescribes opens a device with an option that the schema does not have.
func schemaDescribes(p *probe) {
	schema := helloOf(p).GetConfigSchema()
	if len(schema) == 0 {
		p.skipf("the plugin declares no schema of options")
	}
	var s struct {
		Additional any `json:"additionalProperties"`
	}
	if err := json.Unmarshal(schema, &s); err != nil {
		p.failf("the schema is no JSON object: %v", err)
	}
	if !reflect.DeepEqual(s.Additional, false) {
		p.skipf("the schema allows options that it does not name")
	}
	_, err := p.tryOpen("kit-schema", 1, 0, func(m *apiv1.SessionRequest) {
		m.GetOpen().GetSpec().Options = map[string]string{"no-such-option-of-the-kit": "1"}
	})
	p.refusedWith("a device with an option that the schema does not name", err, core.ErrInvalid)
	p.alive("a device that did not open")
}

// bringUp opens a device, so that there is something to close.
func bringUp(p *probe) *line {
	l := p.open(deviceName)
	e := p.entity(l, 8)
	e.completed(e.run(8, 1))
	return l
}

func shutdown(p *probe) {
	ctx, cancel := p.bound()
	defer cancel()
	if _, err := p.in.client.Shutdown(ctx, &apiv1.ShutdownRequest{}); err != nil {
		p.failf("Shutdown: %v", err)
	}
	p.dropAll()
	if err := p.in.gone(p.ctx, p.kit.config.Patience); err != nil {
		p.failf("after the reply to Shutdown: %v", err)
	}
}

// dropAll lets go of the sessions of a process that is to end.
func (p *probe) dropAll() {
	for _, l := range p.lines {
		l.drop()
	}
}

func shutdownEnds(p *probe) {
	bringUp(p)
	shutdown(p)
}

func shutdownBusy(p *probe) {
	e := p.entity(bringUp(p), foreverGroups)
	e.forever(1)
	shutdown(p)
}

func signalsIgnored(p *probe) {
	e := p.entity(p.open(deviceName), 8)
	for _, s := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGPIPE} {
		if err := p.in.process.Signal(s); err != nil {
			p.failf("%v: %v", s, err)
		}
		for n := range uint32(3) {
			p.alive(s.String())
			e.completed(e.run(8, n))
		}
	}
}

func sigtermBusy(p *probe) {
	l := bringUp(p)
	e := p.entity(l, foreverGroups)
	e.forever(1)
	p.dropAll()
	if err := p.in.process.Signal(syscall.SIGTERM); err != nil {
		p.failf("SIGTERM: %v", err)
	}
	if err := p.in.gone(p.ctx, p.kit.config.Patience); err != nil {
		p.failf("after SIGTERM: %v", err)
	}
}

func severalConnect(p *probe) {
	l := p.open(deviceName)
	first := *p.in
	if err := p.in.dial(); err != nil {
		p.failf("%v", err)
	}
	p.alive("a second connection")
	_ = p.in.conn.Close()
	p.in.conn, p.in.client = first.conn, first.client
	e := p.entity(l, 8)
	e.completed(e.run(8, 1))
}

// noHost starts the executable as a person would.
func noHost(p *probe) {
	ctx, cancel := p.bound()
	defer cancel()
	c := p.kit.config.Command
	cmd := exec.CommandContext(ctx, c.Path, c.Args...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "GPUWM_") || strings.HasPrefix(s, "PLUGIN_") })
	var said bytes.Buffer
	cmd.Stderr = &said
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		p.failf("started without the cookie it goes on for %v", p.kit.config.Patience)
	case !errors.As(err, &exit) || exit.ExitCode() != 1:
		p.failf("started without the cookie it ended with %v; the exit code must be 1", err)
	case said.Len() == 0:
		p.failf("started without the cookie it says nothing on standard error")
	}
}

func sigtermEnds(p *probe) {
	bringUp(p)
	p.dropAll()
	if err := p.in.process.Signal(syscall.SIGTERM); err != nil {
		p.failf("SIGTERM: %v", err)
	}
	if err := p.in.gone(p.ctx, p.kit.config.Patience); err != nil {
		p.failf("after SIGTERM: %v", err)
	}
}
