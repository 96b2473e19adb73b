package plugintest

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/sdk"
	"github.com/gpuwm/gpuwm/sdk/host"
)

// Config says what is tested.
type Config struct {
	// Command is the plugin's executable. Backend makes one in this process instead.
	Command host.Command
	Backend func() sdk.Backend
	// Level is the highest level to test; 0 means that which the plugin declares.
	Level int
	// Engine and Options open the device; an empty engine means the first that the
	// plugin declares.
	Engine  string
	Options map[string]string
	// Log receives what the plugin logs; nothing when nil.
	Log hclog.Logger
	// Progress, when set, is called with each result as it comes.
	Progress func(Result)
	// Patience bounds the wait for one answer, 10 s when zero. A check has six times as long.
	Patience time.Duration
	// Start bounds handshake and hello, 20 s when zero.
	Start time.Duration
	// Slow has the checks run too that let a plugin wait in vain, for as long as it
	// may: they add a minute.
	Slow bool
	// Env are names of environment variables that the plugin inherits besides the usual.
	Env []string
	// only chooses among the checks; all when nil.
	only func(check) bool
	// wrap puts something before a backend in this process.
	wrap func(service) service
}

const (
	patienceDefault = 10 * time.Second
	startDefault    = 20 * time.Second
	// waitsPerCheck bounds a check in terms of Patience.
	waitsPerCheck = 6
	// deviceName is the device that the kit opens.
	deviceName = "kit0"
)

// Result is how one check ended.
type Result struct {
	Name  string
	Level int
	// Doc is the promise in one line.
	Doc string
	OK  bool
	// Skipped checks are not OK; Reason says why, as it does for a failure.
	Skipped bool
	Reason  string
}

// Report is what a run found.
type Report struct {
	// Plugin is the name that the plugin gives itself.
	Plugin  string
	Level   int
	Results []Result
}

// Failed counts the checks that failed.
func (r Report) Failed() int {
	n := 0
	for _, result := range r.Results {
		if !result.OK && !result.Skipped {
			n++
		}
	}
	return n
}

// Run tests a plugin. An error says that testing could not begin: the plugin does not
// start, its device does not open, or takes no kernel that the kit has.
func Run(ctx context.Context, c Config) (report Report, err error) {
	k, err := newKit(ctx, c)
	if ctx.Err() != nil && err != nil {
		return Report{}, context.Cause(ctx)
	}
	if err != nil {
		return Report{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer func() {
		cancel() // Slow checks of a run that was broken off end too.
		if endErr := k.close(); err == nil {
			err = endErr
		}
	}()
	report = Report{Plugin: k.description.Name, Level: k.config.Level}
	waiting := k.begin(ctx)
	for _, check := range k.checks() {
		var result Result
		if ended := waiting[check.name]; ended != nil {
			result = <-ended
		} else {
			result = k.do(ctx, check)
		}
		if ctx.Err() != nil { // What was broken off says nothing about the plugin.
			return report, context.Cause(ctx)
		}
		report.Results = append(report.Results, result)
		if k.config.Progress != nil {
			k.config.Progress(result)
		}
	}
	return report, nil
}

// begin starts the slow checks, which need no more of the kit than a plugin of their
// own, beside the others. Each channel delivers one result.
func (k *kit) begin(ctx context.Context) map[string]<-chan Result {
	waiting := make(map[string]<-chan Result)
	for _, c := range k.checks() {
		if c.need&aMinute != 0 && k.config.Slow {
			ended := make(chan Result, 1)
			waiting[c.name] = ended
			k.waiting.Go(func() { ended <- k.do(ctx, c) })
		}
	}
	return waiting
}

// kit is one run.
type kit struct {
	config Config
	dir    string
	// description, device and kernel are those of the first instance.
	description core.BackendDescription
	device      core.DeviceDescription
	kernel      core.Kernel
	// shared serves the checks that need no instance of their own; nil when the
	// last one was given up.
	shared *instance
	// spin is the calibrated round count of slow; 0 before.
	spin uint32
	// silent says that no samples came of a job that executes.
	silent bool
	// waiting are the slow checks that have begun.
	waiting  sync.WaitGroup
	entities atomic.Uint64
	jobs     atomic.Uint64
}

func newKit(ctx context.Context, c Config) (*kit, error) {
	if c.Log == nil {
		c.Log = hclog.NewNullLogger()
	}
	if c.Patience <= 0 {
		c.Patience = patienceDefault
	}
	if c.Start <= 0 {
		c.Start = startDefault
	}
	if c.Level < 0 || c.Level > core.LevelPortable {
		return nil, fmt.Errorf("level %d, want %d to %d: %w", c.Level, core.LevelJobs, core.LevelPortable, core.ErrInvalid)
	}
	k := &kit{config: c}
	var err error
	if c.Backend == nil {
		if err := executable(c.Command.Path); err != nil {
			return nil, err
		}
		if k.dir, err = os.MkdirTemp("", "gpuwm-kit-"); err != nil {
			return nil, fmt.Errorf("directory of instances: %w", err)
		}
	}
	if err = k.meet(ctx); err != nil {
		_ = k.close()
		return nil, err
	}
	return k, nil
}

// meet starts the first instance and learns what it declares.
func (k *kit) meet(ctx context.Context) error {
	in, err := k.start(ctx, leaseUsual)
	if err != nil {
		return err
	}
	k.shared = in
	if k.description, err = in.hello(ctx); err != nil {
		return fmt.Errorf("hello of the plugin: %w", err)
	}
	if k.config.Level == 0 {
		k.config.Level = k.description.Level
	}
	if k.config.Engine == "" && len(k.description.Engines) > 0 {
		k.config.Engine = k.description.Engines[0]
	}
	bounded, cancel := context.WithTimeout(ctx, waitsPerCheck*k.config.Patience)
	defer cancel()
	p := &probe{kit: k, in: in, ctx: bounded}
	var l *line
	reason, _ := p.guard(func() {
		l = p.open(deviceName)
		k.device = l.describe()
		l.close()
	})
	if reason != "" {
		return fmt.Errorf("open a device with engine %q: %s: %w", k.config.Engine, reason, core.ErrInvalid)
	}
	k.kernel, err = kernelFor(k.device.Formats)
	return err
}

// checks are those up to the level.
func (k *kit) checks() []check {
	var list []check
	for _, c := range all() {
		if c.level <= k.config.Level && (k.config.only == nil || k.config.only(c)) {
			list = append(list, c)
		}
	}
	return list
}

// close ends what was started.
func (k *kit) close() error {
	var err error
	k.waiting.Wait()
	if k.shared != nil {
		err = k.shared.end()
		k.shared = nil
	}
	if k.dir != "" {
		if removeErr := os.RemoveAll(k.dir); err == nil && removeErr != nil {
			err = fmt.Errorf("remove directory of instances: %w", removeErr)
		}
	}
	return err
}
