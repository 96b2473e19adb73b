package plugintest

import (
	"slices"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

var eventChecks = []check{
	{name: "events-are-numbered-without-gaps", level: core.LevelJobs, run: numbered,
		doc: "the events of a session follow each other without a gap, after the number that its opening names"},
	{name: "executing-job-is-sampled", level: core.LevelJobs, run: executingSampled,
		doc: "a job that executes is sampled again and again, and its executed time rises"},
	{name: "executed-time-is-counted", level: core.LevelJobs, run: timeCounted,
		doc: "the end of a job says how long it executed"},
	{name: "progress-is-of-executing-jobs", level: core.LevelJobs, run: progressOfExecuting,
		doc: "a sample is of a job that has started and not ended"},
	{name: "progress-ends-with-its-job", level: core.LevelJobs, run: progressEnds,
		doc: "no sample of a job comes after its end"},
	{name: "progress-stays-within-the-grid", level: core.LevelJobs, run: progressWithin,
		doc: "no sample has more workgroups done than the job has"},
	{name: "progress-rises", level: core.LevelJobs, run: progressRises,
		doc: "samples of a job never go back within an epoch"},
	{name: "end-is-not-below-its-samples", level: core.LevelJobs, run: endRises,
		doc: "neither cursor nor counts of a job's end are below those of its samples"},
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
	if p.kit.silent {
		p.skipf("no progress came of a job that executes")
	}
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

// executingSampled: a host counts a job's timeout in the executed time of its samples, and
// takes 90 s of silence for a fault.
func executingSampled(p *probe) {
	l := p.open(deviceName)
	e := p.entity(l, foreverGroups)
	job := e.forever(1)
	defer func() {
		_, n := l.samples()
		p.kit.silent = n == 0
	}()
	p.poll("several samples of a job that executes came, with an executed time that rises", func() bool {
		samples, _ := l.samples()
		var times []time.Duration
		for _, s := range samples {
			if s.Job == job && (len(times) == 0 || s.ExecutedTime > times[len(times)-1]) {
				times = append(times, s.ExecutedTime)
			}
		}
		return len(times) >= samplesWanted
	})
	e.cancel(job)
	e.ended(job)
}

func timeCounted(p *probe) {
	e := p.entity(p.open(deviceName), calibrateGroups)
	c := e.slow(calibrateGroups, 1)
	e.l.send(c)
	if b := e.completed(c.Job); b.ExecutedTime <= 0 {
		p.failf("a job of %d workgroups that take about %v each completed with an executed time of %v", calibrateGroups, slowTime, b.ExecutedTime)
	}
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

func endRises(p *probe) {
	_, job, samples := sampled(p)
	end := p.lines[len(p.lines)-1].history()
	i := slices.IndexFunc(end, func(b core.BackendEvent) bool { return b.Job == job && b.Kind == core.EventCancelled })
	if i < 0 {
		p.failf("job %d was cancelled, and no event says so", job)
	}
	for _, s := range samples {
		if s.Job == job && (s.Done > end[i].Done || s.Executed > end[i].Executed || s.ExecutedTime > end[i].ExecutedTime) {
			p.failf("after a sample with %d done, %d executed in %v job %d ended with %d, %d, %v",
				s.Done, s.Executed, s.ExecutedTime, job, end[i].Done, end[i].Executed, end[i].ExecutedTime)
		}
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
