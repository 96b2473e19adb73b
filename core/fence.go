package core

import "fmt"

// Fence names the one-shot completion of a job: the finished fence of the job
// with that sequence number on the entity's timeline. It is a plain value
// without a back pointer and outlives everything it names.
type Fence struct {
	Timeline EntityID
	Seq      JobSeq
}

// String writes the fence as timeline:sequence.
func (f Fence) String() string { return fmt.Sprintf("%d:%d", f.Timeline, f.Seq) }

// UsageKey names one count of workgroups that an engine executed.
type UsageKey struct {
	Job   JobID
	Epoch Epoch
}
