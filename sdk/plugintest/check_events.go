package plugintest

import (
	"time"

	"github.com/gpuwm/gpuwm/core"
)

var eventChecks = []check{
	{name: "events-are-numbered-without-gaps", level: core.LevelJobs, run: numbered,
		doc: "the events of a session follow each other without a gap, after the number that its opening names"},
	{name: "progress-is-of-executing-jobs", level: core.LevelJobs, run: progressOfExecuting,
		doc: "a sample is of a job that has started and not ended"},
	{name: "progress-ends-with-its-job", level: core.LevelJobs, run: progressEnds,
		doc: "no sample of a job comes after its end"},
	{name: "progress-stays-within-the-grid", level: core.LevelJobs, run: progressWithin,
		doc: "no sample has more workgroups done than the job has"},
	{name: "progress-rises", level: core.LevelJobs, run: progressRises,
		doc: "samples of a job never go back within an epoch"},
	{name: "progress-is-bounded", level: core.LevelJobs, run: progressBounded,
		doc: "samples are few: only the latest counts"},
}

func numbered(p *probe) {
	l := p.open(deviceName)
	e := p.entity(l, 4)
	const jobs = 20
	var last core.JobID
	for n := range uint32(jobs) {
		last = e.run(4, n)
	}
	e.completed(last)
	next := core.EventSeq(l.opened.GetAcked())
	for _, b := range l.history() {
		if next++; b.Seq != next {
			p.failf("event number %d came where %d was to come", b.Seq, next)
		}
	}
}

const (
	// samplesWanted is how many samples are waited for, samplesFlood how many within
	// sampleWindow are too many. Nothing fails for being slow.
	samplesWanted = 4
	samplesFlood  = 500
	sampleWindow  = 300 * time.Millisecond
)

// sampled runs a job until it was sampled a few times, ends it, and returns the samples.
func sampled(p *probe) (e *life, job core.JobID, samples []core.BackendEvent) {
	l := p.open(deviceName)
	e = p.entity(l, foreverGroups)
	job = e.forever(1)
	limit := time.NewTimer(p.kit.config.Patience)
	defer limit.Stop()
	for n := 0; n < samplesWanted; {
		select {
		case <-l.more:
			_, n = l.samples()
		case <-l.ended:
			p.failf("the session ended: %v", l.cause())
		case <-limit.C:
			p.skipf("no progress came of a job that executes")
		}
	}
	e.cancel(job)
	e.ended(job)
	samples, _ = l.samples()
	return e, job, samples
}

func progressOfExecuting(p *probe) {
	e, job, samples := sampled(p)
	for _, s := range samples {
		if s.Entity != e.id || s.Epoch != e.epoch || s.Job != job {
			p.failf("a sample is of job %d of entity %d, epoch %d; only job %d of entity %d, epoch %d, executed", s.Job, s.Entity, s.Epoch, job, e.id, e.epoch)
		}
	}
}

func progressEnds(p *probe) {
	e, job, _ := sampled(p)
	_, before := e.l.samples()
	for n := range uint32(8) {
		e.completed(e.run(8, n))
	}
	all, after := e.l.samples()
	for _, s := range all[min(before, len(all)):] {
		if s.Job == job {
			p.failf("%d samples came after the end of job %d, of which at least one is of that job", after-before, job)
		}
	}
}

func progressWithin(p *probe) {
	_, job, samples := sampled(p)
	for _, s := range samples {
		if s.Done > foreverGroups {
			p.failf("a sample of job %d has %d of %d workgroups done", job, s.Done, foreverGroups)
		}
	}
}

func progressRises(p *probe) {
	_, _, samples := sampled(p)
	var last core.BackendEvent
	for _, s := range samples {
		if s.Done < last.Done || s.Executed < last.Executed || s.ExecutedTime < last.ExecutedTime {
			p.failf("after %d done, %d executed in %v came a sample with %d, %d, %v",
				last.Done, last.Executed, last.ExecutedTime, s.Done, s.Executed, s.ExecutedTime)
		}
		last = s
	}
}

func progressBounded(p *probe) {
	e, _, _ := sampled(p)
	job := e.forever(2)
	_, before := e.l.samples()
	window := time.NewTimer(sampleWindow)
	defer window.Stop()
	<-window.C
	if _, after := e.l.samples(); after-before > samplesFlood {
		p.failf("%d samples came of one job within %v; more than %d are a flood", after-before, sampleWindow, samplesFlood)
	}
	e.cancel(job)
	e.ended(job)
}
