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

// DependencyPolicy says what becomes of a job when one it depends on does not complete.
type DependencyPolicy string

// The policies; empty means DependencyFail.
const (
	// DependencyFail ends the job dependency-failed.
	DependencyFail DependencyPolicy = "fail"
	// DependencyCancel ends it cancelled, which is not a failure of its entity.
	DependencyCancel DependencyPolicy = "cancel"
	// DependencyIgnore lets it run.
	DependencyIgnore DependencyPolicy = "ignore"
)

// Dependency is a fence that a job waits for in its scheduler.
type Dependency struct {
	Fence     Fence            `json:"fence"`
	OnFailure DependencyPolicy `json:"on_failure,omitempty"`
}

// UsageKey names one count of workgroups that an engine executed.
type UsageKey struct {
	Job   JobID
	Epoch Epoch
}
