package configs

import (
	"slices"
	"strings"
)

// resolveAfter looks up what jobs await and refuses what could never happen.
func (b *builder) resolveAfter() {
	var names []string
	for _, j := range b.jobOrder {
		if j.job.Spec.Name != "" {
			names = append(names, j.job.Spec.Name)
		}
	}
	for _, j := range b.jobOrder {
		seen := map[string]bool{}
		for _, v := range j.v.list("after") {
			b.resolveOne(j, v, names, seen[v.text])
			seen[v.text] = true
		}
	}
	b.findCycles()
}

func (b *builder) resolveOne(j *jobDraft, v *value, names []string, twice bool) {
	self := j.title()
	other := b.jobs[v.text]
	switch {
	case other == nil:
		hint := b.didYouMean(v.text, names)
		if b.entities[v.text] != nil {
			hint = "that is an entity; after names jobs"
		}
		b.add(v.node, hint, "%s: there is no job %q to wait for", self, v.text)
	case other == j:
		b.add(v.node, "", "%s waits for itself", self)
	case twice:
		b.add(v.node, "", "job %q stands twice in after", v.text)
	case other.owner != nil && other.owner == j.owner && other.seq > j.seq:
		b.add(v.node, "jobs of one entity run in file order", "%s waits for %q, a later job of the same entity", self, v.text)
	default:
		j.job.After = append(j.job.After, v.text)
		j.after = append(j.after, other)
		j.afterAt = append(j.afterAt, v)
	}
}

// findCycles notes each cycle of waiting once. A job waits for what it names
// in after and, since jobs of an entity run in order, for the one before it.
func (b *builder) findCycles() {
	const (
		white = iota // not seen
		grey         // on the present path
		black        // done
	)
	type frame struct {
		job  *jobDraft
		next int
	}
	colour := make([]int, len(b.jobOrder))
	for _, start := range b.jobOrder {
		if colour[start.order] != white {
			continue
		}
		path := []frame{{job: start}}
		colour[start.order] = grey
		for len(path) > 0 {
			top := &path[len(path)-1]
			waits := top.job.waits()
			if top.next == len(waits) {
				colour[top.job.order] = black
				path = path[:len(path)-1]
				continue
			}
			other := waits[top.next]
			top.next++
			switch colour[other.order] {
			case white:
				colour[other.order] = grey
				path = append(path, frame{job: other})
			case grey:
				var cycle []*jobDraft
				for i := len(path) - 1; ; i-- {
					cycle = append([]*jobDraft{path[i].job}, cycle...)
					if path[i].job == other {
						break
					}
				}
				b.noteCycle(cycle)
			}
		}
	}
}

// waits lists the jobs that must be over before j can run.
func (j *jobDraft) waits() []*jobDraft {
	out := j.after
	if j.owner != nil && j.seq > 0 {
		out = append(slices.Clone(out), j.owner.jobs[j.seq-1])
	}
	return out
}

// noteCycle reports a cycle at the first `after` of it in the file.
func (b *builder) noteCycle(cycle []*jobDraft) {
	// Start with the job that stands first in the file.
	first := 0
	for i, j := range cycle {
		if j.order < cycle[first].order {
			first = i
		}
	}
	cycle = append(slices.Clone(cycle[first:]), cycle[:first]...)
	names := make([]string, 0, len(cycle)+1)
	var at *value
	ordered := false
	for i, j := range cycle {
		names = append(names, j.job.Spec.Name)
		next := cycle[(i+1)%len(cycle)]
		k := slices.Index(j.after, next)
		if k < 0 {
			ordered = true
		} else if at == nil {
			at = j.afterAt[k]
		}
	}
	names = append(names, names[0])
	if len(names) > 12 {
		names = append(append(names[:6:6], "…"), names[len(names)-5:]...)
	}
	hint := ""
	if ordered {
		hint = "a job also waits for the one before it in its entity"
	}
	b.add(at.node, hint, "jobs wait for each other: %s", strings.Join(names, " -> "))
}
