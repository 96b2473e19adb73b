package plugintest

import (
	"context"
	"fmt"
	"runtime"
	"slices"

	"github.com/gpuwm/gpuwm/core"
)

// check is one promise and what proves it.
type check struct {
	name  string
	level int
	// doc is the promise in one line.
	doc string
	// need says what else there must be.
	need need
	run  func(*probe)
}

// need is a set of what a check needs.
type need uint8

const (
	// aProcess: the plugin is an executable.
	aProcess need = 1 << iota
	// anInstance: one of its own, which the check may spoil.
	anInstance
	// muchData: time to move more data than all other checks together.
	muchData
	// aMinute: time to see that a plugin waits no longer than it may.
	aMinute
)

// groups are the checks by what they are about, lowest level first, but for those that fill
// everything there is and those that wait.
func groups() [][]check {
	return [][]check{
		helloChecks, sessionChecks, malformedChecks, kernelChecks, createChecks, jobChecks, cancelChecks, faultChecks, eventChecks, observeChecks,
		messageChecks,
		suspendChecks, imageChecks, resultChecks,
		repeatChecks, staleChecks, reconnectChecks, deathChecks,
		portableChecks,
		limitChecks, waitChecks,
	}
}

// all are the checks of every level.
func all() []check { return slices.Concat(groups()...) }

// verdict is what a check panics with to end.
type verdict struct {
	reason string
	skip   bool
}

// guard runs f and returns why it failed or was skipped; an empty reason means neither.
func (p *probe) guard(f func()) (reason string, skipped bool) {
	defer func() {
		switch v := recover().(type) {
		case nil:
		case verdict:
			reason, skipped = v.reason, v.skip
		case runtime.Error:
			panic(v) // a slip of the kit
		default:
			panic(v)
		}
	}()
	f()
	return "", false
}

// failf ends the check: it failed for this reason, which a plugin's author understands.
func (p *probe) failf(format string, args ...any) {
	panic(verdict{reason: fmt.Sprintf(format, args...)})
}

// skipf ends the check: it says nothing about this plugin.
func (p *probe) skipf(format string, args ...any) {
	panic(verdict{reason: fmt.Sprintf(format, args...), skip: true})
}

// do runs one check. It leaves nothing behind: what it made is destroyed, and an
// instance on which that, or the check, fails is ended.
func (k *kit) do(ctx context.Context, c check) Result {
	result := Result{Name: c.name, Level: c.level, Doc: c.doc}
	bound := waitsPerCheck * k.config.Patience
	if c.need&(muchData|aMinute) != 0 {
		bound += imageTime
	}
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	p := &probe{kit: k, ctx: ctx, level: c.level}
	reason, skipped := p.guard(func() {
		if c.need&aProcess != 0 && k.config.Backend != nil {
			p.skipf("needs a plugin that is a process")
		}
		if c.need&aMinute != 0 && !k.config.Slow {
			p.skipf("waits for up to a minute; --slow (Config.Slow) runs it")
		}
		if c.level >= core.LevelImages && !k.device.SavesImages {
			p.failf("the device declares that it saves no images, and level %d needs them", c.level)
		}
		p.in = p.instance(c.need&anInstance != 0)
		c.run(p)
	})
	if reason == "" {
		reason, skipped = p.guard(p.clean)
	} else {
		p.abandon()
	}
	spoilt := reason != "" && !skipped
	for _, in := range p.own {
		if err := in.end(); err != nil && reason == "" {
			reason = "the instance does not end: " + err.Error()
		}
	}
	if c.need&anInstance == 0 && spoilt && k.shared != nil && !slices.Contains(p.own, p.in) {
		_ = k.shared.end()
		k.shared = nil
	}
	result.OK, result.Skipped, result.Reason = reason == "", skipped, reason
	return result
}
