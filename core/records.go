package core

// Write is a set of changes to the records that is committed in one
// transaction, or not at all. Later values of the same key replace earlier ones.
type Write struct {
	Entities     []EntitySpec
	EntityStates []EntityState
	Jobs         []*JobSpec
	JobStates    []JobState
	Instances    []InstanceRecord
	// Removed things; an entity goes together with its jobs.
	RemoveEntities  []EntityID
	RemoveInstances []string
	// Session, when not zero, is the highest session number handed out.
	Session Session
	// NextEntity and NextJob, when not zero, are the next identifiers to hand out.
	NextEntity EntityID
	NextJob    JobID
}

// Snapshot is everything on record.
type Snapshot struct {
	Entities  []EntityRecord
	Instances []InstanceRecord
	Session   Session
	// NextEntity and NextJob are at least 1.
	NextEntity EntityID
	NextJob    JobID
	// Quarantined says, one sentence each, which records could not be read and
	// were set aside.
	Quarantined []string
}

// EntityRecord is an entity with its jobs in submission order.
type EntityRecord struct {
	Spec  EntitySpec
	State EntityState
	Jobs  []JobRecord
}

// JobRecord is a job with its state.
type JobRecord struct {
	Spec  *JobSpec
	State JobState
}
