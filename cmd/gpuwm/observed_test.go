package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/core/usage"
)

// observed is made from the log lines of all processes of a trial, and from
// the engines' own counters.
type observed struct {
	mu sync.Mutex
	// done are the jobs whose workgroups are known to be all done.
	done map[core.JobID]bool
	// images holds the progress in each image that was saved since the last
	// death, by generation; recorded is the last one whose record is committed.
	images   map[core.Generation]uint64
	recorded core.Generation
	// restored is the progress that the present plugin instance began with.
	restored uint64
	// instance is the present one; instances are all.
	instance  string
	instances map[string]bool
	// lost sums up what lay between the last image and each death of a plugin.
	lost uint64
	// lostBefore is what was lost when the entity last began from its first image.
	lostBefore uint64
	err        error
}

// logLine is what is read of a line of the log.
type logLine struct {
	Message  string          `json:"@message"`
	Instance string          `json:"instance"`
	Image    core.Generation `json:"image"`
	Cursors  string          `json:"cursors"`
	Job      string          `json:"job"`
	State    string          `json:"state"`
}

// line takes one line of the log. Lines may be seen long after they were
// written: nothing is looked at here that the processes change meanwhile.
func (o *observed) line(tr *trial, text string) {
	var l logLine
	if !strings.HasPrefix(text, "{") || json.Unmarshal([]byte(text), &l) != nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	switch l.Message {
	case "instance started", "instance adopted", "upgrade done":
		if l.Instance == o.instance {
			return
		}
		o.died(tr)
		o.instance = l.Instance
		o.instances[l.Instance] = true
	case "image saved":
		o.images[l.Image] = o.progress(l.Cursors)
	case "entity changed":
		if l.State == "creating" && l.Image == 1 {
			o.begin()
		}
		o.recorded = max(o.recorded, l.Image)
	case "job changed", "job completed":
		if l.State == "flushing" || l.Message == "job completed" {
			id := slices.Index([]string{"", "fill", "step", "again", "more"}, l.Job)
			o.done[core.JobID(id)] = true
		}
	}
}

// begin notes that the entity begins from its first image, which may be that of
// a new run.
func (o *observed) begin() {
	o.images, o.recorded, o.restored = map[core.Generation]uint64{1: 0}, 1, 0
	o.done = map[core.JobID]bool{}
	o.lostBefore = o.lost
}

// counters reads those of an instance: in the data directory, or where they were
// moved when it had ended. One that opened no device has none.
func (tr *trial) counters(instance string) (map[usage.Key]uint64, error) {
	counts, err := usage.Read(filepath.Join(tr.data, "instances", instance, "usage"))
	if err != nil || len(counts) > 0 {
		return counts, err
	}
	return usage.Read(filepath.Join(tr.kept, instance, "usage"))
}

// progress is how many workgroups were done when an image was made: its cursors
// for the jobs it names; the others are done, or have not begun.
func (o *observed) progress(cursors string) uint64 {
	var sum uint64
	named := map[core.JobID]bool{}
	least := core.JobID(len(trialJobs))
	for item := range strings.FieldsSeq(cursors) {
		job, cursor, _ := strings.Cut(item, ":")
		id, err := strconv.ParseUint(job, 10, 64)
		n, err2 := strconv.ParseUint(cursor, 10, 64)
		if err != nil || err2 != nil || id == 0 {
			o.err = fmt.Errorf("bad cursors %q", cursors)
			return 0
		}
		id = (id-1)%uint64(len(trialJobs)-1) + 1 // a second run goes on counting
		named[core.JobID(id)] = true
		least = min(least, core.JobID(id))
		sum += n
	}
	for id := core.JobID(1); id < core.JobID(len(trialJobs)); id++ {
		if !named[id] && (o.done[id] || len(named) > 0 && id < least) {
			sum += trialJobs[id]
		}
	}
	return sum
}

// died settles the end of the present instance, when its successor appears:
// what it had begun with and what it ran, less what the last recorded image
// holds, has to run again. A save that was logged but whose record was not
// seen does not count as an image. That is all that may be executed twice.
func (o *observed) died(tr *trial) {
	if o.instance == "" {
		return
	}
	ran, err := ran(tr, o.instance)
	if err != nil {
		o.err = err
		return
	}
	image := o.images[o.recorded]
	if o.restored+ran < image {
		o.err = fmt.Errorf("image %d holds %d workgroups, but the engine ran only %d + %d", o.recorded, image, o.restored, ran)
		return
	}
	o.lost += o.restored + ran - image
	o.restored = image
}

// ran sums up what the engine of an instance ran for the jobs of the last run.
// Those of a run before it, which the same instance may have served, have
// identifiers of an earlier round.
func ran(tr *trial, instance string) (uint64, error) {
	counts, err := tr.counters(instance)
	if err != nil {
		return 0, err
	}
	var round core.JobID
	jobs := core.JobID(len(trialJobs) - 1)
	for key := range counts {
		round = max(round, (key.Job-1)/jobs)
	}
	var sum uint64
	for key, n := range counts {
		if (key.Job-1)/jobs == round {
			sum += n
		}
	}
	return sum, nil
}

// ranByAll sums up what the engines of all instances ran for the jobs from
// first on.
func (o *observed) ranByAll(tr *trial, first core.JobID) uint64 {
	var sum uint64
	for instance := range o.instances {
		counts, err := tr.counters(instance)
		if err != nil {
			o.err = err
		}
		for key, n := range counts {
			if key.Job >= first {
				sum += n
			}
		}
	}
	return sum
}
